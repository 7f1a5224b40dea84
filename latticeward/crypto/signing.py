"""Sign and verify application messages, each bound to one purpose.

A purpose is the context of the composite signature, so a signature made for one kind of message is not a signature
of any other, whatever the bytes say. The keys' mathematics lives in ``composite.py``; who may sign what is decided by
``trust.py`` and ``statements.py``.
"""

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.composite import CompositeSigningKey, CompositeVerifyKey
from latticeward.errors import InvalidSignatureError, KeyUsageError, MalformedMessageError

MESSAGE_LIMIT_BYTES: Final = 1_048_576
SIGNATURE_LIMIT_BYTES: Final = 8_192
KEY_ID_BYTES: Final = 32


class Purpose(StrEnum):
    """What a signature is for. A new format of a message is a new version in ``context``, not a second meaning."""

    PLAN = "plan"
    ENROL = "enrol"
    RENEW = "renew"
    UPDATE = "update"
    SUBMISSION_RECEIPT = "submission-receipt"
    ROUND_RECORD = "round-record"
    MODEL_MANIFEST = "model-manifest"
    KEY_STATEMENT = "key-statement"
    TRUST = "trust"
    REVOCATION = "revocation"
    CHECKPOINT = "checkpoint"
    EXPORT = "export"
    MASK_KEY = "mask-key"
    SHARE = "share"
    SURVIVORS = "survivors"
    PREDICTION = "prediction"
    BENCHMARK = "benchmark"

    @property
    def context(self) -> bytes:
        """The context bytes of the composite signature."""
        return f"latticeward/{self.value}/v1".encode()


class MessageHash:
    """The pre-hash of a message that is signed while it streams by: SHA-512, fed piece by piece."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = hashlib.sha512()

    def update(self, piece: bytes | memoryview) -> Self:
        """Take the next bytes of the message."""
        self._state.update(piece)
        return self

    def digest(self) -> bytes:
        """64 bytes over all that was taken so far."""
        return self._state.digest()


def sign(payload: bytes | MessageHash, *, purpose: Purpose, key: CompositeSigningKey) -> bytes:
    """Sign a message, or one whose hash was taken while it streamed, for one purpose.

    Args:
        payload: any length.
        purpose: the kind of message.
        key: of the signer.

    Returns:
        A composite signature, at most 4731 bytes; other bytes each time.

    Raises:
        KeyUsageError: the purpose is not one of the enumeration, or the key is not a composite signing key.
    """
    _require(purpose, key, CompositeSigningKey)
    return key.sign_prehashed(_prehash(payload), context=purpose.context)


def verify(signature: bytes, payload: bytes | MessageHash, *, purpose: Purpose, key: CompositeVerifyKey) -> None:
    """Check a signature of ``sign``; returning is the only sign of success.

    Raises:
        InvalidSignatureError: another key, purpose or message, or one half does not hold.
        KeyUsageError: the purpose is not one of the enumeration, or the key is not a composite verify key.
    """
    _require(purpose, key, CompositeVerifyKey)
    key.verify_prehashed(signature, _prehash(payload), context=purpose.context)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedMessage:
    """A signed message that was read and not yet believed.

    Attributes:
        payload: what is signed.
        key_id: the key that is said to have signed it, 32 bytes.
        signature: 1 to 8192 bytes.
    """

    payload: bytes
    key_id: bytes
    signature: bytes


def sign_message(payload: bytes, *, purpose: Purpose, key: CompositeSigningKey) -> bytes:
    """A signed message: canonical CBOR of ``key_id`` (32 bytes), ``payload`` and ``signature``."""
    signature = sign(payload, purpose=purpose, key=key)
    return canonical.encode({"key_id": key.verify_key.key_id, "payload": payload, "signature": signature})


def parse_signed_message(raw: bytes, *, limit_bytes: int = MESSAGE_LIMIT_BYTES) -> UnverifiedMessage:
    """Read a signed message, to learn whose key to look up; nothing in it may be believed yet.

    Raises:
        MessageTooLargeError: longer than ``limit_bytes``.
        MalformedMessageError: not a signed message.
    """
    fields = Fields(canonical.decode(raw, limit_bytes=limit_bytes), "signed message")
    message = UnverifiedMessage(
        payload=fields.bytes("payload"),
        key_id=fields.bytes("key_id", KEY_ID_BYTES),
        signature=fields.bytes("signature"),
    )
    fields.end()
    if not 0 < len(message.signature) <= SIGNATURE_LIMIT_BYTES:
        raise MalformedMessageError("signed message: a signature has 1 to 8192 bytes")
    return message


def verify_message(message: UnverifiedMessage | bytes, *, purpose: Purpose, key: CompositeVerifyKey) -> bytes:
    """Check a signed message under the key that it names, and only then give out its payload.

    Raises:
        InvalidSignatureError: it names another key, or the signature does not hold for this purpose.
        MalformedMessageError, MessageTooLargeError: bytes that are not a signed message of at most 1 MiB.
        KeyUsageError: as ``verify``.
    """
    read = message if isinstance(message, UnverifiedMessage) else parse_signed_message(message)
    _require(purpose, key, CompositeVerifyKey)
    if not hmac.compare_digest(read.key_id, key.key_id):
        raise InvalidSignatureError(f"the message names key {read.key_id.hex()[:16]}, not {key.key_id.hex()[:16]}")
    verify(read.signature, read.payload, purpose=purpose, key=key)
    return read.payload


def _prehash(payload: bytes | MessageHash) -> bytes:
    return payload.digest() if isinstance(payload, MessageHash) else hashlib.sha512(payload).digest()


def _require(purpose: Purpose, key: object, kind: type) -> None:
    # A string equal to a purpose's value would pass as one where types are not checked, and a key of another role may
    # have the same methods.
    if not isinstance(purpose, Purpose) or not isinstance(key, kind):
        raise KeyUsageError(f"signing and verifying need a purpose and a {kind.__name__}")
