"""The only writer of a state column."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

from django.db import connection, models, transaction

from controlplane.audit.models import AuditEntry
from controlplane.audit.services import Fact, record, record_all
from controlplane.prepared import update_rows
from latticeward.errors import StaleStateError
from latticeward.lifecycle import Machine, next_state

Row = TypeVar("Row", bound=models.Model)


def apply_transition(
    row: models.Model,
    machine: Machine,
    event: str,
    *,
    actor: str,
    feed: str,
    details: dict[str, Any] | None = None,
    **columns: Any,
) -> AuditEntry:
    """Move ``row`` by ``event``: compare-and-swap, audit entry and (on commit) live event, in one transaction.

    Args:
        row: a model instance with ``id`` and ``state``; its attributes follow what was written.
        machine: the table of ``latticeward/lifecycle/``.
        columns: further columns to set in the same statement.

    Raises:
        InvalidTransitionError: the table has no such row.
        StaleStateError: somebody moved the row first; nothing was written.
    """
    transition = next_state(machine, row.state, event)  # type: ignore[attr-defined]
    # Inside somebody's transaction no savepoint: the one statement that may be refused has then written nothing.
    with nullcontext() if connection.in_atomic_block else transaction.atomic():
        moved = {"state": transition.target, **columns}
        if update_rows(type(row), [row.pk], moved, state=transition.source) != 1:
            raise StaleStateError(f"{machine.name} {row.pk} is no longer {transition.source}")
        entry = record(
            transition.audit_event,
            actor=actor,
            feed=feed,
            subject=(machine.name, row.pk),
            details={"from": transition.source, "to": transition.target, **(details or {})},
        )
    row.state = transition.target  # type: ignore[attr-defined]
    for name, value in columns.items():
        setattr(row, name, value)
    return entry


def apply_transitions(
    rows: Sequence[Row],
    machine: Machine,
    event: str,
    *,
    actor: str,
    feed: str,
    details: Callable[[Row], dict[str, Any]] = lambda row: {},
    **columns: Any,
) -> list[AuditEntry]:
    """Move many rows of one table by the same event, all of them or none: a few statements, an entry for each row.

    Args:
        rows: of one model, all in the same state.
        columns: set on all of them alike.

    Raises:
        InvalidTransitionError: the table has no such row for one of them.
        StaleStateError: somebody moved one of them first; nothing was written.
    """
    if not rows:
        return []
    transitions = [next_state(machine, row.state, event) for row in rows]  # type: ignore[attr-defined]
    if len(set(transitions)) > 1:
        raise ValueError("rows that are moved together are in one state")
    transition = transitions[0]
    # A savepoint costs as much as the update. Whoever catches an error inside his transaction can only end it.
    with transaction.atomic(savepoint=False):
        moved = {"state": transition.target, **columns}
        if update_rows(type(rows[0]), [row.pk for row in rows], moved, state=transition.source) != len(rows):
            raise StaleStateError(f"one of {len(rows)} {machine.name} rows is no longer {transition.source}")
        moves = {"from": transition.source, "to": transition.target}
        entries = record_all(
            [Fact(transition.audit_event, (machine.name, row.pk), {**moves, **details(row)}) for row in rows],
            actor=actor,
            feed=feed,
        )
    for row in rows:
        row.state = transition.target  # type: ignore[attr-defined]
        for name, value in columns.items():
            setattr(row, name, value)
    return entries
