"""What a state machine is here: a named table of rows, and the one function that reads them."""

from dataclasses import dataclass
from enum import StrEnum

from latticeward.errors import InvalidTransitionError


@dataclass(frozen=True, slots=True)
class Transition:
    """One row: ``event`` moves ``source`` to ``target`` and is audited as ``audit_event``."""

    source: str
    event: str
    target: str
    audit_event: str
    trigger: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A named table of transitions over one enum of states."""

    name: str
    states: type[StrEnum]
    initial: str
    rows: tuple[Transition, ...]

    @property
    def terminal(self) -> frozenset[str]:
        """States with no row out of them."""
        return frozenset(str(state) for state in self.states) - {row.source for row in self.rows}


def rows(sources: tuple[StrEnum, ...], event: str, target: StrEnum, audit: str, trigger: str) -> list[Transition]:
    """The same event from several states."""
    return [Transition(str(source), event, str(target), audit, trigger) for source in sources]


def next_state(machine: Machine, source: str, event: str) -> Transition:
    """Find the row that ``event`` takes from ``source``.

    Raises:
        InvalidTransitionError: the table has no such row.
    """
    for row in machine.rows:
        if row.source == source and row.event == event:
            return row
    raise InvalidTransitionError(f"a {machine.name} in state {source!r} does not take the event {event!r}")
