"""The header of an envelope: what the body is, for whom it was made, and which round, plan and model it belongs to.

It is the one thing that everything else of an envelope is bound to: the body by its context, each recipient's stanza
by HPKE's info, the signature by its digest. It is public, and holds ids and digests only.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.body import sealed_body_bytes
from latticeward.crypto.suites import Suite, get_suite
from latticeward.errors import MalformedMessageError, UnsupportedVersionError
from latticeward.hashing import feed

HEADER_LIMIT_BYTES: Final = 2_048
PLAINTEXT_LIMIT_BYTES: Final = 2**40
DIRECTIONS: Final = ("to-server", "to-device")
_TEXT_LIMIT_CHARS: Final = 100
_TIME_LIMIT: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeHeader:
    """An envelope's header.

    Attributes:
        suite: suite id.
        message_type: as ``update``, ``model`` or ``prediction``.
        direction: ``to-server`` or ``to-device``; an envelope cannot be sent back where it came from.
        federation_id: UUID text.
        round_id: UUID text.
        plan_digest: SHA-256 of the plan, 32 bytes.
        base_model_digest: weights digest of the model it starts from, 32 bytes.
        sender_key_id: id of the composite key that signs it, 32 bytes.
        plaintext_bytes: length of the body before sealing, at most 2^40.
        body_bytes: length of the sealed body; follows from the former and is filled in when sealing.
        created_at: the sender's clock, unix milliseconds.
        message_id: 16 random bytes.
    """

    suite: str
    message_type: str
    direction: str
    federation_id: str
    round_id: str
    plan_digest: bytes
    base_model_digest: bytes
    sender_key_id: bytes
    plaintext_bytes: int
    body_bytes: int = 0
    created_at: int
    message_id: bytes

    def to_bytes(self) -> bytes:
        """Deterministic CBOR, at most 2048 bytes.

        Raises:
            MalformedMessageError: a field is out of its bounds.
            UnsupportedSuiteError: its suite is unknown.
        """
        _require_bounds(self)
        return canonical.encode({"type": "envelope", "v": 1, **{name: getattr(self, name) for name in self.__slots__}})

    @staticmethod
    def from_bytes(raw: bytes) -> "EnvelopeHeader":
        """Read a header.

        Raises:
            MalformedMessageError, MessageTooLargeError, UnsupportedVersionError: not one.
            UnsupportedSuiteError: its suite is unknown.
        """
        return _read(bytes(raw))

    @property
    def suite_row(self) -> Suite:
        """The row of the header's suite."""
        return get_suite(self.suite)


def digest_by(suite: Suite, *parts: bytes | memoryview) -> bytes:
    """The suite's digest of header or body: 32 bytes with SHA-256, 64 with SHA-512."""
    state = hashlib.new(suite.body_digest)
    for part in parts:
        feed(state, part)
    return state.digest()


# The same header is read again for every stanza that is made for it; the value is frozen, so it can be shared.
@lru_cache(maxsize=16)
def _read(raw: bytes) -> EnvelopeHeader:
    fields = Fields(canonical.decode(raw, limit_bytes=HEADER_LIMIT_BYTES), "envelope header")
    if fields.text("type") != "envelope":
        raise MalformedMessageError("envelope header: another type of message")
    if fields.integer("v") != 1:
        raise UnsupportedVersionError("an envelope header of a version other than 1")
    header = EnvelopeHeader(
        suite=fields.text("suite"),
        message_type=fields.text("message_type"),
        direction=fields.text("direction"),
        federation_id=fields.text("federation_id"),
        round_id=fields.text("round_id"),
        plan_digest=fields.bytes("plan_digest"),
        base_model_digest=fields.bytes("base_model_digest"),
        sender_key_id=fields.bytes("sender_key_id"),
        plaintext_bytes=fields.integer("plaintext_bytes"),
        body_bytes=fields.integer("body_bytes"),
        created_at=fields.integer("created_at"),
        message_id=fields.bytes("message_id"),
    )
    fields.end()
    _require_bounds(header)
    return header


def _require_bounds(header: EnvelopeHeader) -> None:
    """The one list of bounds, for writing and for reading: what a receiver refuses is never sent.

    Raises:
        MalformedMessageError, UnsupportedSuiteError
    """
    get_suite(header.suite)
    texts = (header.message_type, header.federation_id, header.round_id)
    digests = (header.plan_digest, header.base_model_digest, header.sender_key_id)
    broken = {
        "direction": header.direction not in DIRECTIONS,
        "message_type, federation_id or round_id": not all(0 < len(text) <= _TEXT_LIMIT_CHARS for text in texts),
        "plan_digest, base_model_digest or sender_key_id": any(len(digest) != 32 for digest in digests),
        "message_id": len(header.message_id) != 16,
        "plaintext_bytes": not 0 <= header.plaintext_bytes <= PLAINTEXT_LIMIT_BYTES,
        "body_bytes": header.body_bytes != sealed_body_bytes(header.plaintext_bytes),
        "created_at": not 0 <= header.created_at <= _TIME_LIMIT,
    }
    if any(broken.values()):
        names = ", ".join(name for name, is_broken in broken.items() if is_broken)
        raise MalformedMessageError(f"envelope header: {names} out of bounds")
