"""Writing the ledger: one call from every change, in the transaction of that change."""

from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction

from controlplane.audit.events import EVENTS
from controlplane.audit.models import AuditEntry
from controlplane.audit.sequencing import entry_bytes
from controlplane.live import publish_live
from latticeward.errors import MalformedMessageError


def record(
    event: str, *, actor: str, feed: str, subject: tuple[str, object], details: dict[str, Any] | None = None
) -> AuditEntry:
    """Write one audit entry and, once the transaction commits, broadcast it.

    Args:
        event: a name of ``audit/events.py``.
        actor: ``user:<id>``, ``device:<id>``, ``worker:<role>`` or ``system``.
        feed: ``federation:<id>`` or ``round:<id>``: the numbered stream that browsers replay.
        subject: kind and id of what the entry is about.
        details: ids, numbers and codes as JSON; never payloads, keys, codes of claims or patient data.

    Raises:
        RuntimeError: called outside a transaction, with an event nobody described, or with details that have no
            canonical bytes.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("an audit entry belongs into the transaction of the change that it tells of")
    if event not in EVENTS:
        raise RuntimeError(f"audit event {event!r} is not described in controlplane/audit/events.py")
    kind, identity = subject
    entry = AuditEntry.objects.create(
        event=event,
        actor=actor,
        subject_kind=kind,
        subject_id=str(identity),
        details=details or {},
        feed=feed,
        feed_seq=_next_feed_number(feed),
        recorded_at=datetime.now(UTC),
    )
    try:
        # Found out later, by the sequencer, such an entry would stop the whole ledger.
        entry_bytes(entry)
    except MalformedMessageError as error:
        raise RuntimeError(f"details of {event!r} have no canonical form: {error}") from error
    transaction.on_commit(lambda: publish_live(as_live_event(entry)))
    return entry


def as_live_event(entry: AuditEntry) -> dict[str, Any]:
    """The entry as browsers and long-polling devices see it."""
    return {
        "v": 1,
        "feed": entry.feed,
        "seq": entry.feed_seq,
        "type": entry.event,
        "at": entry.recorded_at.isoformat().replace("+00:00", "Z"),
        "subject": {"kind": entry.subject_kind, "id": entry.subject_id},
        "data": entry.details,
    }


def _next_feed_number(feed: str) -> int:
    # One statement both takes the row's lock and gives the number, so numbers have no gaps and commit in order.
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO audit_auditfeed (name, last_seq) VALUES (%s, 1) "
            "ON CONFLICT (name) DO UPDATE SET last_seq = audit_auditfeed.last_seq + 1 RETURNING last_seq",
            [feed],
        )
        row = cursor.fetchone()
    return int(row[0])
