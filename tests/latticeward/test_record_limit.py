"""The largest record that a plan allows is signed, read and proven: no round fails at its end for its own size."""

from uuid import UUID

import pytest

from devices.sites import SiteFacts, validate_facts
from latticeward import errors
from latticeward.agent.verification import verify_record
from latticeward.crypto.keys import CompositeSigningKey
from latticeward.crypto.signing import SIGNATURE_LIMIT_BYTES, Purpose, sign_message
from latticeward.crypto.suites import SignatureAlgorithm
from latticeward.errors import IncompatiblePlanError, LatticewardError, LedgerError, MessageTooLargeError
from latticeward.lifecycle import ParticipantState
from latticeward.messages import RECORD_LIMIT_BYTES, Assignment, RoundRecord, roster_digest
from latticeward.plan import PLAN_LIMIT_BYTES
from latticeward.plan_parts import LARGEST_COHORT
from latticeward.record_file import FILE_LIMIT_BYTES, RecordFile
from latticeward.trust import BUNDLE_LIMIT_BYTES, TrustStore
from latticeward.updates.metrics import METRICS
from tests.latticeward.agent.fakes import heart_plan
from tests.latticeward.peers import NOW, authority

KEY = CompositeSigningKey.generate(SignatureAlgorithm.MLDSA87_P384)
ROUND_ID = str(UUID(int=1))


def codes(error: type[LatticewardError] = errors.LatticewardError) -> set[str]:
    return {error.code}.union(*(codes(child) for child in error.__subclasses__()))


def largest_record(participants: int = LARGEST_COHORT) -> RoundRecord:
    """Every field as long as it can be; names are the longest that a hospital may have, of four bytes a character."""
    validate_facts(SiteFacts(name=_name(0)))
    row = {
        "outcome": max(ParticipantState, key=len),
        "code": max(codes(), key=len),
        "submission_digest": bytes(32),
        "metric": {"name": max(METRICS, key=len), "value": 0.1, "patients": 2**62},
    }
    return RoundRecord(
        round_id=ROUND_ID,
        training_id=ROUND_ID,
        federation_id=ROUND_ID,
        number=10_000,
        kind="evaluation",
        plan_digest=bytes(32),
        base_model_digest=bytes(32),
        weights_digest=bytes(32),
        model_id=ROUND_ID,
        suite="hybrid",
        protection="sealed",
        aggregator="mean",
        participants=tuple(
            {"device_id": str(UUID(int=number)), "site": _name(number), **row} for number in range(participants)
        ),
        accepted=participants,
        quorum=participants,
        partial_commitments=(bytes(32),) * 64,
        metric={"name": "accuracy", "value": 0.1, "hospitals": participants, "patients": 2**62},
        noise_multiplier=0.0,
        epsilon_spent=None,
        delta=None,
        ledger={"size": 2**53, "root": bytes(32)},
        opened_at=2**53,
        closed_at=2**53,
    )


def _name(number: int) -> str:
    return "\U00020000" * 195 + f"{number:05}"


def test_a_plan_with_more_devices_than_a_record_has_room_for_is_refused() -> None:
    plan = {"ring_bits": 64, "weight_cap": 400.0}
    heart_plan(**plan, cohort_bound=LARGEST_COHORT).validate()
    with pytest.raises(IncompatiblePlanError, match="between 2 and 4,096"):
        heart_plan(**plan, cohort_bound=LARGEST_COHORT + 1).validate()


def test_the_record_of_the_largest_cohort_is_signed_and_read() -> None:
    record = largest_record()
    signed = sign_message(record.to_bytes(), purpose=Purpose.ROUND_RECORD, key=KEY)
    assert 3 * 2**20 < len(signed) <= RECORD_LIMIT_BYTES
    assert RoundRecord.verify(signed, key=KEY.verify_key) == record


def test_a_device_of_the_largest_cohort_reads_the_record() -> None:
    record = largest_record()
    names = ("round_id", "training_id", "federation_id", "number", "kind", "plan_digest", "base_model_digest")
    assignment = Assignment(
        **{name: getattr(record, name) for name in names},
        base_model=None,
        recipient_algorithm="",
        recipient_key=b"",
        roster_digest=roster_digest([row["device_id"] for row in record.participants]),
        opened_at=0,
        recruiting_due_at=0,
        collecting_due_at=0,
    )
    trust = TrustStore.from_signed(authority().bundle(), anchor_fingerprint=authority().anchor.fingerprint, now=NOW)
    key = authority().purpose_keys[Purpose.ROUND_RECORD]
    # Read whole and held against the roster; that the counts of this made-up record keep no plan is found after that.
    with pytest.raises(LedgerError, match="the record's quorum is not the plan's"):
        verify_record(
            sign_message(record.to_bytes(), purpose=Purpose.ROUND_RECORD, key=key),
            trust=trust,
            plan=heart_plan(),
            assignment=assignment,
            device_id=record.participants[0]["device_id"],
            submission_digest=bytes(32),
            k_hospitals=2,
        )


def test_a_record_past_its_limit_is_refused_before_it_is_parsed() -> None:
    signed = sign_message(bytes(RECORD_LIMIT_BYTES), purpose=Purpose.ROUND_RECORD, key=KEY)
    with pytest.raises(MessageTooLargeError):
        RoundRecord.verify(signed, key=KEY.verify_key)


def test_no_other_message_has_the_room_of_a_record() -> None:
    signed = sign_message(bytes(2**20), purpose=Purpose.PLAN, key=KEY)
    with pytest.raises(MessageTooLargeError):
        Assignment.verify(signed, key=KEY.verify_key)


def test_a_file_has_room_for_the_largest_of_each_of_its_parts() -> None:
    parts = RecordFile(
        record=bytes(RECORD_LIMIT_BYTES),
        plan=bytes(PLAN_LIMIT_BYTES + SIGNATURE_LIMIT_BYTES),
        trust=bytes(BUNDLE_LIMIT_BYTES),
        entry=bytes(256 * 1024),
        index=2**53,
        checkpoint="-" * 2**20,
        path=(bytes(32),) * 64,
    )
    raw = parts.to_bytes()
    assert len(raw) <= FILE_LIMIT_BYTES
    assert RecordFile.from_bytes(raw) == parts
