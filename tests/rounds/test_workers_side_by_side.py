"""Several workers at once on PostgreSQL: what is counted is counted once, whoever comes first."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.db import connections, transaction

from controlplane.audit.models import AuditEntry
from controlplane.audit.sequencing import sequence_entries
from controlplane.audit.services import record
from devices.services import suspend_device
from latticeward.errors import LatticewardError
from latticeward.lifecycle import ParticipantState, RoundState
from latticeward.opening import codec_of
from latticeward.plan import RoundPlan
from latticeward.updates.ring import accumulate
from rounds.models import Contribution, ModelVersion, Partial, Round
from rounds.services import aggregation, coordination, intake, merging, signing, trainings
from rounds.services.cohorts import require_hiding
from rounds.services.opening import opening_of, reopen_submission
from rounds.services.partials import load_partial
from rounds.services.recomputation import recompute_round
from tests.rounds.cohort import Cohort
from tests.rounds.test_dropouts import make_due
from tests.rounds.test_partials import accept_in_slots, sum_of

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run all at once in threads of their own; what they return or the domain error they raise, in order."""
    results: list[Any] = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            gate.wait()
            results[index] = call()
        except LatticewardError as error:
            results[index] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_updates_taken_in_by_several_workers_sum_to_the_same_bits(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    submissions = [hospital.submit(current, hospital.prepare(current)) for hospital in cohort.hospitals]
    together(*(lambda each=each: intake.process_update(each.id) for each in submissions * 2))
    assert Contribution.objects.count() == 4
    codec = codec_of(current.training.round_plan)
    expected, total = codec.empty_sum(), codec.empty_sum()
    accumulate(expected, *(reopen_submission(each, opening_of(current)).vector for each in submissions))
    for partial in Partial.objects.filter(round=current):
        accumulate(total, load_partial(partial, codec.dtype))
    assert np.array_equal(total, expected)
    assert cohort.publish(current).state == RoundState.PUBLISHED


def test_a_message_that_ten_workers_get_at_once_counts_once(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    submission = cohort.hospitals[0].submit(current, cohort.hospitals[0].prepare(current))
    results = together(*[lambda: intake.process_update(submission.id)] * 10)
    assert [result for result in results if result is not None] == [current.id]
    assert Contribution.objects.count() == 1
    assert AuditEntry.objects.filter(event="update.accepted").count() == 1


def test_workers_that_merge_the_same_partials_at_once_lose_and_double_none(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 2)
    current = cohort.collecting(cohort.train())
    expected = accept_in_slots(cohort, current, [0, 1, 2, 3])
    assert coordination.advance_round(current.id) == "begin_aggregating"
    while groups := merging.groups_to_merge(current.id):
        results = together(*(lambda group=group: merging.merge_partials(current.id, group) for group in groups * 3))
        assert results == [None] * len(groups) * 3
    assert np.array_equal(sum_of(current), expected)
    assert Contribution.objects.count() == 4
    together(*[lambda: aggregation.aggregate_round(current.id)] * 4)
    assert ModelVersion.objects.filter(training=current.training).count() == 1
    signing.publish_round(current.id)
    assert recompute_round(current.id).updates == 4


def test_of_two_submissions_of_one_device_at_once_one_is_taken(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    envelopes = [hospital.prepare(current), hospital.prepare(current)]
    results = together(*(lambda raw=raw: hospital.submit(current, raw) for raw in envelopes))
    assert sorted(getattr(result, "code", "") for result in results) == ["", "replayed"]
    assert AuditEntry.objects.filter(event="update.received").count() == 1


def test_a_suspension_during_intake_ends_in_or_out_and_never_between(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    submissions = [hospital.submit(current, hospital.prepare(current)) for hospital in cohort.hospitals]
    device = cohort.hospitals[0].device
    together(
        *(lambda each=each: intake.process_update(each.id) for each in submissions),
        lambda: suspend_device(device_id=device.id, actor="user:1", why="lost"),
        lambda: coordination.advance_round(current.id),
    )
    for submission in submissions:
        intake.process_update(submission.id)
    published = cohort.publish(current)
    states = dict(published.participants.values_list("device_id", "state"))
    assert states.pop(device.id) == ParticipantState.EXCLUDED
    assert set(states.values()) == {ParticipantState.ACCEPTED}
    assert Contribution.objects.count() == 3


def test_of_two_close_cohorts_that_are_fixed_at_once_one_is_opened(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = []
    for members in ([0, 1, 2], [0, 1, 3]):
        current = cohort.collecting(cohort.train())
        for number in members:
            cohort.hospitals[number].contribute(current)
        make_due(current)
        rounds.append(current)

    def look_and_linger(current: Round, plan: RoundPlan) -> None:
        require_hiding(current, plan)
        time.sleep(0.5)  # so that the other one looks before this one's members are fixed

    monkeypatch.setattr(coordination, "require_hiding", look_and_linger)
    events = together(*(lambda current=current: coordination.advance_round(current.id) for current in rounds))
    assert sorted(events) == ["begin_aggregating", "fail"]


def test_a_training_opened_by_many_at_once_has_one_round(cohort: Cohort) -> None:
    training = cohort.train()
    opened = together(*[lambda: trainings.advance_training(training.id)] * 4)
    assert sum(isinstance(result, Round) for result in opened) == 1
    assert training.rounds.count() == 1


def test_a_feed_has_no_gap_and_no_number_twice_however_many_write(db: None) -> None:
    def write() -> None:
        for _ in range(20):
            with transaction.atomic():
                record("user.signed_in", actor="user:1", feed="shared", subject=("user", 1))

    together(write, write, write, write)
    numbers = AuditEntry.objects.filter(feed="shared").order_by("feed_seq").values_list("feed_seq", flat=True)
    assert list(numbers) == list(range(1, 81))


def test_two_sequencers_number_every_entry_once(db: None) -> None:
    with transaction.atomic():
        for _ in range(50):
            record("user.signed_in", actor="user:1", feed="shared", subject=("user", 1))
    together(sequence_entries, sequence_entries, sequence_entries)
    numbers = AuditEntry.objects.order_by("leaf_index").values_list("leaf_index", flat=True)
    assert list(numbers) == list(range(AuditEntry.objects.count()))
