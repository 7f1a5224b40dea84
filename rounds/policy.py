"""When a round moves on and a series of rounds ends: pure decisions from what has happened and what time it is.

The caller applies the answer by the lifecycle table. A round closes when nobody is undecided, or at its due time plus
a grace in which the workers finish what has arrived; then the undecided are dropped. One whose plan waits for
stragglers, and that lacks its quorum then, goes on until it has it, or until that wait is over too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from latticeward.lifecycle import RoundState
from latticeward.plan import RoundPlan

GRACE: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many participants are in each state."""

    invited: int = 0
    joined: int = 0
    submitted: int = 0
    accepted: int = 0

    @property
    def reachable(self) -> int:
        """Updates that could still be counted at best."""
        return self.invited + self.joined + self.submitted + self.accepted


@dataclass(frozen=True, slots=True)
class Decision:
    """An event of the round's machine, and the code if it is a failure."""

    event: str
    code: str = ""


def next_event(
    state: RoundState,
    tally: Tally,
    *,
    quorum: int,
    due_at: datetime | None,
    now: datetime,
    straggler_wait: timedelta = timedelta(0),
) -> Decision | None:
    """What should happen to a round now; None means wait.

    Args:
        state: the round's present state.
        tally: participants by state; rejected, dropped and excluded ones do not count.
        quorum: least number of accepted updates.
        due_at: when the present state is due; None only in a draft.
        now: the clock, read once by the caller.
        straggler_wait: how much longer a round without its quorum goes on collecting, by its plan.
    """
    due = due_at is not None and now >= due_at
    overdue = due_at is not None and now >= due_at + GRACE
    match state:
        case RoundState.RECRUITING:
            joined = tally.joined + tally.submitted + tally.accepted
            if joined >= quorum and (tally.invited == 0 or due):
                return Decision("begin_collecting")
            if tally.reachable < quorum or due:
                return Decision("fail", "quorum_not_met")
        case RoundState.COLLECTING:
            undecided = tally.invited + tally.joined + tally.submitted
            late = (due and tally.submitted == 0) or overdue
            if tally.accepted >= quorum and (undecided == 0 or late):
                return Decision("begin_aggregating")
            last_at = due_at + straggler_wait if due_at is not None else None
            given_up = last_at is not None and now >= (last_at + GRACE if tally.submitted else last_at)
            if tally.reachable < quorum or (given_up and tally.accepted < quorum):
                return Decision("fail", "quorum_not_met")
        case RoundState.SIGNING if overdue:
            return Decision("fail", "not_signed_in_time")
        case RoundState.AGGREGATING if overdue:
            return Decision("fail", "not_aggregated_in_time")
        case _:
            pass
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What a training's published rounds have come to.

    Attributes:
        published: training rounds.
        evaluated: whether a round without training has measured the final model.
        values: (model number, pooled metric) of each version that a training round measured, in order.
        seconds: since the training was opened.
        sent_bytes: of updates that devices have sent.
    """

    published: int
    evaluated: bool
    values: tuple[tuple[int, float], ...]
    seconds: float
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class NextStep:
    """``training`` or ``evaluation``: the kind of round to open; ``complete``: by which rule the training has ended."""

    kind: str
    rule: str = ""


def next_step(plan: RoundPlan, series: Series) -> NextStep:
    """What a running training does now that no round of it is open.

    A spent budget ends it at once. Another rule ends the training rounds; then the plan may ask for a round that
    measures the final model.
    """
    budget = plan.budget
    if budget.seconds is not None and series.seconds >= budget.seconds:
        return NextStep("complete", "budget_seconds")
    if budget.sent_bytes is not None and series.sent_bytes >= budget.sent_bytes:
        return NextStep("complete", "budget_bytes")
    rule = _stop_rule(plan, series)
    if not rule:
        return NextStep("training")
    if plan.evaluate_last and not series.evaluated:
        return NextStep("evaluation")
    return NextStep("complete", rule)


def best_of(values: Sequence[tuple[int, float]]) -> tuple[int, float] | None:
    """The model number and value of the best version; of equals the first."""
    return max(values, key=lambda pair: pair[1], default=None)


def _stop_rule(plan: RoundPlan, series: Series) -> str:
    stop = plan.stop
    if stop.target is not None and any(value >= stop.target for _, value in series.values):
        return "target"
    if stop.patience and _without_progress(series.values, stop.min_delta) >= stop.patience:
        return "patience"
    return "rounds" if series.published >= plan.rounds else ""


def _without_progress(values: Sequence[tuple[int, float]], min_delta: float) -> int:
    best, since = float("-inf"), 0
    for _, value in values:
        best, since = (value, 0) if value > best + min_delta else (best, since + 1)
    return since
