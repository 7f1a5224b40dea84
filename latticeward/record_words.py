"""A round record in plain sentences, for people who read rounds and no formats. Pure: record and plan in, words out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from latticeward.instants import from_unix_milliseconds
from latticeward.lifecycle import ParticipantState
from latticeward.messages import RoundRecord
from latticeward.plan import RoundPlan
from latticeward.plan_parts import SENSITIVITIES
from latticeward.protection import PROTECTIONS
from latticeward.records import hospitals_of
from latticeward.updates.metrics import METRICS

_OUTCOMES: Final[Mapping[str, str]] = {
    ParticipantState.ACCEPTED: "its update was counted",
    ParticipantState.DROPPED: "left out: no update of it was there in time",
    ParticipantState.REJECTED: "left out: its update was refused",
    ParticipantState.EXCLUDED: "left out: its device lost its trust during the round",
}


@dataclass(frozen=True, slots=True)
class Seat:
    """One hospital's line."""

    site: str
    said: str


@dataclass(frozen=True, slots=True)
class RecordInWords:
    """What a record says: one sentence on top, the hospitals, and the rest as named facts."""

    headline: str
    seats: tuple[Seat, ...]
    facts: tuple[tuple[str, str], ...]

    def as_text(self) -> str:
        """The same for a terminal or a letter."""
        lines = [self.headline, "", *(f"  {seat.site}: {seat.said}." for seat in self.seats), ""]
        return "\n".join([*lines, *(f"{name}: {value}" for name, value in self.facts)])


def say_record(record: RoundRecord, plan: RoundPlan) -> RecordInWords:
    """Put a record into words."""
    kind = "Evaluation round" if record.kind == "evaluation" else "Round"
    invited = len(record.participants)
    headline = (
        f"{kind} {record.number} of “{plan.title}”: {record.accepted} of {invited} updates were counted, from "
        f"{hospitals_of(record)} hospitals; {record.quorum} were needed."
    )
    return RecordInWords(
        headline,
        tuple(Seat(str(row["site"]), _say_outcome(row, plan)) for row in record.participants),
        (
            ("Opened", _say_instant(from_unix_milliseconds(record.opened_at))),
            ("Closed", _say_instant(from_unix_milliseconds(record.closed_at))),
            ("Measured", _say_metric(record, plan)),
            ("New model", _say_model(record)),
            ("Training starts from", _say_start(plan)),
            ("Protection", f"{PROTECTIONS[record.protection].title} Suite {record.suite}."),
            ("Data", SENSITIVITIES[plan.sensitivity].title),
            ("Smallest group", f"{plan.k_hospitals} hospitals and {plan.k_patients} patients: less is not shown"),
            ("Privacy spent", _say_privacy(record)),
            ("Ledger when prepared", f"{record.ledger['size']} entries" if record.ledger else "empty"),
            ("Plan", record.plan_digest.hex()),
        ),
    )


def _say_outcome(row: Mapping[str, Any], plan: RoundPlan) -> str:
    said = _OUTCOMES.get(row["outcome"], str(row["outcome"]))
    code = f" ({row['code']})" if row["code"] else ""
    metric = row["metric"]
    own = f"; at this hospital the model has {METRICS[plan.metric].title} {metric['value']:.3f}" if metric else ""
    return f"{said}{code}{own}"


def _say_metric(record: RoundRecord, plan: RoundPlan) -> str:
    if record.metric is None:
        return "nothing is shown: too few hospitals or patients, or no value is defined"
    value, patients, hospitals = (record.metric[name] for name in ("value", "patients", "hospitals"))
    title = METRICS[plan.metric].title
    return f"the model that the round began with has {title} {value:.3f} on {patients} cases of {hospitals} hospitals"


def _say_model(record: RoundRecord) -> str:
    if record.weights_digest is None:
        return "none: the round only measured"
    return f"version {record.number}, digest {record.weights_digest.hex()}"


def _say_start(plan: RoundPlan) -> str:
    start = plan.start
    if start is None:
        return "what its plan describes"
    return f"version {start.model_id} of training {start.training_id}, digest {start.weights_digest.hex()}"


def _say_privacy(record: RoundRecord) -> str:
    if record.epsilon_spent is None:
        return "no number is promised: the plan adds no noise"
    return f"epsilon {record.epsilon_spent:g} at delta {record.delta or 0.0:g}, all rounds up to this one"


def _say_instant(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d %H:%M:%S UTC")
