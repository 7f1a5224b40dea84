"""When a round moves on: a pure decision from what has happened and what time it is.

The caller applies the answer by the lifecycle table. A round closes when nobody is undecided, or at its due time plus
a grace in which the workers finish what has arrived; then the undecided are dropped.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from latticeward.lifecycle import RoundState

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
    state: RoundState, tally: Tally, *, quorum: int, due_at: datetime | None, now: datetime
) -> Decision | None:
    """What should happen to a round now; None means wait.

    Args:
        state: the round's present state.
        tally: participants by state; rejected, dropped and excluded ones do not count.
        quorum: least number of accepted updates.
        due_at: when the present state is due; None only in a draft.
        now: the clock, read once by the caller.
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
            if tally.reachable < quorum or (late and tally.accepted < quorum):
                return Decision("fail", "quorum_not_met")
        case RoundState.SIGNING if overdue:
            return Decision("fail", "not_signed_in_time")
        case RoundState.AGGREGATING if overdue:
            return Decision("fail", "not_aggregated_in_time")
        case _:
            pass
    return None
