import hashlib
import json
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest

from latticeward import canonical
from latticeward.crypto import suites
from latticeward.crypto.body import CHUNK_BYTES, sealed_body_bytes
from latticeward.crypto.envelope import (
    EnvelopeHeader,
    PlannedBody,
    Recipient,
    VerifiedEnvelope,
    make_stanza,
    open_body,
    open_envelope,
    open_stanza,
    parse_envelope,
    seal_body,
    seal_envelope,
    verify_envelope,
)
from latticeward.crypto.keys import AuthenticationSigningKey, CompositeSigningKey, DecapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.crypto.suites import SUITES, SuiteStatus, benchmark_context, get_suite
from latticeward.errors import (
    DecryptionError,
    InvalidSignatureError,
    KeyUsageError,
    MalformedMessageError,
    MessageTooLargeError,
    UnsupportedSuiteError,
    UnsupportedVersionError,
    WrongContextError,
)
from latticeward.hashing import BLOCK_BYTES
from tests.latticeward.crypto.samples import (
    ROUND,
    Sample,
    decapsulation_key,
    put_together,
    refuse,
    signing_key,
    taken_apart,
    two_recipients,
)
from tests.vectors.generate import HERE

SERVICE = ["hybrid", "high", "constrained"]


@pytest.mark.parametrize("suite", SERVICE)
@pytest.mark.parametrize(
    "size",
    [
        *(0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 100_000),
        *(BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 1),
    ],
)
def test_what_is_sealed_comes_back(suite: str, size: int) -> None:
    sample = Sample(suite=suite, plaintext=bytes(range(251)) * (size // 251) + bytes(size % 251))
    raw = sample.seal()
    opened = sample.open(raw)
    assert opened.plaintext == sample.plaintext
    assert type(opened.plaintext) is bytes and type(raw) is bytes
    assert opened.header == replace(sample.header, body_bytes=sealed_body_bytes(size))


@pytest.mark.parametrize("suite", SERVICE)
def test_the_form_is_what_the_protocol_says(suite: str) -> None:
    sample = Sample(suite=suite)
    raw = sample.seal()
    row = get_suite(suite)
    assert raw[:8] == b"LWENV\x00\x01\x00"
    prefix_bytes = int.from_bytes(raw[8:12], "big")
    header_bytes, stanzas = canonical.decode(raw[12 : 12 + prefix_bytes], limit_bytes=10_000)
    body = raw[12 + prefix_bytes :][: sealed_body_bytes(len(sample.plaintext))]
    digests = [hashlib.new(row.body_digest, part).digest() for part in (header_bytes, body)]
    parsed = parse_envelope(memoryview(raw), limit_bytes=len(raw))
    assert [parsed.header_digest, parsed.body_digest] == digests
    assert parsed.signed_digest == canonical.digest("latticeward/envelope/v1", *digests)
    assert parsed.header_bytes == header_bytes and [stanza.raw for stanza in parsed.stanzas.values()] == stanzas
    assert parsed.body == body and parsed.signature == raw[12 + prefix_bytes + len(body) :]


def test_two_seals_of_one_payload_share_nothing_but_the_header() -> None:
    sample = Sample()
    first, second = taken_apart(sample.seal()), taken_apart(sample.seal())
    assert first[0] == second[0]
    assert all(a != b for a, b in zip(first[1:], second[1:], strict=True))


@pytest.mark.parametrize("suite", SERVICE)
def test_a_body_is_committed_to_its_key_and_header(suite: str) -> None:
    sample = Sample(suite=suite)
    sealed = seal_body(sample.plaintext, header=sample.header)
    other = replace(sample, round_id=ROUND[:-1] + "3").header
    other_bytes = replace(other, body_bytes=len(sealed.body)).to_bytes()
    for key, header in ((bytes(32), sealed.header_bytes), (sealed.content_key, other_bytes)):
        with pytest.raises(DecryptionError):
            open_body(header_bytes=header, body=sealed.body, content_key=key)
    with pytest.raises(KeyUsageError):
        open_body(header_bytes=sealed.header_bytes, body=sealed.body, content_key=bytes(16))
    assert sealed.content_key.hex() not in repr(sealed)


@pytest.mark.parametrize("suite", SERVICE)
def test_a_planned_body_seals_one_payload_of_the_length_that_it_was_planned_for(suite: str) -> None:
    sample = Sample(suite=suite)
    planned = PlannedBody(sample.header)
    with pytest.raises(MalformedMessageError):
        planned.seal(sample.plaintext + b"x")
    sealed = planned.seal(sample.plaintext)
    opened = open_body(header_bytes=planned.header_bytes, body=sealed.body, content_key=planned.content_key)
    assert opened == sample.plaintext
    with pytest.raises(KeyUsageError):
        planned.seal(sample.plaintext)
    assert planned.content_key.hex() not in repr(planned)


@pytest.mark.parametrize("suite", SERVICE)
def test_every_recipient_opens_as_itself_and_not_as_the_other(suite: str) -> None:
    sample = Sample(suite=suite)
    raw = sample.seal(*two_recipients(sample))
    second: dict[str, Any] = {
        "role": "device",
        "subject_id": "d-1",
        "epoch": 4,
        "decapsulation_key": decapsulation_key(get_suite(suite).kem, 1),
    }
    assert sample.open(raw).plaintext == sample.open(raw, **second).plaintext == sample.plaintext
    for change in ({"role": "round"}, {"subject_id": "d-2"}, {"epoch": 5}, {"decapsulation_key": sample.recipient_key}):
        assert refuse(sample, raw, **{**second, **change}) is DecryptionError
    stranger = DecapsulationKey.generate(get_suite(suite).kem)
    assert refuse(sample, raw, decapsulation_key=stranger) is DecryptionError


def test_a_purpose_is_bound() -> None:
    sample = Sample()
    raw = sample.seal(purpose=Purpose.PREDICTION)
    assert sample.open(raw, purpose=Purpose.PREDICTION).plaintext == sample.plaintext
    with pytest.raises(InvalidSignatureError):
        sample.open(raw)


def test_another_senders_key_is_refused_by_name() -> None:
    parsed = parse_envelope(Sample().seal(), limit_bytes=1 << 20)
    with pytest.raises(WrongContextError):
        verify_envelope(parsed, purpose=Purpose.UPDATE, verify_key=signing_key(number=1).verify_key)


def test_keys_of_another_kind_or_parameter_set_are_refused() -> None:
    sample = Sample()
    parsed = parse_envelope(sample.seal(), limit_bytes=1 << 20)
    wrong: Any
    for wrong in (
        signing_key("mldsa87-p384").verify_key,
        signing_key("mldsa65-p384").verify_key,
        AuthenticationSigningKey.generate().verify_key,
        sample.signer,
    ):
        with pytest.raises(KeyUsageError):
            verify_envelope(parsed, purpose=Purpose.UPDATE, verify_key=wrong)
    verified = verify_envelope(parsed, purpose=Purpose.UPDATE, verify_key=sample.signer.verify_key)
    for wrong in (decapsulation_key("mlkem1024-p384"), sample.signer, sample.recipient_key.encapsulation_key):
        with pytest.raises((KeyUsageError, DecryptionError)):
            open_envelope(verified, role="round", subject_id=ROUND, epoch=1, decapsulation_key=wrong)
    for wrong in (signing_key("mldsa87-p384"), signing_key(number=1), sample.signer.verify_key):
        with pytest.raises(KeyUsageError):
            seal_envelope(
                sample.plaintext,
                header=sample.header,
                recipients=[sample.recipient],
                signing_key=wrong,
                purpose=Purpose.UPDATE,
            )
    # The header may name such a key, which does not make it one of the suite's.
    foreign = signing_key("mldsa65-p384")
    with pytest.raises(KeyUsageError):
        seal_envelope(
            sample.plaintext,
            header=replace(sample.header, sender_key_id=foreign.verify_key.key_id),
            recipients=[sample.recipient],
            signing_key=foreign,
            purpose=Purpose.UPDATE,
        )
    with pytest.raises(KeyUsageError):
        sample.seal(replace(sample.recipient, key=decapsulation_key("mlkem1024-p384").encapsulation_key))
    header_bytes = parsed.header_bytes
    stanza = make_stanza(content_key=bytes(32), header_bytes=header_bytes, recipient=sample.recipient)
    for wrong in (decapsulation_key("mlkem1024-p384"), sample.signer, sample.recipient_key.encapsulation_key):
        with pytest.raises(KeyUsageError):
            open_stanza(
                stanza, header_bytes=header_bytes, role="round", subject_id=ROUND, epoch=1, decapsulation_key=wrong
            )


def test_only_what_was_verified_can_be_opened() -> None:
    sample = Sample()
    parsed = parse_envelope(sample.seal(), limit_bytes=1 << 20)
    with pytest.raises(TypeError):
        VerifiedEnvelope(parsed, Purpose.UPDATE, _proof=None)
    with pytest.raises(TypeError):
        open_envelope(parsed, role="round", subject_id=ROUND, epoch=1, decapsulation_key=sample.recipient_key)  # type: ignore[arg-type]


def with_status(monkeypatch: pytest.MonkeyPatch, suite: str, status: SuiteStatus) -> None:
    monkeypatch.setattr(suites, "SUITES", {**SUITES, suite: replace(SUITES[suite], status=status)})


def test_a_retired_suite_still_opens_and_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample()
    raw = sample.seal()
    sealed = seal_body(sample.plaintext, header=sample.header)
    with_status(monkeypatch, "hybrid", SuiteStatus.RETIRED)
    assert sample.open(raw).plaintext == sample.plaintext
    makers = (
        sample.seal,
        lambda: seal_body(sample.plaintext, header=sample.header),
        lambda: make_stanza(content_key=bytes(32), header_bytes=sealed.header_bytes, recipient=sample.recipient),
    )
    for make in makers:
        with pytest.raises(UnsupportedSuiteError):
            make()


def test_a_forbidden_suite_is_refused_before_anything_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Sample().seal()
    with_status(monkeypatch, "hybrid", SuiteStatus.FORBIDDEN)
    monkeypatch.setattr("latticeward.crypto.envelope.digest_by", lambda *_: pytest.fail("hashed"))
    with pytest.raises(UnsupportedSuiteError):
        parse_envelope(raw, limit_bytes=1 << 20)


@pytest.mark.parametrize("suite", ["classical", "pq-only"])
def test_benchmark_envelopes_live_inside_their_context(suite: str) -> None:
    with benchmark_context():
        sample = Sample(suite=suite, sender=hash(suite))
        raw = sample.seal()
        assert sample.open(raw).plaintext == sample.plaintext
    with pytest.raises(UnsupportedSuiteError):
        parse_envelope(raw, limit_bytes=1 << 20)


def test_limits_come_before_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample()
    raw = sample.seal()
    header, stanzas, body, signature = taken_apart(raw)
    monkeypatch.setattr("latticeward.crypto.envelope.digest_by", lambda *_: pytest.fail("hashed"))
    with pytest.raises(MessageTooLargeError):
        parse_envelope(raw, limit_bytes=len(raw) - 1)
    huge_prefix = raw[:8] + (9 << 20).to_bytes(4, "big") + raw[12:]
    with pytest.raises(MessageTooLargeError):
        parse_envelope(huge_prefix, limit_bytes=1 << 24)
    for bad in (
        put_together(header, stanzas, body, b""),
        put_together(header, stanzas, body, bytes(3374)),
        put_together(header, [b""] * 4097, body, signature),
        put_together(header, [bytes(2049)], body, signature),
        put_together(header, [canonical.encode({"key_id": bytes(32), "sealed": bytes(1167)})], body, signature),
        put_together(header, [7], body, signature),  # type: ignore[list-item]
        put_together(bytes(3000), stanzas, body, signature),
        put_together(header, stanzas, body[:-1], b""),
    ):
        with pytest.raises((MalformedMessageError, MessageTooLargeError)):
            parse_envelope(bad, limit_bytes=1 << 24)
    with pytest.raises(UnsupportedVersionError):
        parse_envelope(b"LWENV\x00\x02\x00" + raw[8:], limit_bytes=1 << 24)
    for other in (b"", b"PK\x03\x04" + raw, raw[1:]):
        with pytest.raises(MalformedMessageError):
            parse_envelope(other, limit_bytes=1 << 24)


@pytest.mark.parametrize(
    "changes",
    [
        {"plaintext_bytes": 5},
        {"direction": "sideways"},
        {"round_id": ""},
        {"federation_id": "x" * 101},
        {"plan_digest": bytes(31)},
        {"sender_key_id": bytes(33)},
        {"message_id": bytes(15)},
        {"created_at": -1},
        {"created_at": 2**53 + 1},
        {"message_type": ""},
    ],
    ids=str,
)
def test_a_header_out_of_bounds_is_never_sealed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        Sample(changes=changes).seal()


def test_no_recipient_and_one_recipient_twice_are_refused() -> None:
    sample = Sample()
    for recipients in ([], [sample.recipient, sample.recipient]):
        with pytest.raises(MalformedMessageError):
            seal_envelope(
                sample.plaintext,
                header=sample.header,
                recipients=recipients,
                signing_key=sample.signer,
                purpose=Purpose.UPDATE,
            )


def test_a_stanza_made_later_opens_the_same_body() -> None:
    sample = Sample(changes={"direction": "to-device", "message_type": "model"})
    sealed = seal_body(sample.plaintext, header=sample.header)
    newcomer = DecapsulationKey.generate()
    who = {"role": "device", "subject_id": "d-9", "epoch": 1}
    stanza = make_stanza(
        content_key=sealed.content_key,
        header_bytes=sealed.header_bytes,
        recipient=Recipient(key=newcomer.encapsulation_key, **who),  # type: ignore[arg-type]
    )
    key = open_stanza(stanza, header_bytes=sealed.header_bytes, decapsulation_key=newcomer, **who)  # type: ignore[arg-type]
    assert key == sealed.content_key
    assert open_body(header_bytes=sealed.header_bytes, body=sealed.body, content_key=key) == sample.plaintext
    other = EnvelopeHeader.from_bytes(sealed.header_bytes)
    changes: tuple[dict[str, Any], ...] = (
        {"direction": "to-server"},
        {"message_type": "update"},
        {"round_id": ROUND[:-1] + "9"},
        {"sender_key_id": bytes(32)},
        {"created_at": other.created_at + 1},
    )
    for changed in (replace(other, **change) for change in changes):
        with pytest.raises(DecryptionError):
            open_stanza(stanza, header_bytes=changed.to_bytes(), decapsulation_key=newcomer, **who)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", json.loads((HERE / "envelopes.json").read_text()), ids=lambda case: case["suite"])
def test_frozen_envelopes_open(case: dict[str, Any]) -> None:
    suite = get_suite(case["suite"])
    signer = CompositeSigningKey.from_seed(b64decode(case["signature_seed"]), suite.signature)
    raw = b64decode(case["envelope"])
    verified = verify_envelope(
        parse_envelope(raw, limit_bytes=len(raw)), purpose=Purpose(case["purpose"]), verify_key=signer.verify_key
    )
    opened = open_envelope(
        verified,
        role=case["role"],
        subject_id=case["subject_id"],
        epoch=case["epoch"],
        decapsulation_key=DecapsulationKey.from_seed(b64decode(case["kem_seed"]), suite.kem),
    )
    assert opened.plaintext == b64decode(case["plaintext"])
    assert verified.signed_digest.hex() == case["signed_digest"]
