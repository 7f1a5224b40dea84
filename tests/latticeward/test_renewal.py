"""Renewal end to end, every value bent on the way, and the frozen answer."""

import json
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from latticeward.crypto.keys import CompositeSigningKey
from latticeward.crypto.signing import Purpose, sign
from latticeward.enrolment import FinishProofs, VerifiedAnswer, transcript_digest
from latticeward.enrolment_messages import EnrolmentTranscript, Renewal
from latticeward.errors import (
    ClockSkewError,
    InvalidSignatureError,
    KeyUsageError,
    LatticewardError,
    MalformedMessageError,
    UnsupportedSuiteError,
    WrongContextError,
)
from latticeward.renewal import (
    ProvenRenewal,
    RenewalProofs,
    VerifiedRenewal,
    make_renewal_answer,
    read_renewal_answer,
    renewal_begins_at,
    renewal_opens_at,
    renewal_proofs,
    replaces,
    verify_renewal,
    verify_renewal_finish,
)
from latticeward.statements import KeyStatement
from tests.latticeward.peers import MINUTE, NOW, csr_of, device_keys, key_statement, meeting, transcript

DEVICE_ID = "d0d0d0d0-0000-4000-8000-000000000001"
CHALLENGE = b"c" * 32
OLD, NEW, OTHER = 0, 1, 2
VECTORS = Path(__file__).parents[1] / "vectors" / "renewal.json"


def parent(**changes: Any) -> KeyStatement:
    return key_statement(device_keys(OLD).public, device_id=DEVICE_ID, **{"epoch": 4, **changes})


def renewing(**changes: Any) -> EnrolmentTranscript:
    values: dict[str, Any] = {
        "operation": "renew",
        "claim_id": b"",
        "epoch": 5,
        "renews": replaces(parent()),
        **changes,
    }
    return transcript(device_keys(NEW), **values)


def verified(sent: EnrolmentTranscript | None = None) -> VerifiedRenewal:
    return verify_renewal((sent or renewing()).to_bytes(), meeting=meeting(), parent=parent())


def answered(**changes: Any) -> VerifiedAnswer:
    values: dict[str, Any] = {
        "renewal_id": "e0e0e0e0-0000-4000-8000-000000000001",
        "suite": "hybrid",
        "server_nonce": b"s" * 32,
        "challenge": CHALLENGE,
        "expires_at": NOW + 5 * MINUTE,
        **changes,
    }
    raw = make_renewal_answer(verified(), **values)
    return read_renewal_answer(raw, transcript=renewing().to_bytes(), now=NOW)


def finish(proofs: RenewalProofs, answer: VerifiedAnswer, **changes: Any) -> ProvenRenewal:
    values: dict[str, Any] = {
        "transcript": answer.transcript,
        "answer": answer.raw,
        "challenge": CHALLENGE,
        "parent": device_keys(OLD).signing.verify_key,
        "now": NOW,
        **changes,
    }
    return verify_renewal_finish(proofs, **values)


def proofs_of(answer: VerifiedAnswer) -> RenewalProofs:
    return renewal_proofs(answer, keys=device_keys(NEW), parent=device_keys(OLD).signing)


def test_a_device_renews_its_keys_by_its_old_ones() -> None:
    answer = answered()
    proven = finish(proofs_of(answer), answer)
    assert proven.enrolment.transcript.keys.matches(device_keys(NEW).public)
    assert proven.enrolment.transcript.epoch == parent().epoch + 1


@pytest.mark.parametrize("epoch", [2, 4, 6, 2**31 - 1])
def test_an_old_or_a_skipped_epoch_is_refused(epoch: int) -> None:
    with pytest.raises(WrongContextError, match="does not follow"):
        verified(renewing(epoch=epoch))


@pytest.mark.parametrize(
    "changes",
    [
        {"device_id": "d0d0d0d0-0000-4000-8000-000000000002"},
        {"certificate_digest": b"x" * 32},
        {"statement_digest": b"x" * 32},
    ],
)
def test_another_devices_certificate_or_statement_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WrongContextError, match="other keys"):
        verified(renewing(renews=replace(replaces(parent()), **changes)))


@pytest.mark.parametrize("name", ["federation_id", "authority", "anchor"])
def test_a_renewal_meant_for_another_server_is_refused(name: str) -> None:
    value: Any = b"x" * 32 if name == "anchor" else "elsewhere"
    with pytest.raises(WrongContextError):
        verified(renewing(meeting=replace(meeting(), **{name: value})))


def test_a_device_cannot_renew_into_another_site() -> None:
    with pytest.raises(WrongContextError, match="site"):
        verified(renewing(site="elsewhere"))


def test_a_request_for_a_key_that_is_not_the_proven_one_is_refused() -> None:
    with pytest.raises(KeyUsageError, match="another key"):
        verified(renewing(csr=csr_of(device_keys(OTHER))))


@pytest.mark.parametrize("role", ["authentication", "classical", "signing", "encapsulation"])
def test_a_key_that_stays_is_refused(role: str) -> None:
    keys = replace(device_keys(NEW).public, **{role: getattr(device_keys(OLD).public, role)})
    csr = csr_of(device_keys(OLD if role == "authentication" else NEW))
    with pytest.raises(KeyUsageError, match="four new keys"):
        verified(replace(renewing(), keys=keys, csr=csr))


def test_an_enrolment_is_no_renewal_and_a_renewal_names_what_it_replaces() -> None:
    with pytest.raises(WrongContextError, match="claim code"):
        verified(transcript(device_keys(NEW)))
    with pytest.raises(MalformedMessageError):
        verified(renewing(renews=None))
    with pytest.raises(MalformedMessageError):
        verified(renewing(claim_id=b"\x01\x02\x03\x04\x05"))


@pytest.mark.parametrize("name", ["challenge_mac", "authentication", "classical", "signing", "continuity"])
def test_each_of_the_five_proofs_is_needed(name: str) -> None:
    answer = answered()
    good = proofs_of(answer)
    other = renewal_proofs(answered(server_nonce=b"t" * 32), keys=device_keys(NEW), parent=device_keys(OLD).signing)
    if name == "continuity":
        bad = replace(good, continuity=other.continuity)
    else:
        bad = replace(good, finish=replace(good.finish, **{name: getattr(other.finish, name)}))
    with pytest.raises(InvalidSignatureError, match="not proven"):
        finish(bad, answer)


def test_continuity_is_not_shown_by_the_new_key_nor_by_a_signature_of_another_purpose() -> None:
    answer = answered()
    good = proofs_of(answer)
    digest = transcript_digest(answer.transcript, answer.raw)
    by_new = sign(digest, purpose=Purpose.RENEW, key=device_keys(NEW).signing)
    as_enrolment = sign(digest, purpose=Purpose.ENROL, key=device_keys(OLD).signing)
    for signature in (by_new, as_enrolment, good.finish.signing):
        with pytest.raises(InvalidSignatureError):
            finish(replace(good, continuity=signature), answer)


@pytest.mark.parametrize("valid_half", ["lattice", "curve"])
def test_half_a_continuity_signature_is_none(valid_half: str) -> None:
    answer = answered()
    good = proofs_of(answer)
    forged = sign(b"something else", purpose=Purpose.RENEW, key=device_keys(OLD).signing)
    halves = (good.continuity, forged) if valid_half == "lattice" else (forged, good.continuity)
    with pytest.raises(InvalidSignatureError):
        finish(replace(good, continuity=halves[0][:3309] + halves[1][3309:]), answer)


def test_a_late_answer_is_refused_by_both_sides() -> None:
    answer = answered()
    with pytest.raises(ClockSkewError):
        finish(proofs_of(answer), answer, now=NOW + 5 * MINUTE)
    with pytest.raises(ClockSkewError):
        read_renewal_answer(answer.raw, transcript=answer.transcript, now=NOW + 5 * MINUTE)


def test_the_device_refuses_a_suite_that_it_did_not_offer_and_an_answer_for_another() -> None:
    with pytest.raises(UnsupportedSuiteError):
        answered(suite="constrained")
    other = renewing(renews=Renewal(device_id="x", certificate_digest=bytes(32), statement_digest=bytes(32)))
    with pytest.raises(WrongContextError):
        read_renewal_answer(answered().raw, transcript=other.to_bytes(), now=NOW)


def test_the_times_of_a_renewal_follow_from_the_statement() -> None:
    begins, ends = NOW - MINUTE, NOW + timedelta(days=90)
    opens = renewal_opens_at(parent())
    assert abs((opens - begins) / (ends - begins) - 2 / 3) < 1e-9
    assert renewal_begins_at(parent(), spread=0.0) == opens
    assert opens < renewal_begins_at(parent(), spread=0.5) < renewal_begins_at(parent(), spread=1.0) < ends


def test_the_frozen_renewal_still_verifies() -> None:
    frozen = json.loads(VECTORS.read_text())
    raw, answer = b64decode(frozen["transcript"]), b64decode(frozen["answer"])
    read = EnrolmentTranscript.from_bytes(raw)
    old = KeyStatement.from_bytes(b64decode(frozen["parent"]))
    assert verify_renewal(raw, meeting=read.meeting, parent=old).transcript == read
    assert transcript_digest(raw, answer).hex() == frozen["t2"]
    proofs = RenewalProofs(
        finish=FinishProofs(**{name: b64decode(value) for name, value in frozen["proofs"].items()}),
        continuity=b64decode(frozen["continuity"]),
    )
    keys = CompositeSigningKey.from_seed(b64decode(frozen["parent_signing_seed"]))
    assert keys.verify_key.raw == old.keys.signing.raw
    verify_renewal_finish(
        proofs,
        transcript=raw,
        answer=answer,
        challenge=b64decode(frozen["challenge"]),
        parent=keys.verify_key,
        now=datetime.fromtimestamp(frozen["now"] / 1000, UTC),
    )
    with pytest.raises(LatticewardError):
        verify_renewal(raw, meeting=read.meeting, parent=replace(old, epoch=old.epoch + 1))
