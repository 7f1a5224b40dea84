"""The one sentence that says how a training or a round stands. Pure: counts and times in, words out."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from frontend.words import ROUND, STOP_RULES, metric_name, sentence_of_code
from latticeward.lifecycle import RoundState, TrainingState


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """What the sentence is made of.

    Attributes:
        total: participants who were invited and not excluded.
        usual_seconds: median length of earlier rounds of the same training, None if there are too few.
        waits_until: how long a round past its due time takes updates while it lacks its quorum; None if it does not.
    """

    number: int
    kind: str
    state: str
    quorum: int
    total: int
    joined: int
    accepted: int
    opened_at: datetime | None
    due_at: datetime | None
    failure_code: str
    metric_name: str
    metric_value: float | None
    usual_seconds: float | None
    waits_until: datetime | None = None

    @property
    def name(self) -> str:
        return name_round(self.kind, self.number)


def name_round(kind: str, number: int) -> str:
    """Such as "Round 7"; a round that only measures says so."""
    return f"Evaluation round {number}" if kind == "evaluation" else f"Round {number}"


def say_round(facts: RoundFacts, now: datetime) -> str:
    """Such as "Round 7: 3 of 4 updates, quorum 3 reached, about 2 s left"."""
    match facts.state:
        case RoundState.RECRUITING:
            quorum = _quorum(facts.joined, facts.quorum)
            return f"{facts.name}: {facts.joined} of {facts.total} hospitals joined, {quorum}, {_left(facts, now)}"
        case RoundState.COLLECTING:
            quorum = _quorum(facts.accepted, facts.quorum)
            return f"{facts.name}: {facts.accepted} of {facts.total} updates, {quorum}, {_left(facts, now)}"
        case RoundState.AGGREGATING:
            return f"{facts.name}: {facts.accepted} of {facts.total} updates counted, the result is being signed"
        case RoundState.PUBLISHED:
            value = "" if facts.metric_value is None else f", {say_metric(facts.metric_name, facts.metric_value)}"
            return f"{facts.name}: published with {facts.accepted} of {facts.total} updates{value}"
        case RoundState.FAILED | RoundState.ABORTED:
            reason = sentence_of_code(facts.failure_code) or ROUND[RoundState(facts.state)].sentence
            return f"{facts.name}: {facts.state}. {reason}"
        case _:
            return f"{facts.name}: {ROUND[RoundState(facts.state)].sentence.rstrip('.').lower()}"


def say_training(
    state: str, *, published: int, rounds_max: int, metric: str, final: float | None, ended_by: str = ""
) -> str:
    """A training between, before or after its rounds; ``ended_by`` is the rule or the code that ended it."""
    match state:
        case TrainingState.DRAFT | TrainingState.SIGNING:
            return "The plan waits for the authority's signature"
        case TrainingState.COMPLETED:
            result = "" if final is None else f", pooled {say_metric(metric, final)}"
            rule = f", {STOP_RULES[ended_by]}" if ended_by in STOP_RULES else ""
            return f"Completed: {published} of {rounds_max} rounds published{rule}{result}"
        case TrainingState.STOPPED:
            return f"Stopped by an operator after {published} of {rounds_max} rounds"
        case TrainingState.FAILED:
            reason = f". {sentence_of_code(ended_by)}" if ended_by else ""
            return f"Failed after {published} of {rounds_max} published rounds{reason}"
        case _:
            return f"{published} of {rounds_max} rounds published; the next one opens when enough devices are there"


def say_metric(metric: str, value: float) -> str:
    """Such as "AUC 0.874"."""
    return f"{metric_name(metric)} {value:.3f}"


def say_share(share: float) -> str:
    """A share of one in per cent, three digits; what is next to nothing is said to be that."""
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{share * 100:.3g} %"


def say_duration(length: timedelta) -> str:
    """One unit, rounded: "2 s", "6 min", "3 h", "2 days"."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 90:
        return f"{seconds} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 36 * 3600:
        return f"{round(seconds / 3600)} h"
    return f"{round(seconds / 86400)} days"


def _quorum(count: int, quorum: int) -> str:
    return f"quorum {quorum} reached" if count >= quorum else f"quorum {quorum} not yet reached"


def _left(facts: RoundFacts, now: datetime) -> str:
    # An estimate is only given while it is one: after the usual length the due time is all that is known.
    if facts.usual_seconds is not None and facts.opened_at is not None:
        expected = facts.opened_at + timedelta(seconds=facts.usual_seconds) - now
        if expected > timedelta(seconds=0.5):
            return f"about {say_duration(expected)} left"
    if facts.due_at is None:
        return "no due time"
    if facts.due_at <= now:
        if facts.waits_until is not None and facts.waits_until > now and facts.accepted < facts.quorum:
            return f"past its due time, waiting for stragglers for {say_duration(facts.waits_until - now)} at most"
        return "the due time has passed"
    return f"due in {say_duration(facts.due_at - now)}"
