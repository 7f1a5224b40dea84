"""The only writer of a state column."""

from typing import Any

from django.db import models, transaction

from controlplane.audit.models import AuditEntry
from controlplane.audit.services import record
from latticeward.errors import StaleStateError
from latticeward.lifecycle import Machine, next_state


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
        machine: the table of ``latticeward/lifecycle.py``.
        columns: further columns to set in the same statement.

    Raises:
        InvalidTransitionError: the table has no such row.
        StaleStateError: somebody moved the row first; nothing was written.
    """
    transition = next_state(machine, row.state, event)  # type: ignore[attr-defined]
    with transaction.atomic():
        manager = type(row)._default_manager
        changed = manager.filter(pk=row.pk, state=transition.source).update(state=transition.target, **columns)
        if changed != 1:
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
