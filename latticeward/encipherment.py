"""Encipherment certificates: a device proves a plain ML-KEM key of its own, and gets an X.509 certificate for it.

Theory of operation. With the certificate standard tools (CMS, RFC 9629 and 9936) encrypt to the device. Three values
are hashed into each other, as at enrolment, so that no part can be exchanged on the way:

- **R**, the request, is everything that the device says: whom it thinks it talks to, which device of which epoch it is
  (with the digest of its key statement), a nonce, and the encapsulation key. R travels in a request that both
  authentication keys have signed, so it needs no MAC.
- **A**, the answer: ids, a nonce and an ML-KEM ciphertext to the very key, whose shared secret the server keeps.
- **T** = H(R, A). The device proves its key by a MAC over T under a key derived from the shared secret.

The secret is derived with a label that no other protocol has, so a device that answers such challenges tells nothing
about messages that were encrypted to it: from a MAC under a derived key nobody gets the secret. A needs no MAC of the
server: a forged one gets a MAC that this server does not take.

What does not live here: whether the key is known already, and the certificate (``devices/encipherment.py``,
``keys/encipherment.py``).
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.encipherment import DeciphermentKey, EnciphermentKey
from latticeward.crypto.wrapping import derive_key
from latticeward.enrolment import refuse_expired
from latticeward.enrolment_messages import NONCE_BYTES, Meeting
from latticeward.errors import InvalidSignatureError, MalformedMessageError, UnsupportedSuiteError, WrongContextError
from latticeward.instants import INSTANT_LIMIT, to_unix_milliseconds
from latticeward.statements import KeyStatement

REQUEST_LIMIT_BYTES: Final = 4 * 1024
ANSWER_LIMIT_BYTES: Final = 4 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EnciphermentRequest:
    """R, read.

    Attributes:
        device_id: UUID text.
        epoch: of the keys that sign the request.
        statement_digest: digest of the key statement of that epoch, 32 bytes.
        device_nonce: 32 random bytes.
        key: the encapsulation key that the certificate is to be for.
    """

    meeting: Meeting
    device_id: str
    epoch: int
    statement_digest: bytes
    device_nonce: bytes
    key: EnciphermentKey

    def to_bytes(self) -> bytes:
        """Deterministic CBOR, at most ``REQUEST_LIMIT_BYTES``."""
        return canonical.encode(
            {
                "type": "encipherment-request",
                "v": 1,
                "federation_id": self.meeting.federation_id,
                "authority": self.meeting.authority,
                "anchor": self.meeting.anchor,
                "device_id": self.device_id,
                "epoch": self.epoch,
                "statement_digest": self.statement_digest,
                "device_nonce": self.device_nonce,
                "algorithm": self.key.algorithm,
                "public_key": self.key.raw,
            }
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read R and its key; says nothing about who wrote it.

        Raises:
            MalformedMessageError, MessageTooLargeError: not R, or its key has a wrong length or is out of range.
            UnsupportedSuiteError, KeyUsageError: a key that this protocol does not take.
        """
        fields = Fields(canonical.decode(raw, limit_bytes=REQUEST_LIMIT_BYTES), "encipherment request")
        _require_type(fields, "encipherment-request")
        request = cls(
            meeting=Meeting(
                federation_id=fields.text("federation_id"),
                authority=fields.text("authority"),
                anchor=fields.bytes("anchor", 32),
            ),
            device_id=fields.text("device_id"),
            epoch=fields.integer("epoch", 1, 2**31),
            statement_digest=fields.bytes("statement_digest", 32),
            device_nonce=fields.bytes("device_nonce", NONCE_BYTES),
            key=EnciphermentKey.from_raw(fields.bytes("public_key"), fields.text("algorithm")),
        )
        fields.end()
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class EnciphermentAnswer:
    """A, read. ``expires_at`` in unix milliseconds; ``ciphertext`` is of ML-KEM, 1088 or 1568 bytes."""

    encipherment_id: str
    device_id: str
    server_nonce: bytes
    ciphertext: bytes
    expires_at: int

    def to_bytes(self) -> bytes:
        """Deterministic CBOR, at most ``ANSWER_LIMIT_BYTES``."""
        names = ("encipherment_id", "device_id", "server_nonce", "ciphertext", "expires_at")
        return canonical.encode(
            {"type": "encipherment-answer", "v": 1, **{name: getattr(self, name) for name in names}}
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read A; says nothing about who wrote it.

        Raises:
            MalformedMessageError, MessageTooLargeError
        """
        fields = Fields(canonical.decode(raw, limit_bytes=ANSWER_LIMIT_BYTES), "encipherment answer")
        _require_type(fields, "encipherment-answer")
        answer = cls(
            encipherment_id=fields.text("encipherment_id"),
            device_id=fields.text("device_id"),
            server_nonce=fields.bytes("server_nonce", NONCE_BYTES),
            ciphertext=fields.bytes("ciphertext"),
            expires_at=fields.integer("expires_at", 0, INSTANT_LIMIT),
        )
        fields.end()
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEnciphermentRequest:
    """R that fits the keys which signed it. Made only by ``verify_encipherment_request``."""

    raw: bytes
    request: EnciphermentRequest


def verify_encipherment_request(
    raw: bytes, *, meeting: Meeting, statement: KeyStatement, algorithm: str
) -> VerifiedEnciphermentRequest:
    """Believe R, or refuse it. The server's side.

    1. It met this federation, this server and this anchor.
    2. It is of the device and the keys that signed the request.
    3. Its key is of the parameter set that belongs to the device's suite.

    Args:
        raw: R as received, in a request signed by the keys of ``statement``.
        meeting: the server's own view.
        statement: of the keys that signed the request.
        algorithm: of ``encipherment_algorithm``.

    Raises:
        MalformedMessageError, MessageTooLargeError, KeyUsageError: not as it must be.
        WrongContextError: 1 or 2.
        UnsupportedSuiteError: 3.
    """
    request = EnciphermentRequest.from_bytes(raw)
    # 1
    if request.meeting != meeting:
        raise WrongContextError("the device asks another server, federation or trust anchor")

    # 2
    signed_by = (statement.device_id, statement.epoch, statement.digest)
    if (request.device_id, request.epoch, request.statement_digest) != signed_by:
        raise WrongContextError("the request is of another device or epoch than the keys that signed it")

    # 3
    if request.key.algorithm != algorithm:
        raise UnsupportedSuiteError(f"the device's suite asks for a key of {algorithm}")
    return VerifiedEnciphermentRequest(raw=raw, request=request)


def make_encipherment_answer(
    verified: VerifiedEnciphermentRequest, *, encipherment_id: str, server_nonce: bytes, expires_at: datetime
) -> tuple[bytes, bytes]:
    """Make A and the shared secret (32 bytes) of its challenge, which the server keeps, wrapped, until the proof.

    Args:
        server_nonce: 32 random bytes.
        expires_at: aware time.
    """
    secret, ciphertext = verified.request.key.encapsulate()
    answer = EnciphermentAnswer(
        encipherment_id=encipherment_id,
        device_id=verified.request.device_id,
        server_nonce=server_nonce,
        ciphertext=ciphertext,
        expires_at=to_unix_milliseconds(expires_at),
    )
    return answer.to_bytes(), secret


def prove_encipherment(*, request: bytes, answer: bytes, key: DeciphermentKey, now: datetime) -> bytes:
    """The device's proof over its own R and the server's A: a MAC of 32 bytes.

    Raises:
        MalformedMessageError, MessageTooLargeError: not an answer.
        WrongContextError: for another device.
        ClockSkewError: expired, or one of the clocks is wrong.
        DecryptionError: a challenge to a key of another parameter set.
    """
    read = EnciphermentAnswer.from_bytes(answer)
    if read.device_id != EnciphermentRequest.from_bytes(request).device_id:
        raise WrongContextError("the answer is for another device")
    refuse_expired(read.expires_at, now)
    return _mac(key.decapsulate(read.ciphertext), encipherment_digest(request, answer))


def verify_encipherment_proof(mac: bytes, *, request: bytes, answer: bytes, secret: bytes, now: datetime) -> None:
    """Check the proof over the R and A that the server stored.

    Args:
        mac: as received.
        secret: the shared secret of A's challenge.

    Raises:
        ClockSkewError: the challenge has expired.
        InvalidSignatureError: the MAC is wrong.
    """
    refuse_expired(EnciphermentAnswer.from_bytes(answer).expires_at, now)
    if not hmac.compare_digest(_mac(secret, encipherment_digest(request, answer)), mac):
        raise InvalidSignatureError("the device has not proven its encipherment key")


def encipherment_digest(request: bytes, answer: bytes) -> bytes:
    """T = H(R, A), 32 bytes."""
    return canonical.digest("latticeward/encipherment/v1", request, answer)


def _mac(secret: bytes, digest: bytes) -> bytes:
    key = derive_key(secret, label="latticeward/encipherment-challenge-key/v1")
    return hmac.new(key, canonical.encode(["latticeward/encipherment-mac/v1", digest]), hashlib.sha256).digest()


def _require_type(fields: Fields, name: str) -> None:
    if fields.text("type") != name or fields.integer("v", 1, 1) != 1:
        raise MalformedMessageError(f"not an {name} of version 1")
