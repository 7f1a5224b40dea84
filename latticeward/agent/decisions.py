"""Which step comes next in a round: from what the server says and what is remembered. No I/O, no clock.

The server's word is unsigned and decides only what is asked next; the memory decides what may be done at all.
"""

from enum import StrEnum
from typing import Final

from latticeward.agent.state import RoundMemory, Stage
from latticeward.agent.work import WorkRound
from latticeward.lifecycle import ROUND, ParticipantState, RoundState

_OUT: Final = frozenset({ParticipantState.REJECTED, ParticipantState.DROPPED, ParticipantState.EXCLUDED})
_OPEN: Final = frozenset({RoundState.RECRUITING, RoundState.COLLECTING})


class Step(StrEnum):
    """What the agent does next in a round.

    ``take``: believe the assignment, join, train, write. ``send``: hand over the written bytes. ``settle``: read the
    record and the new model. ``leave``: the round goes on or ends without us. ``wait``: it is somebody else's turn.
    """

    TAKE = "take"
    SEND = "send"
    SETTLE = "settle"
    LEAVE = "leave"
    WAIT = "wait"


def next_step(seen: WorkRound, memory: RoundMemory | None) -> Step:
    """The next step of one round.

    Args:
        seen: the round as the server tells it.
        memory: the round as this device lived it; None if it is new.
    """
    if memory is not None and memory.stage.over:
        return Step.WAIT
    if seen.state == RoundState.PUBLISHED:
        return Step.WAIT if memory is None else Step.SETTLE
    if seen.state in ROUND.terminal or seen.participant in _OUT:
        return Step.WAIT if memory is None else Step.LEAVE
    if memory is None or memory.stage is Stage.ACCEPTED:
        wanted = seen.participant in (ParticipantState.INVITED, ParticipantState.JOINED)
        return Step.TAKE if wanted and seen.state in _OPEN else Step.WAIT
    if memory.stage is Stage.PREPARED:
        # Submitted, and no receipt here: the answer was lost. The same bytes bring the same receipt, at any time.
        lost = seen.participant in (ParticipantState.SUBMITTED, ParticipantState.ACCEPTED)
        ready = seen.participant == ParticipantState.JOINED and seen.state == RoundState.COLLECTING
        return Step.SEND if lost or ready else Step.WAIT
    # Sent, and the participant is back at joined: refused. The same bytes would be refused again, and other bytes
    # for the same base model are never made.
    return Step.LEAVE if seen.participant == ParticipantState.JOINED else Step.WAIT
