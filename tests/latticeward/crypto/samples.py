"""Keys and envelopes that the tests of this folder share; made once, since keys of the large sets take a while."""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from latticeward import canonical
from latticeward.crypto.envelope import (
    EnvelopeHeader,
    OpenedEnvelope,
    Recipient,
    open_envelope,
    parse_envelope,
    seal_envelope,
    verify_envelope,
)
from latticeward.crypto.keys import CompositeSigningKey, DecapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.crypto.suites import get_suite
from latticeward.errors import (
    DecryptionError,
    InvalidSignatureError,
    LatticewardError,
    MalformedMessageError,
    MessageTooLargeError,
    UnsupportedSuiteError,
    UnsupportedVersionError,
    WrongContextError,
)

ROUND = "6f2b8a4e-1f07-4f0e-9d5a-000000000002"
SHARED_VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"


@cache
def signing_key(algorithm: str = "mldsa65-ed25519", number: int = 0) -> CompositeSigningKey:
    return CompositeSigningKey.generate(algorithm)


@cache
def decapsulation_key(algorithm: str = "mlkem768-x25519", number: int = 0) -> DecapsulationKey:
    return DecapsulationKey.generate(algorithm)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sender and a round that envelopes go between; change one field to make another case."""

    suite: str = "hybrid"
    plaintext: bytes = b"forty-two patients, and not one name"
    sender: int = 0
    round_id: str = ROUND
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def signer(self) -> CompositeSigningKey:
        return signing_key(get_suite(self.suite).signature, self.sender)

    @property
    def recipient_key(self) -> DecapsulationKey:
        return decapsulation_key(get_suite(self.suite).kem)

    @property
    def header(self) -> EnvelopeHeader:
        header = EnvelopeHeader(
            suite=self.suite,
            message_type="update",
            direction="to-server",
            federation_id="6f2b8a4e-1f07-4f0e-9d5a-000000000001",
            round_id=self.round_id,
            plan_digest=b"p" * 32,
            base_model_digest=b"b" * 32,
            sender_key_id=self.signer.verify_key.key_id,
            plaintext_bytes=len(self.plaintext),
            created_at=1_795_000_000_000,
            message_id=bytes(range(16)),
        )
        return replace(header, **self.changes)

    @property
    def recipient(self) -> Recipient:
        return Recipient(key=self.recipient_key.encapsulation_key, role="round", subject_id=self.round_id, epoch=1)

    def seal(self, *recipients: Recipient, purpose: Purpose = Purpose.UPDATE) -> bytes:
        return seal_envelope(
            self.plaintext,
            header=self.header,
            recipients=recipients or (self.recipient,),
            signing_key=self.signer,
            purpose=purpose,
        )

    def open(self, raw: bytes, *, purpose: Purpose = Purpose.UPDATE, **who: Any) -> OpenedEnvelope:
        verified = verify_envelope(
            parse_envelope(raw, limit_bytes=1 << 24), purpose=purpose, verify_key=self.signer.verify_key
        )
        caller = {
            "role": "round",
            "subject_id": self.round_id,
            "epoch": 1,
            "decapsulation_key": self.recipient_key,
            **who,
        }
        return open_envelope(verified, **caller)


def flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 0x01]) + raw[place + 1 :]


# What an altered envelope may be refused with, and nothing else.
REFUSALS = {
    DecryptionError,
    InvalidSignatureError,
    MalformedMessageError,
    MessageTooLargeError,
    UnsupportedSuiteError,
    UnsupportedVersionError,
    WrongContextError,
}


def refuse(sample: Sample, raw: bytes, **who: Any) -> type[LatticewardError]:
    with pytest.raises(LatticewardError) as caught:
        sample.open(raw, **who)
    assert type(caught.value) in REFUSALS
    return type(caught.value)


def taken_apart(raw: bytes) -> tuple[bytes, list[bytes], bytes, bytes]:
    """Header, stanzas, body and signature of an envelope, for putting together another."""
    parsed = parse_envelope(raw, limit_bytes=1 << 24)
    return parsed.header_bytes, [stanza.raw for stanza in parsed.stanzas.values()], bytes(parsed.body), parsed.signature


def put_together(header: bytes, stanzas: list[bytes], body: bytes, signature: bytes) -> bytes:
    prefix = canonical.encode([header, stanzas])
    return b"LWENV\x00\x01\x00" + len(prefix).to_bytes(4, "big") + prefix + body + signature


def two_recipients(sample: Sample) -> tuple[Recipient, Recipient]:
    kem = get_suite(sample.suite).kem
    return sample.recipient, Recipient(
        key=decapsulation_key(kem, 1).encapsulation_key, role="device", subject_id="d-1", epoch=4
    )
