import hashlib
import json
from base64 import b64decode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from latticeward import canonical
from latticeward.crypto.composite import PARAMETERS, CompositeSigningKey, CompositeVerifyKey, make_representative
from latticeward.crypto.keys import AuthenticationSigningKey, DecapsulationKey
from latticeward.crypto.signing import (
    MessageHash,
    Purpose,
    UnverifiedMessage,
    parse_signed_message,
    sign,
    sign_message,
    verify,
    verify_message,
)
from latticeward.crypto.suites import benchmark_context
from latticeward.errors import (
    InvalidSignatureError,
    KeyUsageError,
    LatticewardError,
    MalformedMessageError,
    MessageTooLargeError,
    UnsupportedSuiteError,
)
from tests.latticeward.crypto.samples import SHARED_VECTORS, flipped, signing_key
from tests.vectors.generate import HERE

SIGNATURES = ["mldsa65-ed25519", "mldsa65-p384", "mldsa87-p384"]
DRAFT_NAMES = {
    "id-MLDSA65-Ed25519-SHA512": "mldsa65-ed25519",
    "id-MLDSA65-ECDSA-P384-SHA512": "mldsa65-p384",
    "id-MLDSA87-ECDSA-P384-SHA512": "mldsa87-p384",
}
DRAFT = SHARED_VECTORS / "composite" / "composite-ml-dsa.json"


def draft_cases() -> list[dict[str, Any]]:
    if not DRAFT.is_file():
        return []
    document = json.loads(DRAFT.read_text())
    return [{**case, "m": document["m"]} for case in document["tests"]]


@pytest.mark.parametrize("name", DRAFT_NAMES)
def test_the_vectors_of_the_draft_verify_under_our_keys(name: str) -> None:
    found = [case for case in draft_cases() if case["tcId"] == name]
    if not found:
        pytest.skip(f"no shared vectors at {DRAFT}")
    for case in found:
        algorithm = DRAFT_NAMES[name]
        key = CompositeVerifyKey.from_raw(b64decode(case["pk"]), algorithm)
        prehash = hashlib.sha512(b64decode(case["m"])).digest()
        key.verify_prehashed(b64decode(case["s"]), prehash, context=b"")
        secret = CompositeSigningKey.from_seed(b64decode(case["sk"]), algorithm)
        assert secret.verify_key == key
        assert secret.export_seed() == b64decode(case["sk"])
        key.verify_prehashed(secret.sign_prehashed(prehash, context=b""), prehash, context=b"")
        with pytest.raises(InvalidSignatureError):
            key.verify_prehashed(b64decode(case["s"]), prehash, context=b"x")


def test_the_representative_is_put_together_as_the_draft_says() -> None:
    row = PARAMETERS["mldsa65-ed25519"]
    made = make_representative(row, bytes(64), b"ctx")
    assert made == b"CompositeAlgorithmSignatures2025COMPSIG-MLDSA65-Ed25519-SHA512\x03ctx" + bytes(64)
    for prehash, context in ((bytes(63), b""), (bytes(65), b""), (bytes(64), bytes(256))):
        with pytest.raises(KeyUsageError):
            make_representative(row, prehash, context)


@pytest.mark.parametrize("algorithm", SIGNATURES)
def test_a_signature_holds_for_its_payload_purpose_and_key_only(algorithm: str) -> None:
    key, other = signing_key(algorithm), signing_key(algorithm, 1)
    signature = sign(b"payload", purpose=Purpose.PLAN, key=key)
    assert len(signature) <= PARAMETERS[algorithm].signature_limit_bytes
    verify(signature, b"payload", purpose=Purpose.PLAN, key=key.verify_key)
    refused = [
        (signature, b"Payload", Purpose.PLAN, key),
        (signature, b"payload", Purpose.UPDATE, key),
        (signature, b"payload", Purpose.PLAN, other),
        (b"", b"payload", Purpose.PLAN, key),
        (signature[:-1], b"payload", Purpose.PLAN, key),
        (signature + b"\0", b"payload", Purpose.PLAN, key),
        (signature + signature, b"payload", Purpose.PLAN, key),
    ]
    for raw, payload, purpose, signer in refused:
        with pytest.raises(InvalidSignatureError):
            verify(raw, payload, purpose=purpose, key=signer.verify_key)


@pytest.mark.parametrize("algorithm", SIGNATURES)
def test_one_good_half_is_not_enough(algorithm: str) -> None:
    key, other = signing_key(algorithm), signing_key(algorithm, 1)
    cut = 3309 if "65" in algorithm else 4627
    ours = sign(b"payload", purpose=Purpose.PLAN, key=key)
    theirs = sign(b"payload", purpose=Purpose.PLAN, key=other)
    crossed = [ours[:cut] + theirs[cut:], theirs[:cut] + ours[cut:]]
    for mixed in (*crossed, ours[:cut], ours[cut:], bytes(cut) + ours[cut:]):
        with pytest.raises(InvalidSignatureError):
            verify(mixed, b"payload", purpose=Purpose.PLAN, key=key.verify_key)


def test_both_halves_are_checked_even_when_the_first_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from latticeward.crypto import classical_half

    seen: list[str] = []
    original = classical_half.verify

    def noted(*given: Any) -> None:
        original(*given)
        seen.append("the classical half was checked, and holds")

    monkeypatch.setattr(classical_half, "verify", noted)
    key = signing_key()
    signature = sign(b"payload", purpose=Purpose.PLAN, key=key)
    with pytest.raises(InvalidSignatureError):
        verify(flipped(signature, 0), b"payload", purpose=Purpose.PLAN, key=key.verify_key)
    assert len(seen) == 1


def test_the_halves_of_a_signature_do_not_verify_alone() -> None:
    key = signing_key()
    signature = sign(b"payload", purpose=Purpose.PLAN, key=key)
    alone = AuthenticationSigningKey.from_seed(key.export_seed()[:32]).verify_key
    for data in (b"payload", hashlib.sha512(b"payload").digest()):
        with pytest.raises(InvalidSignatureError):
            alone.verify(signature[:3309], data)
    with benchmark_context():
        single = CompositeSigningKey.from_seed(key.export_seed()[:32], "mldsa65").verify_key
        with pytest.raises(InvalidSignatureError):
            verify(signature[:3309], b"payload", purpose=Purpose.PLAN, key=single)


def test_a_second_spelling_of_an_ecdsa_signature_is_refused() -> None:
    key = signing_key("mldsa65-p384")
    signature = sign(b"payload", purpose=Purpose.PLAN, key=key)
    lattice, der = signature[:3309], signature[3309:]
    r, s = (value.to_bytes(50, "big") for value in decode_dss_signature(der))
    padded = b"\x30\x68\x02\x32" + r + b"\x02\x32" + s
    long_form = b"\x30\x81" + der[1:]
    for spelling in (padded, long_form, der + b"\0"):
        with pytest.raises(InvalidSignatureError):
            verify(lattice + spelling, b"payload", purpose=Purpose.PLAN, key=key.verify_key)


def test_every_flipped_byte_of_a_signature_is_refused() -> None:
    key = signing_key()
    signature = sign(b"payload", purpose=Purpose.PLAN, key=key)
    for place in (*range(0, 3309, 7), *range(3309, len(signature))):
        with pytest.raises(InvalidSignatureError):
            verify(flipped(signature, place), b"payload", purpose=Purpose.PLAN, key=key.verify_key)


def test_a_streamed_payload_is_signed_as_the_whole_one() -> None:
    key, payload = signing_key(), bytes(range(256)) * 100
    pieces = MessageHash()
    for place in range(0, len(payload), 999):
        pieces.update(memoryview(payload)[place : place + 999])
    verify(sign(pieces, purpose=Purpose.EXPORT, key=key), payload, purpose=Purpose.EXPORT, key=key.verify_key)
    verify(sign(payload, purpose=Purpose.EXPORT, key=key), pieces, purpose=Purpose.EXPORT, key=key.verify_key)


def test_every_purpose_has_a_context_of_its_own() -> None:
    assert Purpose.PLAN.context == b"latticeward/plan/v1"
    assert len({purpose.context for purpose in Purpose}) == len(Purpose) == 17


def test_purposes_are_not_strings_and_keys_are_of_the_right_kind() -> None:
    key = signing_key()
    signature = sign(b"x", purpose=Purpose.PLAN, key=key)
    with pytest.raises(KeyUsageError):
        sign(b"x", purpose="plan", key=key)  # type: ignore[arg-type]
    with pytest.raises(KeyUsageError):
        verify(signature, b"x", purpose="plan", key=key.verify_key)  # type: ignore[arg-type]
    wrong: Any
    for wrong in (AuthenticationSigningKey.generate(), DecapsulationKey.generate(), key.verify_key, None):
        with pytest.raises(KeyUsageError):
            sign(b"x", purpose=Purpose.PLAN, key=wrong)
    for wrong in (AuthenticationSigningKey.generate().verify_key, key, None):
        with pytest.raises(KeyUsageError):
            verify(signature, b"x", purpose=Purpose.PLAN, key=wrong)


def test_a_signature_of_another_parameter_set_is_refused() -> None:
    for made, checked in (("mldsa65-p384", "mldsa65-ed25519"), ("mldsa87-p384", "mldsa65-p384")):
        signature = sign(b"x", purpose=Purpose.PLAN, key=signing_key(made))
        with pytest.raises(InvalidSignatureError):
            verify(signature, b"x", purpose=Purpose.PLAN, key=signing_key(checked).verify_key)


def test_a_benchmark_key_verifies_inside_the_context_only() -> None:
    with benchmark_context():
        key = CompositeSigningKey.generate("ed25519")
        signature = sign(b"x", purpose=Purpose.BENCHMARK, key=key)
        verify(signature, b"x", purpose=Purpose.BENCHMARK, key=key.verify_key)
    with pytest.raises(UnsupportedSuiteError):
        verify(signature, b"x", purpose=Purpose.BENCHMARK, key=key.verify_key)
    with pytest.raises(UnsupportedSuiteError):
        sign(b"x", purpose=Purpose.BENCHMARK, key=key)


def test_a_signed_message_gives_its_payload_to_the_right_key_only() -> None:
    key = signing_key()
    raw = sign_message(b"payload", purpose=Purpose.PLAN, key=key)
    assert verify_message(raw, purpose=Purpose.PLAN, key=key.verify_key) == b"payload"
    message = parse_signed_message(raw)
    assert message.key_id == key.verify_key.key_id
    assert verify_message(message, purpose=Purpose.PLAN, key=key.verify_key) == b"payload"
    with pytest.raises(InvalidSignatureError, match="names key"):
        verify_message(raw, purpose=Purpose.PLAN, key=signing_key(number=1).verify_key)
    with pytest.raises(InvalidSignatureError):
        verify_message(raw, purpose=Purpose.TRUST, key=key.verify_key)
    renamed = UnverifiedMessage(payload=b"other", key_id=message.key_id, signature=message.signature)
    with pytest.raises(InvalidSignatureError):
        verify_message(renamed, purpose=Purpose.PLAN, key=key.verify_key)


def test_a_signed_message_has_one_form() -> None:
    good = {"key_id": bytes(32), "payload": b"", "signature": b"s"}
    parse_signed_message(canonical.encode(good))
    wrong: list[dict[str, Any]] = [
        {**good, "key_id": bytes(31)},
        {**good, "payload": ""},
        {**good, "signature": b""},
        {**good, "signature": bytes(8193)},
        {**good, "extra": 1},
        {"key_id": bytes(32), "payload": b""},
    ]
    for value in wrong:
        with pytest.raises(MalformedMessageError):
            parse_signed_message(canonical.encode(value))
    with pytest.raises(MessageTooLargeError):
        parse_signed_message(bytes(2_000_000))
    with pytest.raises(MessageTooLargeError):
        parse_signed_message(canonical.encode(good), limit_bytes=10)


@given(st.binary(max_size=120))
@settings(max_examples=200, deadline=None)
def test_noise_is_never_a_signed_message(raw: bytes) -> None:
    with pytest.raises((MalformedMessageError, MessageTooLargeError)):
        parse_signed_message(raw)


@given(st.integers(0, 3500), st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_in_a_signed_message_is_refused(place: int, bit: int) -> None:
    key = signing_key()
    raw = bytearray(_MESSAGE.setdefault("raw", sign_message(b"payload", purpose=Purpose.PLAN, key=key)))
    raw[place % len(raw)] ^= 1 << bit
    with pytest.raises(LatticewardError) as caught:
        verify_message(bytes(raw), purpose=Purpose.PLAN, key=key.verify_key)
    assert type(caught.value) in (InvalidSignatureError, MalformedMessageError)


_MESSAGE: dict[str, bytes] = {}


@pytest.mark.parametrize("case", json.loads((HERE / "signatures.json").read_text()), ids=lambda case: case["algorithm"])
def test_frozen_signatures_verify(case: dict[str, str]) -> None:
    key = CompositeSigningKey.from_seed(b64decode(case["seed"]), case["algorithm"]).verify_key
    payload = b64decode(case["payload"])
    verify(b64decode(case["signature"]), payload, purpose=Purpose(case["purpose"]), key=key)
    message = b64decode(case["message"])
    assert verify_message(message, purpose=Purpose(case["message_purpose"]), key=key) == payload
