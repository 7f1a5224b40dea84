"""What the server says about this device's work, read strictly from JSON.

None of it is signed, so none of it is believed further than to decide what to ask next: every number, digest and key
that the agent acts on comes from a signed message.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from latticeward.errors import MalformedMessageError

_URL_ALPHABET: Final = str.maketrans("+/", "-_")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRound:
    """One of this device's rounds: the round's state and this participant's."""

    round_id: str
    training_id: str
    number: int
    kind: str
    state: str
    participant: str
    base_model: str | None
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkModel:
    """A published model version that this device may fetch."""

    model_id: str
    training_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRenewal:
    """The server asks for new keys, made for this suite; ``reason`` is for the log."""

    suite: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An answer of ``GET /api/v1/work``; ``token`` names this very content."""

    token: str
    server_time: datetime
    rounds: tuple[WorkRound, ...]
    models: tuple[WorkModel, ...]
    renewal: WorkRenewal | None = None

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the answer.

        Raises:
            MalformedMessageError
        """
        body = Answer(value)
        return cls(
            token=body.text("token"),
            server_time=body.instant("server_time"),
            rounds=tuple(_round(Answer(item)) for item in body.items("rounds")),
            models=tuple(_model(Answer(item)) for item in body.items("models")),
            renewal=_renewal(body.optional("renewal")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionOutcome:
    """Where a submission stands: received, accepted, rejected, dropped or excluded; ``code`` says why, if refused."""

    state: str
    code: str | None

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the answer.

        Raises:
            MalformedMessageError
        """
        body = Answer(value)
        return cls(state=body.text("state"), code=body.optional_text("code"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerProof:
    """An audit entry with its inclusion proof.

    Attributes:
        entry: canonical bytes of the entry.
        index: its position, counted from 0.
        checkpoint: the signed tree head, text.
        path: sibling hashes, 32 bytes each, from the leaf upward.
        consistency: hashes that lead from the tree of the size that was asked about to the checkpoint's.
    """

    entry: bytes
    index: int
    checkpoint: str
    path: tuple[bytes, ...]
    consistency: tuple[bytes, ...] = ()

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the answer.

        Raises:
            MalformedMessageError
        """
        body = Answer(value)
        try:
            path = tuple(bytes.fromhex(item) for item in body.items("proof"))
            consistency = tuple(bytes.fromhex(item) for item in body.items("consistency"))
        except (TypeError, ValueError) as exc:
            raise MalformedMessageError("a proof is a list of hex digests") from exc
        return cls(
            entry=decode_base64(body.text("entry")),
            index=body.integer("index"),
            checkpoint=body.text("checkpoint"),
            path=path,
            consistency=consistency,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """What ``collect`` hands out once: chain (DER, leaf first) and signed key statement."""

    chain: tuple[bytes, ...]
    statement: bytes


class Answer:
    """A JSON object from the server; fields that this version does not know are ignored, missing ones are refused."""

    def __init__(self, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise MalformedMessageError("the server's answer is not a JSON object")
        self._value = value

    def text(self, name: str) -> str:
        """A string of at most 64 KiB."""
        value = self._value.get(name)
        if not isinstance(value, str) or len(value) > 65_536:
            raise MalformedMessageError(f"the server's answer has no text {name!r}")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or None if it is missing or null."""
        return None if self._value.get(name) is None else self.text(name)

    def optional(self, name: str) -> "Answer | None":
        """An object, or None if it is missing or null.

        Raises:
            MalformedMessageError: it is something else.
        """
        return None if self._value.get(name) is None else Answer(self._value[name])

    def integer(self, name: str) -> int:
        """An integer from 0."""
        value = self._value.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise MalformedMessageError(f"the server's answer has no number {name!r}")
        return value

    def items(self, name: str) -> Sequence[Any]:
        """A list of at most 10,000 items."""
        value = self._value.get(name)
        if not isinstance(value, list) or len(value) > 10_000:
            raise MalformedMessageError(f"the server's answer has no list {name!r}")
        return value

    def instant(self, name: str) -> datetime:
        """An ISO 8601 time with its zone."""
        try:
            moment = datetime.fromisoformat(self.text(name))
        except ValueError as exc:
            raise MalformedMessageError(f"the server's answer has no time {name!r}") from exc
        if moment.tzinfo is None:
            raise MalformedMessageError(f"the time {name!r} of the server's answer has no zone")
        return moment

    def binary(self, name: str) -> bytes:
        """Bytes in base64url."""
        return decode_base64(self.text(name))


def encode_base64url(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 or base64url, padded or not.

    Raises:
        MalformedMessageError: neither.
    """
    bare = text.rstrip("=").translate(_URL_ALPHABET)
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedMessageError("a field of the server's answer is not base64") from exc


def _round(item: Answer) -> WorkRound:
    return WorkRound(
        round_id=item.text("round"),
        training_id=item.text("training"),
        number=item.integer("number"),
        kind=item.text("kind"),
        state=item.text("state"),
        participant=item.text("participant"),
        base_model=item.optional_text("base_model"),
        code=item.optional_text("code"),
    )


def _model(item: Answer) -> WorkModel:
    return WorkModel(model_id=item.text("model"), training_id=item.text("training"), number=item.integer("number"))


def _renewal(item: Answer | None) -> WorkRenewal | None:
    return None if item is None else WorkRenewal(suite=item.text("suite"), reason=item.text("reason"))
