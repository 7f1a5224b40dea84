"""A message that was lost is sent again, one that only waits is not doubled, and what takes long is left alone."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.apps import apps
from django.db.models import DateTimeField, F
from django.utils import timezone

from rounds import tasks
from rounds.models import Partial, Reminder, Round, Submission
from rounds.services import aggregation, claims, coordination, intake, reminders, trainings
from rounds.services.plans import plan_for
from rounds.services.reminders import INTERVALS, PATIENCE, Step, due_reminders
from tests.rounds.cohort import Cohort

pytestmark = pytest.mark.django_db

BEAT = timedelta(seconds=2)


def later(span: timedelta) -> None:
    """Move everything that happened, or is due, into the past."""
    for model in apps.get_app_config("rounds").get_models():
        times = [item.name for item in model._meta.get_fields() if isinstance(item, DateTimeField)]
        if times:
            model._default_manager.update(**{name: F(name) - span for name in times})


def waiting(cohort: Cohort, count: int = 1) -> list[Submission]:
    """Submissions whose messages nobody got."""
    current = cohort.collecting(cohort.train())
    return [hospital.submit(current, hospital.prepare(current)) for hospital in cohort.hospitals[:count]]


def test_every_step_has_the_task_of_its_name() -> None:
    assert {str(step): task.name for step, task in tasks.STEPS.items()} == {
        str(step): f"rounds.tasks.{step}" for step in Step
    }


def test_a_submission_that_just_came_is_left_to_its_own_message(cohort: Cohort) -> None:
    waiting(cohort)
    later(PATIENCE - timedelta(seconds=1))
    assert due_reminders() == []


def test_one_that_waits_is_asked_for_once_an_interval_and_not_every_beat(cohort: Cohort) -> None:
    (submission,) = waiting(cohort)
    asked = []
    for beat in range(30):  # a minute
        asked += [beat] * len(due_reminders())
        later(BEAT)
    assert asked == [2, 5, 11, 17, 23, 29]
    assert Reminder.objects.get().sent == 6
    assert Reminder.objects.get().subject == submission.id


def test_the_third_lost_message_in_a_row_is_made_up_for_in_a_minute() -> None:
    late_by = PATIENCE + sum(INTERVALS, timedelta(0)) + 3 * BEAT
    assert late_by < timedelta(seconds=30)  # a round's grace, after which nobody would wait for the update


def test_a_reminder_of_a_later_version_is_dropped_and_keeps_no_other_up(
    cohort: Cohort, caplog: pytest.LogCaptureFixture
) -> None:
    (submission,) = waiting(cohort)
    for step in ("weigh_round", "weigh_round", "bless_model"):
        Reminder.objects.create(step=step, subject=uuid4(), sent=1, next_at=timezone.now())
    later(PATIENCE)
    assert due_reminders() == [(Step.PROCESS_UPDATE, submission.id)]
    due_reminders()
    assert caplog.messages == ["reminders of unknown steps are dropped: bless_model, weigh_round"]
    assert Reminder.objects.get().subject == submission.id


def test_a_reminder_goes_when_its_step_is_done(cohort: Cohort) -> None:
    (submission,) = waiting(cohort)
    later(PATIENCE)
    assert due_reminders() == [(Step.PROCESS_UPDATE, submission.id)]
    intake.process_update(submission.id)
    assert due_reminders() == []
    assert not Reminder.objects.exists()


def test_what_a_worker_has_claimed_is_overdue_only_when_the_lease_has_ended(cohort: Cohort) -> None:
    (submission,) = waiting(cohort)
    claims.claim_waiting(submission.id, uuid4())  # and then the worker dies
    later(claims.LEASE - timedelta(seconds=1))
    assert due_reminders() == []
    later(timedelta(seconds=1))
    assert due_reminders() == [(Step.PROCESS_UPDATE, submission.id)]
    assert intake.process_update(submission.id) is not None
    assert Submission.objects.get(pk=submission.pk).outcome == "accepted"


def test_one_sweep_sends_no_more_than_it_may_and_the_oldest_first(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reminders, "MOST_AT_ONCE", 2)
    submissions = waiting(cohort, 4)
    for seconds, submission in enumerate(reversed(submissions)):
        Submission.objects.filter(pk=submission.pk).update(received_at=timezone.now() - timedelta(seconds=20 + seconds))
    first, second = due_reminders(), due_reminders()
    assert [subject for _, subject in first + second] == [one.id for one in submissions]
    assert due_reminders() == []


def test_a_sweep_sends_for_what_is_overdue_and_for_nothing_twice(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    for task in tasks.STEPS.values():
        monkeypatch.setattr(task, "delay", sent.append)
    for task in (tasks.advance_round, tasks.advance_training):
        monkeypatch.setattr(task, "delay", lambda _: None)
    submissions = waiting(cohort, 3)
    later(PATIENCE)
    tasks.sweep()
    tasks.sweep()
    assert sorted(map(UUID, sent)) == sorted(one.id for one in submissions)


def test_what_nobody_signs_is_asked_for_again(cohort: Cohort) -> None:
    plan = plan_for({"job": "heart"}, cohort.federation)
    unsigned = trainings.open_training(federation=cohort.federation, plan=plan, actor="user:1")
    opened = trainings.advance_training(cohort.train().id)
    assert opened is not None
    assert due_reminders() == []
    later(PATIENCE)
    assert set(due_reminders()) == {(Step.SIGN_TRAINING, unsigned.id), (Step.SIGN_ROUND, opened.id)}


def closed(cohort: Cohort) -> Round:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    assert coordination.advance_round(current.id) == "begin_aggregating"
    return cohort.look(current)


def test_an_aggregation_that_goes_on_for_long_is_not_begun_again(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a sweep and longer than a lease: the lease is renewed between the parts of the work."""
    current = closed(cohort)
    parts: list[str] = []
    load, begin = aggregation.load_partial, aggregation.ModelInMaking.begin

    def slowly(name: str) -> None:
        later(aggregation.LEASE - timedelta(seconds=1))
        assert due_reminders() == []
        assert not aggregation.aggregate_round(current.id)  # a second worker leaves
        parts.append(name)

    def load_slowly(partial: Partial, dtype: object) -> object:
        slowly("load")
        return load(partial, dtype)  # type: ignore[arg-type]

    def begin_slowly(*arguments: object) -> None:
        slowly("make")
        begin(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(aggregation, "load_partial", load_slowly)
    monkeypatch.setattr(aggregation.ModelInMaking, "begin", begin_slowly)
    assert aggregation.aggregate_round(current.id)
    assert parts == ["load", "make"]


def test_a_round_whose_worker_was_killed_is_taken_up_again_when_the_lease_ends(cohort: Cohort) -> None:
    current = closed(cohort)
    Round.objects.filter(pk=current.pk).update(claim=uuid4(), claimed_until=timezone.now() + aggregation.LEASE)
    later(aggregation.LEASE - timedelta(seconds=1))
    assert due_reminders() == []
    later(timedelta(seconds=1))
    assert due_reminders() == [(Step.AGGREGATE_ROUND, current.id)]
    assert aggregation.aggregate_round(current.id)
