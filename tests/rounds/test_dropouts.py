"""Devices vanish, are revoked, or come late; the round ends by its deadline with the others or says why not."""

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import numpy as np
import pytest
from django.db import connection, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.services import revoke_device, suspend_device
from keys.models import Reason
from latticeward.errors import IncompatiblePlanError, LatticewardError
from latticeward.lifecycle import ParticipantState, RoundState, TrainingState
from latticeward.messages import RoundRecord
from latticeward.opening import OpenedContribution, codec_of
from latticeward.updates.ring import accumulate
from rounds import tasks
from rounds.models import Contribution, Partial, Participant, Round, Submission
from rounds.policy import GRACE
from rounds.services import acceptance, aggregation, claims, coordination, intake, trainings
from rounds.services.opening import opening_of, reopen_submission
from rounds.services.partials import load_partial
from rounds.services.plans import plan_for
from rounds.services.retention import RECOMPUTATION_WINDOW, destroy_round_keys
from rounds.storage import blob_path, delete_blob
from tests.devices.machine import enrolled
from tests.rounds.cohort import Cohort, Hospital

pytestmark = pytest.mark.django_db


def make_due(current: Round, *, by: timedelta = timedelta(seconds=1)) -> None:
    Round.objects.filter(pk=current.pk).update(state_due_at=timezone.now() - by)


def states(current: Round) -> list[str]:
    return sorted(Participant.objects.filter(round=current).values_list("state", flat=True))


def test_a_device_that_vanishes_is_dropped_at_the_due_time_and_the_others_publish(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals[:3]:
        hospital.contribute(current)
    assert coordination.advance_round(current.id) is None  # the fourth may still come
    make_due(current)
    published = cohort.publish(current)
    assert states(published) == ["accepted"] * 3 + ["dropped"]
    record = RoundRecord.from_bytes(bytes(published.record))
    assert sorted((row["outcome"], row["code"]) for row in record.participants)[-1] == ("dropped", "late")


def test_only_an_update_that_a_round_may_have_waited_for_tells_the_aggregation_worker(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(tasks.advance_round, "delay", told.append)
    current = cohort.collecting(cohort.train(quorum=3))
    for hospital in cohort.hospitals[:3]:
        tasks.process_update(str(hospital.submit(current, hospital.prepare(current)).id))
    assert told == []  # the fourth may still come
    tasks.process_update(str(cohort.hospitals[3].submit(current, cohort.hospitals[3].prepare(current)).id))
    assert told == [str(current.id)]


def test_an_update_that_a_round_took_after_its_due_time_ends_the_wait(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(tasks.advance_round, "delay", told.append)
    current = cohort.collecting(cohort.train(quorum=3))
    submissions = [hospital.submit(current, hospital.prepare(current)) for hospital in cohort.hospitals[:3]]
    make_due(current)
    tasks.process_update(str(submissions[0].id))  # and with it the others that wait
    assert told == [str(current.id)]


def test_without_quorum_the_round_fails_at_its_due_time_and_the_next_one_opens(cohort: Cohort) -> None:
    training = cohort.train()
    current = cohort.collecting(training)
    for hospital in cohort.hospitals[:2]:
        hospital.contribute(current)
    make_due(current)
    assert coordination.advance_round(current.id) == "fail"
    current = cohort.look(current)
    assert (current.state, current.failure_code) == (RoundState.FAILED, "quorum_not_met")
    following = trainings.advance_training(training.id)
    assert following is not None and following.number == current.number + 1


def test_a_training_ends_when_its_rounds_keep_failing(cohort: Cohort) -> None:
    training = cohort.train()
    for _ in range(3):
        current = cohort.open_round(training)
        make_due(current)
        assert coordination.advance_round(current.id) == "fail"
    assert trainings.advance_training(training.id) is None
    training.refresh_from_db()
    assert training.state == TrainingState.FAILED


def test_what_arrived_before_the_due_time_and_is_never_processed_is_dropped_after_the_grace(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals[:3]:
        hospital.contribute(current)
    waiting = cohort.hospitals[3].submit(current, cohort.hospitals[3].prepare(current))
    make_due(current)
    assert coordination.advance_round(current.id) is None
    make_due(current, by=GRACE)
    assert coordination.advance_round(current.id) == "begin_aggregating"
    waiting.refresh_from_db()
    assert waiting.outcome == "dropped"
    assert intake.process_update(waiting.id) is None  # too late to count


@pytest.mark.parametrize("act", ["revoke", "suspend"])
def test_a_device_that_loses_trust_is_taken_out_of_the_sum_again(cohort: Cohort, act: str) -> None:
    current = cohort.collecting(cohort.train())
    submissions = [hospital.contribute(current) for hospital in cohort.hospitals]
    vectors = [reopen_submission(submission, opening_of(current)).vector for submission in submissions]
    device = cohort.hospitals[1].device
    if act == "revoke":
        revoke_device(device_id=device.id, actor="user:1", reason=Reason.PRIVILEGE_WITHDRAWN)
    else:
        suspend_device(device_id=device.id, actor="user:1", why="lost")
    published = cohort.publish(current)
    assert states(published) == ["accepted"] * 3 + ["excluded"]
    codec = codec_of(published.training.round_plan)
    expected = codec.empty_sum()
    accumulate(expected, *(vector for index, vector in enumerate(vectors) if index != 1))
    total = codec.empty_sum()
    for partial in Partial.objects.filter(round=published):
        accumulate(total, load_partial(partial, codec.dtype))
    assert np.array_equal(total, expected)
    outcome = next(
        row for row in RoundRecord.from_bytes(bytes(published.record)).participants if row["outcome"] == "excluded"
    )
    assert outcome["device_id"] == str(device.id)
    assert outcome["submission_digest"] is None


def test_the_quorum_is_checked_again_after_an_exclusion(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train(quorum=4, k_hospitals=4))
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    suspend_device(device_id=cohort.hospitals[0].device.id, actor="user:1", why="lost")
    assert coordination.advance_round(current.id) == "fail"
    assert cohort.look(current).failure_code == "quorum_not_met"


def test_a_device_suspended_after_the_door_is_not_counted(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    submission = hospital.submit(current, hospital.prepare(current))
    suspend_device(device_id=hospital.device.id, actor="user:1", why="lost")
    intake.process_update(submission.id)
    assert not Contribution.objects.exists()
    coordination.advance_round(current.id)
    assert Participant.objects.get(round=current, device=hospital.device).state == ParticipantState.EXCLUDED


def test_a_revocation_after_the_close_changes_nothing_in_the_round(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    assert coordination.advance_round(current.id) == "begin_aggregating"
    suspend_device(device_id=cohort.hospitals[0].device.id, actor="user:1", why="lost")
    assert coordination.advance_round(current.id) is None
    assert states(current) == ["accepted"] * 4


def test_everybody_vanishing_fails_the_round(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    make_due(current)
    assert coordination.advance_round(current.id) == "fail"
    assert states(current) == ["dropped"] * 4


def test_a_worker_that_dies_between_storing_and_committing_loses_and_doubles_nothing(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = cohort.collecting(cohort.train())
    first, second = cohort.hospitals[:2]
    first.contribute(current)
    submission = second.submit(current, second.prepare(current))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(acceptance, "insert_rows", die)
        with pytest.raises(KeyboardInterrupt):
            intake.process_update(submission.id)
    assert Contribution.objects.count() == 1
    assert Participant.objects.get(round=current, device=second.device).state == ParticipantState.SUBMITTED
    intake.process_update(submission.id)  # what the sweep does after the restart
    for hospital in cohort.hospitals[2:]:
        hospital.contribute(current)
    assert cohort.publish(current).state == RoundState.PUBLISHED


def test_a_tampered_partial_stops_the_round_instead_of_publishing(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    assert coordination.advance_round(current.id) == "begin_aggregating"
    Contribution.objects.all()[0].delete()
    with pytest.raises(AssertionError):
        aggregation.aggregate_round(current.id)
    make_due(current, by=GRACE)
    assert coordination.advance_round(current.id) == "fail"
    assert cohort.look(current).failure_code == "not_aggregated_in_time"


def test_two_machines_of_one_hospital_are_one_hospital_for_k(cohort: Cohort) -> None:
    twin = Hospital(machine=enrolled(cohort.hospitals[0].machine.site), job=cohort.hospitals[0].job, site="cleveland")
    cohort.hospitals.append(twin)
    current = cohort.collecting(cohort.train(quorum=2, k_hospitals=2, sensitivity="routine"))
    cohort.hospitals[0].contribute(current)
    twin.contribute(current)
    make_due(current)
    assert coordination.advance_round(current.id) == "fail"
    assert cohort.look(current).failure_code == "k_minimum_not_met"


def flip_a_bit(name: str) -> None:
    raw = bytearray(blob_path(name).read_bytes())
    raw[-4000] ^= 1  # in the body, before the signature
    blob_path(name).write_bytes(raw)


@pytest.mark.parametrize("spoil", [delete_blob, flip_a_bit, lambda name: blob_path(name).write_bytes(b"no envelope")])
def test_a_device_that_cannot_be_taken_out_keeps_the_round_from_closing_and_not_from_ending(
    cohort: Cohort, spoil: Callable[[str], object]
) -> None:
    current = cohort.collecting(cohort.train())
    submissions = [hospital.contribute(current) for hospital in cohort.hospitals]
    spoil(submissions[0].blob)
    suspend_device(device_id=cohort.hospitals[0].device.id, actor="user:1", why="lost")
    assert coordination.advance_round(current.id) is None
    make_due(current, by=GRACE)
    assert coordination.advance_round(current.id) == "fail"
    assert cohort.look(current).failure_code == "exclusion_failed"


def test_a_missing_envelope_holds_up_no_other_hospital(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    submissions = [hospital.submit(current, hospital.prepare(current)) for hospital in cohort.hospitals]
    delete_blob(submissions[0].blob)
    intake.process_update(submissions[1].id)
    assert sorted(states(current)) == ["accepted", "accepted", "accepted", "submitted"]


def test_a_suspension_between_the_exclusion_and_the_freeze_keeps_the_round_open(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    suspend_device(device_id=cohort.hospitals[0].device.id, actor="user:1", why="lost")
    with monkeypatch.context() as patched:
        patched.setattr(coordination, "exclude_untrusted", lambda round_id: None)
        assert coordination.advance_round(current.id) is None
    assert coordination.advance_round(current.id) == "begin_aggregating"
    assert states(current) == ["accepted"] * 3 + ["excluded"]


def test_a_training_that_nobody_signs_fails_by_its_due_time(cohort: Cohort) -> None:
    plan = plan_for({"job": "heart"}, cohort.federation)
    training = trainings.open_training(federation=cohort.federation, plan=plan, actor="user:1")
    type(training).objects.filter(pk=training.pk).update(state_due_at=timezone.now() - timedelta(minutes=2))
    assert trainings.advance_training(training.id) is None
    training.refresh_from_db()
    assert training.state == TrainingState.FAILED


def test_an_aborted_rounds_key_and_partial_sums_are_destroyed_too(cohort: Cohort) -> None:
    training = cohort.train()
    current = cohort.collecting(training)
    cohort.hospitals[0].contribute(current)
    training.refresh_from_db()
    trainings.stop_training(training=training, actor="user:1", reason="test")
    Round.objects.filter(pk=current.pk).update(closed_at=timezone.now() - RECOMPUTATION_WINDOW - timedelta(minutes=1))
    assert destroy_round_keys() == 1
    partial = Partial.objects.get(round=current)
    with pytest.raises(LatticewardError):
        load_partial(partial, codec_of(training.round_plan).dtype)


@pytest.mark.parametrize("seconds", [0, 10**15, "x"])
def test_a_stage_of_impossible_length_is_refused_before_it_is_signed(cohort: Cohort, seconds: object) -> None:
    with pytest.raises(IncompatiblePlanError):
        cohort.train(stage_seconds={"collecting": seconds})


def test_updates_that_cannot_be_read_hold_up_none_that_came_after_them(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BATCH", 2)
    current = cohort.collecting(cohort.train())
    submissions = [hospital.submit(current, hospital.prepare(current)) for hospital in cohort.hospitals]
    for submission in submissions[:2]:
        delete_blob(submission.blob)
    for _ in range(2):
        intake.process_update(submissions[3].id)
    assert states(current) == ["accepted", "accepted", "submitted", "submitted"]


def test_what_was_refused_is_not_counted_by_a_worker_that_opened_it_before(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    first = hospital.submit(current, hospital.prepare(current))
    [held], slot = claims.claim_waiting(first.id, uuid4())
    opened = OpenedContribution(reopen_submission(held, opening_of(current)).vector)
    acceptance.refuse_update(Submission.objects.select_related("participant__round").get(pk=first.pk), "key_usage")
    second = hospital.submit(current, hospital.prepare(current))
    acceptance.accept_updates([(held, opened)], slot=slot)
    first.refresh_from_db()
    assert first.outcome == "refused" and not Contribution.objects.exists()
    intake.process_update(second.id)
    assert Contribution.objects.get().submission_id == second.id


def test_a_failing_house_keeping_step_keeps_no_round_from_its_end(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = cohort.collecting(cohort.train())
    make_due(current, by=GRACE)
    asked: list[str] = []
    monkeypatch.setattr(tasks.advance_round, "delay", asked.append)
    monkeypatch.setattr(tasks.advance_training, "delay", lambda _: None)
    monkeypatch.setattr(tasks.exports, "expire_exports", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tasks.sweep()
    assert asked == [str(current.id)]


def test_a_stopped_training_leaves_no_submission_undecided_and_no_envelope_that_nobody_will_open(
    cohort: Cohort,
) -> None:
    training = cohort.train()
    current = cohort.collecting(training)
    counted = cohort.hospitals[0].contribute(current)
    waiting = cohort.hospitals[1].submit(current, cohort.hospitals[1].prepare(current))
    training.refresh_from_db()
    with TestCase.captureOnCommitCallbacks(execute=True):
        trainings.stop_training(training=training, actor="user:1", reason="no longer needed")
    waiting.refresh_from_db()
    assert (waiting.outcome, waiting.code) == ("dropped", "training_stopped")
    assert states(current) == ["accepted"] + ["dropped"] * 3
    assert blob_path(counted.blob).exists() and not blob_path(waiting.blob).exists()


def test_closing_a_round_costs_as_many_statements_for_three_late_devices_as_for_one(
    cohort: Cohort,
) -> None:
    statements = []
    for counted in (3, 0):
        current = cohort.collecting(cohort.train())
        for hospital in cohort.hospitals[:counted]:
            hospital.contribute(current)
        with CaptureQueriesContext(connection) as captured, transaction.atomic():
            coordination.drop_undecided(current)
        statements.append(len(captured))
    assert statements[0] == statements[1]
