"""The header of an envelope: what the body is, for whom it was made, and which round, plan and model it belongs to.

It is the one thing that everything else of an envelope is bound to: the body by its context, each recipient's stanza
by HPKE's info, the signature by its digest. It is public, and holds ids and digests only.
"""

import hashlib
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from typing import Final

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.body import sealed_body_bytes
from latticeward.crypto.suites import Suite, get_suite
from latticeward.errors import MalformedMessageError, UnsupportedVersionError

HEADER_LIMIT_BYTES: Final = 2_048
PLAINTEXT_LIMIT_BYTES: Final = 2**40
DIRECTIONS: Final = ("to-server", "to-device")
_TEXT_LIMIT_CHARS: Final = 100


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
        """
        values = {field.name: getattr(self, field.name) for field in dataclass_fields(self)}
        raw = canonical.encode({"type": "envelope", "v": 1, **values})
        # Reading back is the one list of bounds; what a receiver refuses is refused here first.
        self.from_bytes(raw)
        return raw

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
        state.update(part)
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
        suite=_short(fields, "suite"),
        message_type=_short(fields, "message_type"),
        direction=_short(fields, "direction"),
        federation_id=_short(fields, "federation_id"),
        round_id=_short(fields, "round_id"),
        plan_digest=fields.bytes("plan_digest", 32),
        base_model_digest=fields.bytes("base_model_digest", 32),
        sender_key_id=fields.bytes("sender_key_id", 32),
        plaintext_bytes=fields.integer("plaintext_bytes", 0, PLAINTEXT_LIMIT_BYTES),
        body_bytes=fields.integer("body_bytes", 0, 2 * PLAINTEXT_LIMIT_BYTES),
        created_at=fields.integer("created_at", 0, 2**53),
        message_id=fields.bytes("message_id", 16),
    )
    fields.end()
    get_suite(header.suite)
    if header.direction not in DIRECTIONS:
        raise MalformedMessageError("envelope header: an unknown direction")
    if header.body_bytes != sealed_body_bytes(header.plaintext_bytes):
        raise MalformedMessageError("envelope header: body_bytes does not follow from plaintext_bytes")
    return header


def _short(fields: Fields, name: str) -> str:
    value = fields.text(name, limit_chars=_TEXT_LIMIT_CHARS)
    if not value:
        raise MalformedMessageError(f"envelope header: {name} is empty")
    return value
