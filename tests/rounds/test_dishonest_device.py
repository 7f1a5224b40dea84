"""What a broken or dishonest device can send, and what it gets. A refusal is a recorded outcome with a stable code."""

import secrets
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings

from controlplane.audit.models import AuditEntry
from latticeward.crypto.envelope import EnvelopeHeader, Recipient, parse_envelope, seal_envelope
from latticeward.crypto.keys import EncapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.errors import MalformedMessageError, NotPermittedError, ReplayError, StateError, WrongContextError
from latticeward.lifecycle import ParticipantState, RoundState
from latticeward.opening import codec_of
from latticeward.updates.metrics import METRICS
from rounds.models import Contribution, Participant, Round, Submission
from rounds.services import coordination, intake, trainings
from rounds.services.plans import plan_for
from tests.rounds.cohort import Cohort, Hospital
from tests.rounds.test_dropouts import make_due

pytestmark = pytest.mark.django_db


def participant(current: Round, hospital: Hospital) -> Participant:
    return Participant.objects.get(round=current, device=hospital.device)


def sealed(current: Round, hospital: Hospital, plaintext: bytes, **changes: object) -> bytes:
    """A well-sealed, well-signed envelope around any plaintext and with any header."""
    values: dict[str, object] = {
        "suite": "hybrid",
        "message_type": "update",
        "direction": "to-server",
        "federation_id": str(current.training.federation_id),
        "round_id": str(current.id),
        "plan_digest": bytes(current.training.plan_digest),
        "base_model_digest": bytes(current.base_model_digest),
        "sender_key_id": hospital.machine.keys.signing.verify_key.key_id,
        "plaintext_bytes": len(plaintext),
        "body_bytes": 0,
        "created_at": 1,
        "message_id": secrets.token_bytes(16),
    }
    key = EncapsulationKey.from_raw(bytes(current.recipient_key), "mlkem768-x25519")
    return seal_envelope(
        plaintext,
        header=EnvelopeHeader(**{**values, **changes}),  # type: ignore[arg-type]
        recipients=[Recipient(key=key, role="round", subject_id=str(current.id), epoch=1)],
        signing_key=hospital.machine.keys.signing,
        purpose=Purpose.UPDATE,
    )


def taken_in(current: Round, hospital: Hospital, envelope: bytes) -> Submission:
    submission = hospital.submit(current, envelope)
    intake.process_update(submission.id)
    submission.refresh_from_db()
    return submission


def test_a_flipped_bit_in_the_body_is_refused_with_a_code_and_an_entry(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    envelope = bytearray(hospital.prepare(current))
    envelope[-4000] ^= 1  # in the body, before the signature
    submission = taken_in(current, hospital, bytes(envelope))
    assert (submission.outcome, submission.code) == ("refused", "invalid_signature")
    entry = AuditEntry.objects.get(event="update.refused")
    assert (entry.feed, entry.details["code"]) == (current.feed, "invalid_signature")
    assert not Contribution.objects.exists()


def test_a_submission_signed_by_another_enrolled_device_is_refused(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    thief, victim = cohort.hospitals[:2]
    submission = taken_in(current, thief, victim.prepare(current))
    assert submission.code == "wrong_context"
    assert participant(current, victim).state == ParticipantState.JOINED


def test_another_devices_name_on_ones_own_signature_is_refused(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    thief, victim = cohort.hospitals[:2]
    names = [hospital.machine.keys.signing.verify_key.key_id for hospital in (thief, victim)]
    forged = sealed(current, thief, b"x").replace(*names)
    # Seen at the thief's own door and at the victim's: neither counts.
    assert taken_in(current, thief, forged).code == "wrong_context"
    assert taken_in(current, victim, forged).code == "invalid_signature"


@pytest.mark.parametrize(
    "changes",
    [
        {"round_id": "11111111-1111-4111-8111-111111111111"},
        {"plan_digest": bytes(32)},
        {"base_model_digest": bytes(32)},
        {"federation_id": "11111111-1111-4111-8111-111111111111"},
        {"message_type": "model"},
        {"direction": "to-device"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_envelope_for_another_context_is_refused(cohort: Cohort, changes: dict[str, object]) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    plaintext = bytes(codec_of(current.training.round_plan).length_bytes)
    assert taken_in(current, hospital, sealed(current, hospital, plaintext, **changes)).code == "wrong_context"


def test_a_vector_of_the_wrong_length_is_refused(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    plaintext = bytes(codec_of(current.training.round_plan).length_bytes - 4)
    assert taken_in(current, hospital, sealed(current, hospital, plaintext)).code == "layout_mismatch"


@pytest.mark.parametrize("value", [2**31 - 1, 2**31, 2**30])
def test_a_value_out_of_the_rings_range_is_refused(cohort: Cohort, value: int) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    vector = np.zeros(codec_of(current.training.round_plan).length, dtype="<u4")
    vector[3] = value
    assert taken_in(current, hospital, sealed(current, hospital, vector.tobytes())).code == "norm_exceeded"


def test_a_weight_forged_upwards_is_refused(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    codec = codec_of(current.training.round_plan)
    vector = np.zeros(codec.length, dtype="<u4")
    vector[codec.size] = round(codec.weight_unit) + 1
    assert taken_in(current, hospital, sealed(current, hospital, vector.tobytes())).code == "norm_exceeded"


def test_the_bytes_of_nan_are_just_a_number_out_of_range(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    length = codec_of(current.training.round_plan).length
    plaintext = np.full(length, np.nan, dtype="<f4").tobytes()
    assert taken_in(current, hospital, sealed(current, hospital, plaintext)).code == "norm_exceeded"


def test_a_device_may_try_again_and_is_out_after_its_third_refusal(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    states = []
    for _ in range(3):
        taken_in(current, hospital, sealed(current, hospital, b"short"))
        states.append(participant(current, hospital).state)
    assert states == ["joined", "joined", "rejected"]
    with pytest.raises(StateError):
        hospital.submit(current, hospital.prepare(current))
    events = list(AuditEntry.objects.filter(feed=current.feed).values_list("event", flat=True))
    assert (events.count("update.refused"), events.count("update.rejected")) == (2, 1)


def test_after_a_refusal_an_honest_try_counts(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    taken_in(current, hospital, sealed(current, hospital, b"short"))
    assert hospital.contribute(current).outcome == "accepted"


def test_the_same_bytes_again_get_the_same_receipt_and_count_once(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    envelope = hospital.prepare(current)
    first, second = hospital.submit(current, envelope), hospital.submit(current, envelope)
    assert first.pk == second.pk
    assert bytes(first.receipt) == bytes(second.receipt)
    for _ in range(10):
        intake.process_update(first.id)
    assert Contribution.objects.count() == 1
    third = hospital.submit(current, envelope)
    assert bytes(third.receipt) == bytes(first.receipt)


def test_other_bytes_for_the_same_round_are_refused(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    hospital.contribute(current)
    with pytest.raises(ReplayError):
        hospital.submit(current, hospital.prepare(current))


def test_the_second_of_two_submissions_that_passed_the_door_together_is_refused(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    hospital.submit(current, hospital.prepare(current))
    late = hospital.prepare(current)
    with pytest.raises(ReplayError):
        # The door's early question was answered before the other one was recorded.
        hospital.hand_in(current, late, _digest(late))
    assert Submission.objects.count() == 1


def test_a_submission_for_a_closed_round_is_refused(cohort: Cohort) -> None:
    training = cohort.train()
    published = cohort.whole_round(training)
    outsider = cohort.hospitals[0]
    with pytest.raises(ReplayError):
        outsider.submit(published, sealed(published, outsider, b"x"))


def test_a_submission_before_the_round_collects_is_refused(cohort: Cohort) -> None:
    current = cohort.open_round(cohort.train())
    hospital = cohort.hospitals[0]
    hospital.join(current)
    with pytest.raises(StateError):
        hospital.submit(current, hospital.prepare(current))


def test_a_device_that_has_not_joined_may_not_submit(cohort: Cohort) -> None:
    current = cohort.open_round(cohort.train(stage_seconds={"recruiting": 1}))
    for hospital in cohort.hospitals[:3]:
        hospital.join(current)
    Round.objects.filter(pk=current.pk).update(state_due_at=current.opened_at)
    assert coordination.advance_round(current.id) == "begin_collecting"
    absent = cohort.hospitals[3]
    with pytest.raises(StateError):
        absent.submit(current, absent.prepare(current))


def test_a_stranger_to_the_round_learns_nothing(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    Participant.objects.filter(round=current, device=hospital.device).delete()
    with pytest.raises(NotPermittedError):
        hospital.join(current)
    with pytest.raises(NotPermittedError):
        intake.require_submitter(round_id=current.id, device=hospital.device, digest="00" * 32)


def test_an_idempotency_key_that_is_not_the_envelopes_digest_is_refused(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    envelope = hospital.prepare(current)
    with pytest.raises(WrongContextError):
        hospital.hand_in(current, envelope, "00" * 32)


def test_bytes_that_are_no_envelope_leave_nothing_behind(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    hospital = cohort.hospitals[0]
    with pytest.raises(MalformedMessageError):
        hospital.hand_in(current, b"nonsense", "00" * 32)
    assert not Submission.objects.exists()
    assert participant(current, hospital).state == ParticipantState.JOINED
    assert not [path for path in Path(settings.BLOB_DIR).rglob("*") if path.is_file()]


def _digest(envelope: bytes) -> str:
    return parse_envelope(envelope, limit_bytes=len(envelope)).signed_digest.hex()


def measured_by(cohort: Cohort, metric: str, ring_bits: int) -> Round:
    """A round of the heart job that collects and is measured otherwise."""
    plan = replace(
        plan_for({"job": "heart", "plan": {"ring_bits": ring_bits}}, cohort.federation),
        metric=metric,
        metric_size=METRICS[metric].size,
    )
    training = trainings.open_training(federation=cohort.federation, plan=plan, actor="user:1")
    trainings.sign_training(training.id)
    return cohort.collecting(training)


@pytest.mark.parametrize(
    ("metric", "ring_bits", "counts", "code"),
    [
        ("accuracy", 32, [5, 3], "layout_mismatch"),
        ("accuracy", 64, [0, 2**33], "norm_exceeded"),
        ("auc", 64, [2**50] * 512, "norm_exceeded"),
    ],
    ids=["more right answers than answers", "more examples than anybody has", "more patients than anybody has"],
)
def test_counts_that_cannot_be_are_refused_and_spoil_nobody_elses_round(
    cohort: Cohort, metric: str, ring_bits: int, counts: list[int], code: str
) -> None:
    current = measured_by(cohort, metric, ring_bits)
    codec = codec_of(current.training.round_plan)
    honest = np.zeros(codec.length, dtype=codec.dtype)
    honest[codec.size] = min(round(codec.weight_unit), codec.bound)
    honest[codec.size + 1 :] = 20
    lie = honest.copy()
    lie[codec.size + 1 :] = counts
    liar, *others = cohort.hospitals
    first = liar.submit(current, sealed(current, liar, lie.tobytes()))
    others_sent = [hospital.submit(current, sealed(current, hospital, honest.tobytes())) for hospital in others]
    intake.process_update(first.id)  # takes up all that wait
    first.refresh_from_db()
    assert (first.outcome, first.code) == ("refused", code)
    make_due(current)
    published = cohort.publish(current)
    assert published.state == RoundState.PUBLISHED and Contribution.objects.count() == len(others_sent)
