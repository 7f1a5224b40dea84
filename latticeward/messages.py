"""The signed messages of a round, as values and as bytes; verifying is the only way to get a value out of bytes.

Every message is a deterministic CBOR map with ``type`` and ``v``, carried in a signed message of
``crypto/signing.py`` under the purpose of its kind. Times are unix milliseconds, ids are UUID text, digests and key
ids are 32 bytes. Field by field they stand in ``docs/protocol.md``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.keys import CompositeVerifyKey
from latticeward.crypto.signing import Purpose, parse_signed_message, verify_message
from latticeward.errors import MalformedMessageError
from latticeward.plan_parts import LARGEST_COHORT

MESSAGE_LIMIT_BYTES: Final = 1024 * 1024
# What a participant takes in a round record at most: a name of 200 characters of four bytes, an own metric, the digest.
PARTICIPANT_LIMIT_BYTES: Final = 1280
RECORD_LIMIT_BYTES: Final = MESSAGE_LIMIT_BYTES + LARGEST_COHORT * PARTICIPANT_LIMIT_BYTES
_TIME_LIMIT: Final = 2**53
_COUNT_LIMIT: Final = 2**53


class _Message:
    """What all messages share: a type name, a purpose, and bytes whose fields are the dataclass's fields."""

    __slots__ = ()
    TYPE: ClassVar[str]
    PURPOSE: ClassVar[Purpose]
    # Of the signed message, and so of what is in it.
    LIMIT_BYTES: ClassVar[int] = MESSAGE_LIMIT_BYTES

    def to_bytes(self) -> bytes:
        """Deterministic CBOR of the fields with ``type`` and ``v``."""
        values = {field.name: getattr(self, field.name) for field in dataclass_fields(self)}  # type: ignore[arg-type]
        return canonical.encode({"type": self.TYPE, "v": 1, **{k: _plain(v) for k, v in values.items()}})

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        raise NotImplementedError

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the form; says nothing about who wrote it.

        Raises:
            MalformedMessageError, MessageTooLargeError: not the canonical bytes of this kind of message.
        """
        fields = Fields(canonical.decode(raw, limit_bytes=cls.LIMIT_BYTES), cls.TYPE)
        if fields.text("type") != cls.TYPE or fields.integer("v", 1, 1) != 1:
            raise MalformedMessageError(f"not a {cls.TYPE} of version 1")
        message = cls._read(fields)
        fields.end()
        return message

    @classmethod
    def verify(cls, raw: bytes, *, key: CompositeVerifyKey) -> Self:
        """Read a signed message of this kind after its signature has verified under ``key`` for its purpose.

        Raises:
            InvalidSignatureError, MalformedMessageError, MessageTooLargeError
        """
        read = parse_signed_message(raw, limit_bytes=cls.LIMIT_BYTES)
        return cls.from_bytes(verify_message(read, purpose=cls.PURPOSE, key=key))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment(_Message):
    """One round of a training, as every participant sees it.

    ``base_model`` is None in the first round, whose base follows from the plan. ``recipient_key`` is the round's own
    encapsulation key (raw bytes), to which updates are sealed; its secret is destroyed after the recomputation window.
    """

    TYPE = "assignment"
    PURPOSE = Purpose.PLAN

    round_id: str
    training_id: str
    federation_id: str
    number: int
    kind: str
    plan_digest: bytes
    base_model: str | None
    base_model_digest: bytes
    recipient_algorithm: str
    recipient_key: bytes
    roster_digest: bytes
    opened_at: int
    recruiting_due_at: int
    collecting_due_at: int

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            round_id=fields.text("round_id"),
            training_id=fields.text("training_id"),
            federation_id=fields.text("federation_id"),
            number=fields.integer("number", 1, 2**31),
            kind=fields.text("kind"),
            plan_digest=fields.bytes("plan_digest", 32),
            base_model=fields.optional_text("base_model"),
            base_model_digest=fields.bytes("base_model_digest", 32),
            recipient_algorithm=fields.text("recipient_algorithm"),
            recipient_key=fields.bytes("recipient_key"),
            roster_digest=fields.bytes("roster_digest", 32),
            opened_at=fields.integer("opened_at", 0, _TIME_LIMIT),
            recruiting_due_at=fields.integer("recruiting_due_at", 0, _TIME_LIMIT),
            collecting_due_at=fields.integer("collecting_due_at", 0, _TIME_LIMIT),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionReceipt(_Message):
    """RECEIVED, and no more: the server promises that this submission will be in the ledger by ``ledger_due_at``.

    Only a round record plus an inclusion proof says that it was counted.
    """

    TYPE = "submission-receipt"
    PURPOSE = Purpose.SUBMISSION_RECEIPT

    submission_id: str
    device_id: str
    round_id: str
    plan_digest: bytes
    submission_digest: bytes
    size_bytes: int
    via: str
    received_at: int
    ledger_due_at: int

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            submission_id=fields.text("submission_id"),
            device_id=fields.text("device_id"),
            round_id=fields.text("round_id"),
            plan_digest=fields.bytes("plan_digest", 32),
            submission_digest=fields.bytes("submission_digest", 32),
            size_bytes=fields.integer("size_bytes", 0, _COUNT_LIMIT),
            via=fields.text("via"),
            received_at=fields.integer("received_at", 0, _TIME_LIMIT),
            ledger_due_at=fields.integer("ledger_due_at", 0, _TIME_LIMIT),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelManifest(_Message):
    """What a model version is, and the digests by which its sealed body is recognised.

    ``header`` is the envelope header of the sealed body (``crypto/envelope.py``); the manifest is its signature.
    """

    TYPE = "model-manifest"
    PURPOSE = Purpose.MODEL_MANIFEST

    model_id: str
    training_id: str
    round_id: str
    number: int
    plan_digest: bytes
    base_model_digest: bytes
    weights_digest: bytes
    header: bytes
    body_digest: bytes
    body_bytes: int
    created_at: int

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            model_id=fields.text("model_id"),
            training_id=fields.text("training_id"),
            round_id=fields.text("round_id"),
            number=fields.integer("number", 1, 2**31),
            plan_digest=fields.bytes("plan_digest", 32),
            base_model_digest=fields.bytes("base_model_digest", 32),
            weights_digest=fields.bytes("weights_digest", 32),
            header=fields.bytes("header"),
            body_digest=fields.bytes("body_digest"),
            body_bytes=fields.integer("body_bytes", 0, _COUNT_LIMIT),
            created_at=fields.integer("created_at", 0, _TIME_LIMIT),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord(_Message):
    """The signed account of a whole round: who took part, who was left out and why, and what came of it.

    ``participants`` are maps of device_id, site, outcome, code (or None), submission_digest (or None) and metric (the
    hospital's own, where the plan releases it; or None). ``ledger`` is the newest signed head when the record was
    prepared: size and root. ``epsilon_spent`` and ``delta`` count all rounds up to this one; None where no noise
    promises anything.
    ``partial_commitments`` are salted commitments of the partial sums, not digests, so that nobody can test a guess
    of a sum against them.
    """

    TYPE = "round-record"
    PURPOSE = Purpose.ROUND_RECORD
    LIMIT_BYTES = RECORD_LIMIT_BYTES

    round_id: str
    training_id: str
    federation_id: str
    number: int
    kind: str
    plan_digest: bytes
    base_model_digest: bytes
    weights_digest: bytes | None
    model_id: str | None
    suite: str
    protection: str
    aggregator: str
    participants: tuple[Mapping[str, Any], ...]
    accepted: int
    quorum: int
    partial_commitments: tuple[bytes, ...]
    metric: Mapping[str, Any] | None
    noise_multiplier: float
    epsilon_spent: float | None
    delta: float | None
    ledger: Mapping[str, Any] | None
    opened_at: int
    closed_at: int

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for this record, in the ledger entry of its publication."""
        return canonical.digest("latticeward/round-record/v1", self.to_bytes())

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        return cls(
            round_id=fields.text("round_id"),
            training_id=fields.text("training_id"),
            federation_id=fields.text("federation_id"),
            number=fields.integer("number", 1, 2**31),
            kind=fields.text("kind"),
            plan_digest=fields.bytes("plan_digest", 32),
            base_model_digest=fields.bytes("base_model_digest", 32),
            weights_digest=fields.optional_bytes("weights_digest", 32),
            model_id=fields.optional_text("model_id"),
            suite=fields.text("suite"),
            protection=fields.text("protection"),
            aggregator=fields.text("aggregator"),
            participants=tuple(_participant(item) for item in fields.list("participants")),
            accepted=fields.integer("accepted", 0, _COUNT_LIMIT),
            quorum=fields.integer("quorum", 0, _COUNT_LIMIT),
            partial_commitments=tuple(_commitment(item) for item in fields.list("partial_commitments")),
            metric=fields.optional_map("metric"),
            noise_multiplier=fields.number("noise_multiplier"),
            epsilon_spent=fields.optional_number("epsilon_spent"),
            delta=fields.optional_number("delta"),
            ledger=_head(fields.optional_map("ledger")),
            opened_at=fields.integer("opened_at", 0, _TIME_LIMIT),
            closed_at=fields.integer("closed_at", 0, _TIME_LIMIT),
        )


def _participant(item: Any) -> Mapping[str, Any]:
    fields = Fields(item, "participant")
    row = {
        "device_id": fields.text("device_id"),
        "site": fields.text("site"),
        "outcome": fields.text("outcome"),
        "code": fields.optional_text("code"),
        "submission_digest": fields.optional_bytes("submission_digest", 32),
        "metric": fields.optional_map("metric"),
    }
    fields.end()
    return MappingProxyType(row)


def _head(item: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if item is None:
        return None
    fields = Fields(item, "ledger head")
    head = {"size": fields.integer("size", 0, _COUNT_LIMIT), "root": fields.bytes("root", 32)}
    fields.end()
    return MappingProxyType(head)


def _commitment(item: Any) -> bytes:
    if not isinstance(item, bytes) or len(item) != 32:
        raise MalformedMessageError("a partial commitment has 32 bytes")
    return item


def roster_digest(device_ids: list[str]) -> bytes:
    """The digest of a cohort: binds who was invited, whatever order they are listed in."""
    return canonical.digest("latticeward/roster/v1", *(identity.encode() for identity in sorted(device_ids)))
