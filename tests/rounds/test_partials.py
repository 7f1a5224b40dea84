"""Partial sums between the workers: slots, micro-batches, the merge tree, claims, and what is erased when."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import DjangoCaptureOnCommitCallbacks

from bench.large_model import encoded_update, sealed_update
from devices.services import suspend_device
from latticeward.crypto.kem import EncapsulationKey
from latticeward.errors import NotFoundError
from latticeward.lifecycle import RoundState
from latticeward.messages import Assignment
from latticeward.opening import codec_of
from latticeward.updates.ring import RingVector, accumulate
from latticeward.updates.tensors import TensorLayout, TensorSpec
from rounds import tasks
from rounds.models import Contribution, Partial, Round, Submission
from rounds.services import (
    acceptance,
    aggregation,
    claims,
    coordination,
    intake,
    merging,
    retention,
    signing,
    trainings,
)
from rounds.services.opening import open_submission, opening_of, reopen_submission
from rounds.services.partials import forget_replaced, load_partial, members_of, prepare_partial, swap_partial
from rounds.services.recomputation import recompute_round
from rounds.storage import blob_path, read_blob
from tests.rounds.cohort import Cohort
from tests.rounds.line import digest_of

pytestmark = pytest.mark.django_db


def sum_of(current: Round) -> RingVector:
    codec = codec_of(current.training.round_plan)
    total = codec.empty_sum()
    for partial in Partial.objects.filter(round=current):
        accumulate(total, load_partial(partial, codec.dtype))
    return total


def accept_in_slots(cohort: Cohort, current: Round, slots: list[int]) -> RingVector:
    """Each hospital's update into a slot; returns what the sum must be."""
    codec, opening = codec_of(current.training.round_plan), opening_of(current)
    expected = codec.empty_sum()
    for hospital, slot in zip(cohort.hospitals, slots, strict=True):
        submission = hospital.submit(current, hospital.prepare(current))
        submission = Submission.objects.select_related("participant__round__training", "participant__device__site").get(
            pk=submission.pk
        )
        opened = open_submission(submission, opening, hospital.machine.keys.signing.verify_key)
        accumulate(expected, opened.vector)
        acceptance.accept_updates([(submission, opened)], slot=slot)
    return expected


def run_tree(round_id: object, order: Callable[[list[list[int]]], list[list[int]]]) -> int:
    """Merge level by level, a level's groups in any order; returns how many merges there were."""
    merges = 0
    while groups := merging.groups_to_merge(round_id):  # type: ignore[arg-type]
        for slots in order(groups):
            merging.merge_partials(round_id, slots)  # type: ignore[arg-type]
            merges += 1
    return merges


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(slots=st.lists(st.integers(0, 40), min_size=4, max_size=4), backwards=st.booleans())
def test_any_slots_and_any_tree_over_them_publish_what_the_envelopes_come_to(
    cohort: Cohort, slots: list[int], backwards: bool
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merging, "FAN_IN", 2)
        current = cohort.collecting(cohort.train())
        expected = accept_in_slots(cohort, current, slots)
        assert coordination.advance_round(current.id) == "begin_aggregating"
        run_tree(current.id, lambda groups: groups[::-1] if backwards else groups)
        assert Partial.objects.filter(round=current).count() <= 2
        assert np.array_equal(sum_of(current), expected)
        assert aggregation.aggregate_round(current.id)
        signing.publish_round(current.id)
        assert recompute_round(current.id).updates == 4


def test_few_partials_are_not_merged_before_their_time(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    accept_in_slots(cohort, current, [0, 1, 2, 3])
    assert merging.groups_to_merge(current.id) == []
    merging.merge_partials(current.id, [0, 1, 2, 3])  # the round still collects: its members may still leave
    assert Partial.objects.filter(round=current).count() == 4


def test_a_merge_that_is_repeated_finds_it_done_and_leaves_no_blob_behind(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 2)
    current = cohort.collecting(cohort.train())
    expected = accept_in_slots(cohort, current, [0, 1, 2, 3])
    blobs = list(Partial.objects.filter(round=current).values_list("blob", flat=True))
    coordination.advance_round(current.id)
    for _ in range(3):
        merging.merge_partials(current.id, [0, 1])
    merging.merge_partials(current.id, [2, 3])
    assert merging.groups_to_merge(current.id) == []
    assert np.array_equal(sum_of(current), expected)
    assert Contribution.objects.filter(partial__round=current).count() == 4
    assert not [name for name in blobs if blob_path(name).exists()]


def test_a_worker_that_dies_in_a_merge_loses_nothing(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    current = cohort.collecting(cohort.train())
    expected = accept_in_slots(cohort, current, [0, 1, 2, 3])
    coordination.advance_round(current.id)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(merging, "swap_partial", die)
        with pytest.raises(KeyboardInterrupt):
            merging.merge_partials(current.id, [0, 1, 2, 3])
    assert Partial.objects.filter(round=current).count() == 4
    merging.merge_partials(current.id, [0, 1, 2, 3])
    assert np.array_equal(sum_of(current), expected)


def test_the_tasks_walk_the_tree_to_the_published_round(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 2)
    sent: list[tuple[str, tuple[object, ...]]] = []
    for name in ("aggregate_round", "merge_partials", "publish_round"):
        monkeypatch.setattr(getattr(tasks, name), "delay", lambda *given, name=name: sent.append((name, given)))
    current = cohort.collecting(cohort.train())
    accept_in_slots(cohort, current, [0, 1, 2, 3])
    tasks.advance_round(str(current.id))
    done: list[str] = []
    while sent:
        name, given = sent.pop(0)
        done.append(name)
        if name != "publish_round":
            getattr(tasks, name)(*given)
    assert done == ["merge_partials", "merge_partials", "aggregate_round", "publish_round"]


def test_workers_that_hold_claims_have_slots_of_their_own(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    first, second, third = (hospital.submit(current, hospital.prepare(current)) for hospital in cohort.hospitals[:3])
    Submission.objects.filter(pk=first.pk).update(
        claim=uuid4(), claimed_until=timezone.now() + timedelta(seconds=9), slot=0
    )
    Submission.objects.filter(pk=second.pk).update(
        claim=uuid4(), claimed_until=timezone.now() - timedelta(seconds=9), slot=1
    )
    taken, slot = claims.claim_waiting(first.id, uuid4())
    assert ({one.id for one in taken}, slot) == ({second.id, third.id}, 1)


def test_a_batch_is_bounded_by_bytes_and_never_empty(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    current = cohort.collecting(cohort.train())
    submissions = [hospital.submit(current, hospital.prepare(current)) for hospital in cohort.hospitals]
    monkeypatch.setattr(claims, "BATCH_BYTES", 2 * submissions[0].size_bytes + 100)
    assert len(claims.claim_waiting(submissions[0].id, uuid4())[0]) == 2
    monkeypatch.setattr(claims, "BATCH_BYTES", 1)
    assert len(claims.claim_waiting(submissions[0].id, uuid4())[0]) == 1


def test_of_two_first_versions_of_a_slot_the_second_is_added_to_the_first(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = cohort.collecting(cohort.train())
    prepared = []

    def prepare_and_come_late(*given: Any) -> Any:
        prepared.append(prepare_partial(*given))
        if len(prepared) == 1:
            empty = codec_of(current.training.round_plan).empty_sum()
            swap_partial(current, prepare_partial(current, given[1], None, empty, []))
        return prepared[-1]

    monkeypatch.setattr(acceptance, "prepare_partial", prepare_and_come_late)
    submission = cohort.hospitals[0].contribute(current)
    assert submission.outcome == "accepted"
    partial = Partial.objects.get(round=current)
    assert (partial.version, partial.contributions.count(), len(prepared)) == (2, 1, 2)
    assert np.array_equal(sum_of(current), reopen_submission(submission, opening_of(current)).vector)
    assert not blob_path(prepared[0].blob).exists()


def test_a_sum_that_is_replaced_while_an_update_is_opened_is_read_again(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = cohort.collecting(cohort.train())
    first = cohort.hospitals[0].contribute(current)

    def open_and_be_overtaken(*given: Any) -> Any:
        partial = Partial.objects.get(round=current)
        vector = load_partial(partial, codec_of(current.training.round_plan).dtype)
        prepared = prepare_partial(current, partial.slot, partial, vector, members_of(partial))
        swap_partial(current, prepared)
        forget_replaced(prepared)
        return open_submission(*given)

    monkeypatch.setattr(intake, "open_submission", open_and_be_overtaken)
    second = cohort.hospitals[1].contribute(current)
    assert (first.outcome, second.outcome) == ("accepted", "accepted")
    partial = Partial.objects.get(round=current)
    assert (partial.version, partial.contributions.count()) == (3, 2)
    expected = codec_of(current.training.round_plan).empty_sum()
    for submission in (first, second):
        accumulate(expected, reopen_submission(submission, opening_of(current)).vector)
    assert np.array_equal(sum_of(current), expected)


def test_a_round_is_aggregated_by_one_worker_at_a_time(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    coordination.advance_round(current.id)
    rows = Round.objects.filter(pk=current.pk)
    rows.update(claim=uuid4(), claimed_until=timezone.now() + timedelta(seconds=9))
    assert not aggregation.aggregate_round(current.id)
    assert rows.get().record is None
    rows.update(claimed_until=timezone.now() - timedelta(seconds=1))  # that worker has died
    assert aggregation.aggregate_round(current.id)


def test_an_aggregation_that_fails_by_our_fault_gives_its_claim_back(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    coordination.advance_round(current.id)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(aggregation, "ModelInMaking", fail)
        with pytest.raises(OSError, match="space"):
            aggregation.aggregate_round(current.id)
    assert aggregation.aggregate_round(current.id)


def test_envelopes_that_will_never_count_are_erased_with_the_decision(
    cohort: Cohort, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    current = cohort.collecting(cohort.train(quorum=2, k_hospitals=2, sensitivity="routine"))
    refused, excluded, late, counted = cohort.hospitals
    with django_capture_on_commit_callbacks(execute=True):
        envelope = bytearray(refused.prepare(current))
        digest = digest_of(bytes(envelope))
        envelope[-1] ^= 1  # the signature is not part of what is signed: the door cannot see it
        first = refused.hand_in(current, bytes(envelope), digest)
        intake.process_update(first.id)
        second = excluded.contribute(current)
        third = counted.contribute(current)
        suspend_device(device_id=excluded.device.id, actor="user:1", why="lost")
        coordination.advance_round(current.id)
        fourth = late.submit(current, late.prepare(current))
        Round.objects.filter(pk=current.pk).update(state_due_at=timezone.now() - timedelta(minutes=1))
        coordination.advance_round(current.id)
    outcomes = {str(one.id): one.outcome for one in Submission.objects.all()}
    assert [outcomes[str(one.id)] for one in (first, second, fourth, third)] == [
        "refused",
        "excluded",
        "dropped",
        "accepted",
    ]
    for gone in (first, second, fourth):
        with pytest.raises(NotFoundError):
            read_blob(gone.blob)
    assert len(read_blob(third.blob)) == third.size_bytes
    assert retention.sweep_orphaned_blobs() == 0


def test_bytes_that_another_submission_needs_stay(
    cohort: Cohort, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    current = cohort.collecting(cohort.train())
    honest, copier = cohort.hospitals[:2]
    envelope = honest.prepare(current)
    own = honest.submit(current, envelope)
    with django_capture_on_commit_callbacks(execute=True):
        copied = copier.submit(current, envelope)
        assert copied.blob == own.blob
        Submission.objects.filter(pk=own.pk).update(claimed_until=timezone.now() + timedelta(seconds=9))
        intake.process_update(copied.id)
    copied.refresh_from_db()
    assert copied.outcome == "refused"
    Submission.objects.filter(pk=own.pk).update(claimed_until=None)
    intake.process_update(own.id)
    assert reopen_submission(Submission.objects.get(pk=own.pk), opening_of(current)).vector.any()


def large_round(cohort: Cohort, parameters: int) -> Round:
    """A closed round of a model of this size, with no partial yet."""
    plan = replace(
        cohort.train().round_plan,
        training_id=str(uuid4()),
        layout=TensorLayout((TensorSpec("weight", (parameters,)),)),
    )
    training = trainings.open_training(federation=cohort.federation, plan=plan, actor="user:1")
    trainings.sign_training(training.id)
    training.refresh_from_db()
    current = cohort.collecting(training)
    Round.objects.filter(pk=current.pk).update(state=RoundState.AGGREGATING)
    return cohort.look(current)


def test_merging_needs_two_model_sizes_however_many_partials_there_are(cohort: Cohort) -> None:
    current = large_round(cohort, 500_000)
    codec = codec_of(current.training.round_plan)
    peaks = []
    for count in (2, 8):
        Partial.objects.filter(round=current).delete()
        for slot in range(count):
            swap_partial(current, prepare_partial(current, slot, None, codec.empty_sum(), []))
        tracemalloc.start()
        merging.merge_partials(current.id, list(range(count)))
        peaks.append(tracemalloc.get_traced_memory()[1] / codec.length_bytes)
        tracemalloc.stop()
        assert Partial.objects.filter(round=current).count() == 1
    assert peaks[1] < peaks[0] + 0.5
    assert peaks[1] < 3


def test_taking_in_holds_a_batch_and_not_the_cohort(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one update at a time, four take no more memory than one."""
    current = large_round(cohort, 500_000)
    Round.objects.filter(pk=current.pk).update(state=RoundState.COLLECTING)
    current = cohort.look(current)
    plan = current.training.round_plan
    codec = codec_of(plan)
    assignment = Assignment.from_bytes(bytes(current.assignment))
    encoded = encoded_update(plan, 7)
    submissions = []
    for hospital in cohort.hospitals:
        envelope = sealed_update(
            plan,
            encoded,
            round_id=str(current.id),
            base_model_digest=assignment.base_model_digest,
            recipient=EncapsulationKey.from_raw(assignment.recipient_key, assignment.recipient_algorithm),
            signing_key=hospital.machine.keys.signing,
        )
        submissions.append(hospital.submit(current, envelope))
    monkeypatch.setattr(claims, "BATCH_BYTES", 1)
    peaks = []
    for submission in submissions:
        tracemalloc.start()
        intake.process_update(submission.id)
        peaks.append(tracemalloc.get_traced_memory()[1] / codec.length_bytes)
        tracemalloc.stop()
    assert Contribution.objects.filter(partial__round=current).count() == 4
    assert max(peaks) < peaks[0] + 0.5
    assert max(peaks) < 4
