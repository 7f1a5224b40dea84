"""Bad input of a round, and what it gets. What is not here is where this table says.

| input | gets | test |
|---|---|---|
| update with NaN or infinities | the device sends none; the bytes of one are out of range | ``test_clipping``, here |
| wrong layout, wrong ring | ``layout_mismatch`` | ``test_dishonest_device``, here |
| norm over the bound | ``norm_exceeded`` | here |
| weight forged upwards | ``norm_exceeded`` | ``test_dishonest_device`` |
| zero examples | ``empty_update``: it would count as a hospital and hide nobody | here, ``test_pipeline`` |
| a device that joins twice | is one participant | here |
| all drop out | ``quorum_not_met`` at the due time | ``test_dropouts``, ``tests/simulation`` |
| quorum lost after an exclusion | the round fails | ``test_dropouts``, ``tests/simulation`` |
| two workers on the same submission | it counts once | here, ``test_workers_side_by_side`` |
| a message delivered ten times | it counts once | ``test_dishonest_device``, ``tests/simulation`` |
| chunks out of order, repeated, missing, foreign, overlapping, beyond, late | | ``test_uploads`` |
| a plan changed after signing | the round and the training fail, ``plan_changed`` | here |
| a worker killed between storing and committing | nothing lost or doubled | ``test_dropouts``, ``tests/simulation`` |
| a deadline that passes while the server is down | the round ends at the first beat | ``tests/simulation`` |
"""

import itertools
from collections.abc import Iterator
from uuid import uuid4

import numpy as np
import pytest

from controlplane.audit.models import AuditEntry
from latticeward.errors import WrongContextError
from latticeward.lifecycle import ParticipantState, RoundState, TrainingState
from latticeward.opening import codec_of
from latticeward.plan import RoundPlan
from rounds.models import Contribution, Participant, Round, Submission, Training
from rounds.services import claims, coordination, intake, trainings
from tests.rounds.cohort import Cohort
from tests.rounds.test_dishonest_device import sealed, taken_in
from tests.rounds.test_dropouts import make_due

pytestmark = pytest.mark.django_db


@pytest.fixture
def current(cohort: Cohort) -> Round:
    return cohort.collecting(cohort.train())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_bytes_of_numbers_that_are_not_finite_are_out_of_range(
    cohort: Cohort, current: Round, value: float
) -> None:
    length = codec_of(current.training.round_plan).length
    plaintext = np.full(length, value, dtype="<f4").tobytes()
    submission = taken_in(current, cohort.hospitals[0], sealed(current, cohort.hospitals[0], plaintext))
    assert submission.code == "norm_exceeded"
    assert not Contribution.objects.exists()


@pytest.mark.parametrize(("ring_bits", "dtype"), [(32, "<u8"), (64, "<u4")])
def test_a_vector_of_another_ring_is_refused(cohort: Cohort, ring_bits: int, dtype: str) -> None:
    current = cohort.collecting(cohort.train(ring_bits=ring_bits))
    plaintext = np.zeros(codec_of(current.training.round_plan).length, dtype=dtype).tobytes()
    submission = taken_in(current, cohort.hospitals[0], sealed(current, cohort.hospitals[0], plaintext))
    assert submission.code == "layout_mismatch"


@pytest.mark.parametrize(("share", "code"), [(1.01, "norm_exceeded"), (0.99, "")])
def test_an_update_whose_every_number_fits_and_whose_norm_does_not_is_refused(
    cohort: Cohort, current: Round, share: float, code: str
) -> None:
    codec = codec_of(current.training.round_plan)
    weight = round(codec.weight_unit / 2)
    vector = np.zeros(codec.length, dtype="<u4")
    vector[: codec.size] = int(share * weight / codec.size**0.5)
    vector[codec.size] = weight
    submission = taken_in(current, cohort.hospitals[0], sealed(current, cohort.hospitals[0], vector.tobytes()))
    assert (submission.outcome, submission.code) == ("refused" if code else "accepted", code)


def test_hospitals_without_examples_are_refused_so_that_none_counts_for_k(cohort: Cohort, current: Round) -> None:
    empty, others = cohort.hospitals[:2], cohort.hospitals[2:]
    nothing = np.zeros(codec_of(current.training.round_plan).length, dtype="<u4").tobytes()
    for hospital in empty:
        submission = taken_in(current, hospital, sealed(current, hospital, nothing))
        assert (submission.outcome, submission.code) == ("refused", "empty_update")
    for hospital in others:
        hospital.contribute(current)
    make_due(current)
    assert coordination.advance_round(current.id) == "fail"  # two hospitals' sum is not opened as that of four
    assert cohort.look(current).failure_code == "quorum_not_met"


def test_an_update_without_examples_that_moves_something_is_refused(cohort: Cohort, current: Round) -> None:
    codec = codec_of(current.training.round_plan)
    vector = np.zeros(codec.length, dtype="<u4")
    vector[0] = 1000
    submission = taken_in(current, cohort.hospitals[0], sealed(current, cohort.hospitals[0], vector.tobytes()))
    assert submission.code == "norm_exceeded"


def test_a_device_that_joins_twice_is_one_participant(cohort: Cohort) -> None:
    current = cohort.open_round(cohort.train())
    for _ in range(2):
        cohort.hospitals[0].join(current)
    joined = Participant.objects.get(round=current, device=cohort.hospitals[0].device)
    assert joined.state == ParticipantState.JOINED
    assert AuditEntry.objects.filter(event="participant.joined").count() == 1


def test_a_worker_leaves_what_another_one_has_taken_up(cohort: Cohort, current: Round) -> None:
    hospital = cohort.hospitals[0]
    submission = hospital.submit(current, hospital.prepare(current))
    assert claims.claim_waiting(submission.id, uuid4())[0] == [submission]  # the other worker, in its work
    assert intake.process_update(submission.id) is None
    assert not Contribution.objects.exists()


def test_of_two_workers_that_choose_the_same_at_the_same_moment_the_second_gets_none(
    cohort: Cohort, current: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital = cohort.hospitals[0]
    submission = hospital.submit(current, hospital.prepare(current))
    first, second = uuid4(), uuid4()

    def while_the_other_claims() -> Iterator[int]:
        monkeypatch.setattr(claims, "count", itertools.count)
        assert claims.claim_waiting(submission.id, first)[0] == [submission]
        return itertools.count()

    monkeypatch.setattr(claims, "count", while_the_other_claims)  # between what is chosen and what is taken
    assert claims.claim_waiting(submission.id, second)[0] == []
    assert Submission.objects.get().claim == first


def changed(plan: RoundPlan) -> bytes:
    values = {name: getattr(plan, name) for name in RoundPlan.__slots__}
    return RoundPlan(**{**values, "quorum": 2, "k_hospitals": 2, "sensitivity": "routine"}).to_bytes()


@pytest.mark.parametrize("state", ["recruiting", "collecting", "aggregating"])
def test_a_plan_changed_after_signing_ends_the_round_and_the_training(cohort: Cohort, state: str) -> None:
    training = cohort.train()
    current = cohort.open_round(training) if state == "recruiting" else cohort.collecting(training)
    if state == "aggregating":
        for hospital in cohort.hospitals:
            hospital.contribute(current)
        assert coordination.advance_round(current.id) == "begin_aggregating"
    Training.objects.filter(pk=training.pk).update(plan=changed(training.round_plan))
    assert coordination.advance_round(current.id) == "fail"
    current.refresh_from_db()
    assert (current.state, current.failure_code) == (RoundState.FAILED, "plan_changed")
    assert coordination.advance_round(current.id) is None
    assert trainings.advance_training(training.id) is None
    training.refresh_from_db()
    assert training.state == TrainingState.FAILED


def test_a_plan_changed_before_signing_is_not_signed(cohort: Cohort) -> None:
    training = cohort.train()
    Training.objects.filter(pk=training.pk).update(
        plan=changed(training.round_plan), state=TrainingState.SIGNING, signed_plan=None
    )
    with pytest.raises(WrongContextError):
        trainings.sign_training(training.id)
    training.refresh_from_db()
    assert training.signed_plan is None


def test_a_plan_changed_together_with_its_digest_fits_no_submission(cohort: Cohort, current: Round) -> None:
    hospital = cohort.hospitals[0]
    envelope = hospital.prepare(current)
    raw = changed(current.training.round_plan)
    Training.objects.filter(pk=current.training_id).update(plan=raw, plan_digest=RoundPlan.from_bytes(raw).digest)
    submission = taken_in(current, hospital, envelope)
    assert (submission.outcome, submission.code) == ("refused", "wrong_context")
    assert Submission.objects.count() == 1 and not Contribution.objects.exists()
