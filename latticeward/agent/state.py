"""What the agent remembers between two lives: promises made, and how far it has come. Small JSON, replaced atomically.

Theory of operation. A round goes through the stages below, and each stage is on the disk before the act that it allows:
the bytes of a submission are written before the first of them is sent, so a restart repeats the same bytes. Four
memories only ever grow: the highest round and model of a training, the sequence of the trust statement, the ledger's
newest checkpoint, and the base models that this device has contributed to. A server that was set back, or that sets us
back, meets those.
"""

import shutil
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self
from uuid import UUID

from latticeward.agent.files import make_private_directory, read_json, write_atomically, write_json
from latticeward.errors import CustodyError, MalformedMessageError

STATE_FILE: Final = "state.json"
_SETTLED_KEPT: Final = 10


class Stage(StrEnum):
    """How far this device is in one round."""

    ACCEPTED = "accepted"
    PREPARED = "prepared"
    SENT = "sent"
    SETTLED = "settled"
    REFUSED = "refused"

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done for the round."""
        return self in (Stage.SETTLED, Stage.REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundMemory:
    """One round as this device lived it; digests in hex.

    Attributes:
        stage: ``accepted``: the assignment is believed. ``prepared``: the submission's bytes are on the disk.
            ``sent``: the receipt is on the disk. ``settled``: the result is known. ``refused``: we do not take part.
        outcome: what the server said of the submission, empty before.
        code: why it was refused, by the server or by us.
        own_metric: of the round's base model on this hospital's own test part; for this hospital's eyes.
    """

    round_id: str
    training_id: str
    number: int
    kind: str
    base_model_digest: str
    stage: Stage
    submission_digest: str = ""
    submission_id: str = ""
    outcome: str = ""
    code: str = ""
    own_metric: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldModel:
    """The newest model on the disk."""

    model_id: str
    training_id: str
    number: int
    weights_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCheckpoint:
    """The newest tree head of the ledger that this device has believed: its leaves, and its root in hex."""

    size: int
    root: str


@dataclass(slots=True, kw_only=True)
class AgentState:
    """The memory as a whole; ``save`` after every change that a later act relies on."""

    home: Path
    trust_sequence: int = 1
    highest_round: dict[str, int] = field(default_factory=dict)
    highest_model: dict[str, int] = field(default_factory=dict)
    contributed: dict[str, str] = field(default_factory=dict)
    rounds: dict[str, RoundMemory] = field(default_factory=dict)
    unproven: dict[str, str] = field(default_factory=dict)
    model: HeldModel | None = None
    checkpoint: HeldCheckpoint | None = None

    @classmethod
    def load(cls, home: Path) -> Self:
        """Read the memory of this home, or begin one.

        Raises:
            CustodyError: it is there and unreadable. Beginning afresh could break a promise.
        """
        values = read_json(home / STATE_FILE)
        if values is None:
            return cls(home=home)
        try:
            if values.pop("v") != 1:
                raise CustodyError(f"{home / STATE_FILE} was written by another version")
            rounds = {
                identity: RoundMemory(**{**row, "stage": Stage(row["stage"])})
                for identity, row in values.pop("rounds").items()
            }
            model = values.pop("model")
            checkpoint = values.pop("checkpoint", None)
            return cls(
                home=home,
                rounds=rounds,
                model=None if model is None else HeldModel(**model),
                checkpoint=None if checkpoint is None else HeldCheckpoint(**checkpoint),
                **values,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise CustodyError(f"{home / STATE_FILE} does not hold what the agent wrote") from exc

    def save(self) -> None:
        """Write the memory; forget the rounds that are long over, with their files."""
        over = sorted((row for row in self.rounds.values() if row.stage.over), key=lambda row: row.number)
        for row in over[:-_SETTLED_KEPT]:
            if row.submission_id not in self.unproven:
                del self.rounds[row.round_id]
                shutil.rmtree(self.round_directory(row.round_id), ignore_errors=True)
        values: dict[str, Any] = {
            "v": 1,
            "trust_sequence": self.trust_sequence,
            "highest_round": self.highest_round,
            "highest_model": self.highest_model,
            "contributed": self.contributed,
            "rounds": {identity: asdict(row) for identity, row in self.rounds.items()},
            "unproven": self.unproven,
            "model": None if self.model is None else asdict(self.model),
            "checkpoint": None if self.checkpoint is None else asdict(self.checkpoint),
        }
        write_json(self.home / STATE_FILE, values)

    def put(self, memory: RoundMemory) -> RoundMemory:
        """Remember a round as it is now, on the disk."""
        self.rounds[memory.round_id] = memory
        self.save()
        return memory

    def keep(self, round_id: str, name: str, content: bytes) -> None:
        """Write one file of a round."""
        directory = self.round_directory(round_id)
        make_private_directory(directory)
        write_atomically(directory / name, content)

    def recall(self, round_id: str, name: str) -> bytes:
        """Read one file of a round.

        Raises:
            CustodyError: it should be there and is not.
        """
        path = self.round_directory(round_id) / name
        try:
            return path.read_bytes()
        except OSError as exc:
            raise CustodyError(f"{path} is missing; the agent cannot repeat what it has promised") from exc

    def round_directory(self, round_id: str) -> Path:
        """Where a round's files are.

        Raises:
            MalformedMessageError: the id is not a UUID; a name from the network must not become a path.
        """
        try:
            canonical_id = str(UUID(round_id))
        except ValueError as exc:
            raise MalformedMessageError("a round's id is not a UUID") from exc
        if canonical_id != round_id:
            raise MalformedMessageError("a round's id is not a UUID in its usual form")
        return self.home / "rounds" / canonical_id
