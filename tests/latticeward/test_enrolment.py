"""Enrolment end to end, and each of its values bent on the way."""

from dataclasses import replace
from typing import Any

import pytest

from latticeward import canonical
from latticeward.device_keys import DevicePublicKeys
from latticeward.enrolment import (
    FinishProofs,
    ProvenEnrolment,
    VerifiedAnswer,
    finish_proofs,
    make_answer,
    transcript_mac,
    verify_answer,
    verify_finish,
    verify_transcript,
)
from latticeward.enrolment_messages import EnrolmentAnswer, EnrolmentTranscript, Renewal
from latticeward.errors import (
    ClaimRefusedError,
    ClockSkewError,
    DecryptionError,
    InvalidSignatureError,
    KeyUsageError,
    LatticewardError,
    MalformedMessageError,
    ProtocolError,
    UnsupportedSuiteError,
    WrongContextError,
)
from tests.latticeward.peers import MINUTE, NOW, SITE, claim, csr_of, device_keys, meeting, transcript

MAC_KEY = claim().mac_key
CHALLENGE = b"c" * 32
EXPIRES = NOW + 5 * MINUTE


def begin(sent: EnrolmentTranscript, **changes: Any) -> Any:
    raw = sent.to_bytes()
    values = {"mac_key": MAC_KEY, "meeting": meeting(), "site": SITE, "device_class": "edge", **changes}
    return verify_transcript(raw, transcript_mac(raw, mac_key=MAC_KEY), **values)


def answer_to(sent: EnrolmentTranscript, **changes: Any) -> tuple[bytes, bytes]:
    values = {
        "enrolment_id": "e0e0e0e0-0000-4000-8000-000000000001",
        "device_id": "d0d0d0d0-0000-4000-8000-000000000001",
        "suite": "hybrid",
        "server_nonce": b"s" * 32,
        "challenge": CHALLENGE,
        "expires_at": EXPIRES,
        "mac_key": MAC_KEY,
        **changes,
    }
    return make_answer(begin(sent), **values)


def believed(sent: EnrolmentTranscript) -> VerifiedAnswer:
    raw, mac = answer_to(sent)
    return verify_answer(raw, mac, transcript=sent.to_bytes(), mac_key=MAC_KEY, now=NOW)


def finish(proofs: FinishProofs, verified: VerifiedAnswer, **changes: Any) -> ProvenEnrolment:
    values = {
        "transcript": verified.transcript,
        "answer": verified.raw,
        "challenge": CHALLENGE,
        "now": NOW,
        **changes,
    }
    return verify_finish(proofs, **values)


def test_a_device_enrols() -> None:
    verified = believed(transcript())
    proven = finish(finish_proofs(verified, keys=device_keys()), verified)
    assert proven.transcript.keys.matches(device_keys().public)
    assert proven.answer == verified.answer
    assert len(proven.digest) == 32


def test_the_transcript_survives_its_bytes() -> None:
    raw = transcript().to_bytes()
    assert EnrolmentTranscript.from_bytes(raw).to_bytes() == raw


def test_the_secret_and_its_key_are_nowhere_in_what_travels() -> None:
    raw = transcript().to_bytes()
    sent = raw + transcript_mac(raw, mac_key=MAC_KEY) + b"".join(answer_to(transcript()))
    assert claim().secret not in sent and MAC_KEY not in sent


def flipped(value: Any) -> Any:
    """The same kind of value, another one."""
    match value:
        case None:
            return {"device_id": "x", "certificate_digest": bytes(32), "statement_digest": bytes(32)}
        case bool() | int():
            return value + 1
        case str():
            return "renew" if value == "enrol" else value[:-1] + chr(ord(value[-1]) ^ 1)
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 1])
        case list():
            return [flipped(value[0]), *value[1:]]
        case dict():
            name = sorted(value)[0]
            return {**value, name: flipped(value[name])}
    raise AssertionError(value)


FIELDS = sorted(canonical.decode(transcript().to_bytes(), limit_bytes=65_536))
MESSAGE = sorted(canonical.decode(answer_to(transcript())[0], limit_bytes=65_536))


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_the_transcript_is_covered_by_its_mac(name: str) -> None:
    sent = transcript().to_bytes()
    values = canonical.decode(sent, limit_bytes=65_536)
    bent = canonical.encode({**values, name: flipped(values[name])})
    with pytest.raises(ClaimRefusedError):
        verify_transcript(
            bent,
            transcript_mac(sent, mac_key=MAC_KEY),
            mac_key=MAC_KEY,
            meeting=meeting(),
            site=SITE,
            device_class="edge",
        )


@pytest.mark.parametrize("name", FIELDS)
def test_a_device_that_said_something_else_cannot_finish(name: str) -> None:
    verified = believed(transcript())
    values = canonical.decode(verified.transcript, limit_bytes=65_536)
    bent = canonical.encode({**values, name: flipped(values[name])})
    with pytest.raises(LatticewardError):
        finish(finish_proofs(verified, keys=device_keys()), verified, transcript=bent)


@pytest.mark.parametrize("name", MESSAGE)
def test_every_field_of_the_answer_is_covered_by_its_mac_and_by_the_proofs(name: str) -> None:
    verified = believed(transcript())
    mac = answer_to(transcript())[1]
    values = canonical.decode(verified.raw, limit_bytes=65_536)
    bent = canonical.encode({**values, name: flipped(values[name])})
    with pytest.raises(ClaimRefusedError):
        verify_answer(bent, mac, transcript=verified.transcript, mac_key=MAC_KEY, now=NOW)
    with pytest.raises(LatticewardError):
        finish(finish_proofs(verified, keys=device_keys()), verified, answer=bent)


@pytest.mark.parametrize("mac", [b"", bytes(32), bytes(31)])
def test_a_wrong_mac_is_refused_without_a_reason(mac: bytes) -> None:
    raw = transcript().to_bytes()
    with pytest.raises(ClaimRefusedError):
        verify_transcript(raw, mac, mac_key=MAC_KEY, meeting=meeting(), site=SITE, device_class="edge")


def test_a_mac_under_another_claims_key_is_refused() -> None:
    other = replace(claim(), secret=bytes(16)).mac_key
    raw = transcript().to_bytes()
    with pytest.raises(ClaimRefusedError):
        verify_transcript(
            raw,
            transcript_mac(raw, mac_key=other),
            mac_key=MAC_KEY,
            meeting=meeting(),
            site=SITE,
            device_class="edge",
        )


def test_malformed_bytes_with_a_wrong_mac_look_like_any_wrong_claim() -> None:
    with pytest.raises(ClaimRefusedError):
        verify_transcript(b"\x00", bytes(32), mac_key=MAC_KEY, meeting=meeting(), site=SITE, device_class="edge")


@pytest.mark.parametrize(
    "change", [{"authority": "evil.example"}, {"anchor": bytes(32)}, {"federation_id": "another"}], ids=str
)
def test_a_device_that_met_somebody_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WrongContextError):
        begin(transcript(meeting=replace(meeting(), **change)))


def test_site_and_class_may_be_unstated_and_may_not_be_another() -> None:
    begin(transcript(site="", device_class=""))
    with pytest.raises(WrongContextError):
        begin(transcript(site="hungary"))
    with pytest.raises(WrongContextError):
        begin(transcript(device_class="server"))


def test_a_certificate_request_for_another_key_is_refused() -> None:
    with pytest.raises(KeyUsageError):
        begin(transcript(csr=csr_of(device_keys(1))))


def test_a_claim_does_not_renew() -> None:
    renewal = Renewal(device_id="d", certificate_digest=bytes(32), statement_digest=bytes(32))
    renewing = transcript(operation="renew", claim_id=b"", epoch=2, renews=renewal)
    assert EnrolmentTranscript.from_bytes(renewing.to_bytes()).renews == renewal
    with pytest.raises(WrongContextError):
        begin(renewing)


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "revoke"},
        {"epoch": 2},
        {"claim_id": b"1234"},
        {"device_nonce": b"n" * 31},
        {"suites": ()},
        {"suites": ("hybrid",) * 17},
        {"csr": b""},
        {"csr": b"0" * 16_385},
        {"name": "x" * 65},
        {"renews": Renewal(device_id="d", certificate_digest=bytes(32), statement_digest=bytes(32))},
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_transcript_out_of_bounds_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        begin(transcript(**changes))


@pytest.mark.parametrize("role", ["authentication", "classical", "signing", "encapsulation"])
@pytest.mark.parametrize("bend", [lambda raw: raw[:-1], lambda raw: raw + b"\x00", lambda raw: b""])
def test_a_public_key_of_a_foreign_length_is_refused(role: str, bend: Any) -> None:
    wire = device_keys().public.to_wire()
    wire[role]["public_key"] = bend(wire[role]["public_key"])
    with pytest.raises(MalformedMessageError):
        DevicePublicKeys.from_wire(wire)


@pytest.mark.parametrize("role", ["authentication", "classical", "signing", "encapsulation"])
def test_a_public_key_under_a_foreign_algorithm_is_refused(role: str) -> None:
    wire = device_keys().public.to_wire()
    wire[role]["algorithm"] = "rsa-2048"
    with pytest.raises(UnsupportedSuiteError):
        DevicePublicKeys.from_wire(wire)


def test_key_material_shared_between_roles_is_refused() -> None:
    wire = device_keys().public.to_wire()
    composite = wire["signing"]["public_key"]
    for role, part in (("authentication", composite[:1952]), ("classical", composite[1952:])):
        shared = {**wire, role: {**wire[role], "public_key": part}}
        with pytest.raises(KeyUsageError):
            DevicePublicKeys.from_wire(shared)


def test_an_encapsulation_key_with_a_small_order_half_is_refused() -> None:
    wire = device_keys().public.to_wire()
    raw = wire["encapsulation"]["public_key"]
    for half in (bytes(32), b"\x01" + bytes(31)):
        wire["encapsulation"]["public_key"] = raw[:-32] + half
        with pytest.raises(LatticewardError):
            DevicePublicKeys.from_wire(wire)


def test_an_answer_to_another_transcript_is_refused() -> None:
    raw, mac = answer_to(transcript())
    other = transcript(device_nonce=b"m" * 32).to_bytes()
    with pytest.raises(ClaimRefusedError):
        verify_answer(raw, mac, transcript=other, mac_key=MAC_KEY, now=NOW)


def test_a_server_that_does_not_know_the_claim_is_refused() -> None:
    raw, mac = answer_to(transcript(), mac_key=b"k" * 32)
    with pytest.raises(ClaimRefusedError):
        verify_answer(raw, mac, transcript=transcript().to_bytes(), mac_key=MAC_KEY, now=NOW)


def test_the_devices_own_mac_does_not_pass_for_the_servers() -> None:
    raw, _ = answer_to(transcript())
    mac = transcript_mac(raw, mac_key=MAC_KEY)
    with pytest.raises(ClaimRefusedError):
        verify_answer(raw, mac, transcript=transcript().to_bytes(), mac_key=MAC_KEY, now=NOW)


@pytest.mark.parametrize("suite", ["classical", "pq-only", "high", "unheard-of"])
def test_a_suite_that_was_not_offered_or_is_below_the_floor_is_refused(suite: str) -> None:
    raw, mac = answer_to(transcript(), suite=suite)
    with pytest.raises(UnsupportedSuiteError):
        verify_answer(raw, mac, transcript=transcript().to_bytes(), mac_key=MAC_KEY, now=NOW)


def test_an_expired_answer_is_refused_at_both_ends() -> None:
    raw, mac = answer_to(transcript())
    verified = believed(transcript())
    with pytest.raises(ClockSkewError):
        verify_answer(raw, mac, transcript=transcript().to_bytes(), mac_key=MAC_KEY, now=EXPIRES)
    with pytest.raises(ClockSkewError):
        finish(finish_proofs(verified, keys=device_keys()), verified, now=EXPIRES)


def test_a_challenge_for_another_key_or_transcript_does_not_open() -> None:
    verified = believed(transcript())
    with pytest.raises(DecryptionError):
        finish_proofs(verified, keys=device_keys(1))
    with pytest.raises(DecryptionError):
        finish_proofs(replace(verified, transcript=verified.transcript + b"x"), keys=device_keys())


@pytest.mark.parametrize("name", ["challenge_mac", "authentication", "classical", "signing"])
def test_each_of_the_four_proofs_is_needed(name: str) -> None:
    verified = believed(transcript())
    good = finish_proofs(verified, keys=device_keys())
    raw = getattr(good, name)
    for bent in (b"", raw[:-1] + bytes([raw[-1] ^ 1])):
        with pytest.raises(InvalidSignatureError):
            finish(replace(good, **{name: bent}), verified)


def test_signatures_swapped_between_keys_are_refused() -> None:
    verified = believed(transcript())
    good = finish_proofs(verified, keys=device_keys())
    swapped = (
        replace(good, authentication=good.signing[:3309], classical=good.signing[3309:]),
        replace(good, authentication=good.classical, classical=good.authentication),
        replace(good, signing=good.authentication + good.classical),
    )
    for proofs in swapped:
        with pytest.raises(InvalidSignatureError):
            finish(proofs, verified)


def test_proofs_by_another_devices_keys_are_refused() -> None:
    verified = believed(transcript())
    mixed = replace(device_keys(1).public, encapsulation=device_keys().public.encapsulation)
    assert not mixed.matches(device_keys().public)
    stranger = replace(device_keys(1), decapsulation=device_keys().decapsulation)
    with pytest.raises(InvalidSignatureError):
        finish(finish_proofs(verified, keys=stranger), verified)


def test_proofs_for_an_earlier_answer_do_not_finish_a_later_one() -> None:
    first = believed(transcript())
    raw, mac = answer_to(transcript(), server_nonce=b"t" * 32)
    second = verify_answer(raw, mac, transcript=first.transcript, mac_key=MAC_KEY, now=NOW)
    with pytest.raises(InvalidSignatureError):
        finish(finish_proofs(first, keys=device_keys()), second)


def test_the_proofs_of_the_plain_keys_differ_from_everything_else_they_sign() -> None:
    verified = believed(transcript())
    good = finish_proofs(verified, keys=device_keys())
    for message in (b'"@method": GET', transcript().csr, verified.raw, b"\x20" * 64):
        with pytest.raises(InvalidSignatureError):
            device_keys().authentication.verify_key.verify(good.authentication, message)
    assert transcript().csr[:1] == b"\x30"


def test_an_answer_of_another_kind_is_refused() -> None:
    with pytest.raises(ProtocolError):
        EnrolmentAnswer.from_bytes(transcript().to_bytes())
    with pytest.raises(ProtocolError):
        EnrolmentTranscript.from_bytes(answer_to(transcript())[0])
