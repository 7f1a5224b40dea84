"""Writing the ledger: one call from every change, in the transaction of that change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction

from controlplane.audit.events import EVENTS
from controlplane.audit.models import AuditEntry
from controlplane.audit.sequencing import entry_bytes
from controlplane.live import publish_live
from controlplane.prepared import insert_rows
from latticeward.errors import MalformedMessageError


@dataclass(frozen=True, slots=True)
class Fact:
    """One entry of several: a name of ``audit/events.py``, kind and id of its subject, and details as of ``record``."""

    event: str
    subject: tuple[str, object]
    details: dict[str, Any] = field(default_factory=dict)


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
    return record_all([Fact(event, subject, details or {})], actor=actor, feed=feed)[0]


def record_all(facts: Sequence[Fact], *, actor: str, feed: str) -> list[AuditEntry]:
    """Write the entries of one change to many things, in order, in as many statements as one entry takes.

    Raises:
        RuntimeError: as ``record``.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("an audit entry belongs into the transaction of the change that it tells of")
    for fact in facts:
        if fact.event not in EVENTS:
            raise RuntimeError(f"audit event {fact.event!r} is not described in controlplane/audit/events.py")
    now = datetime.now(UTC)
    entries = [
        AuditEntry(
            event=fact.event,
            actor=actor,
            subject_kind=fact.subject[0],
            subject_id=str(fact.subject[1]),
            details=fact.details,
            feed=feed,
            recorded_at=now,
        )
        for fact in facts
    ]
    held = _held.get()
    if held is None:
        _write(entries)
    else:
        held += entries
    return entries


_held: ContextVar[list[AuditEntry] | None] = ContextVar("entries that wait for their block's end", default=None)


@contextmanager
def record_together() -> Iterator[None]:
    """Write all that is recorded inside at the end of the block, in as many statements as one entry takes.

    The feed's row, which everybody needs, is then locked from there to the commit only. Inside, an error that comes
    after a record must not be caught and gone on from: the entry would be written without its change.
    """
    if _held.get() is not None:
        yield
        return
    entries: list[AuditEntry] = []
    token = _held.set(entries)
    try:
        yield
    finally:
        _held.reset(token)
    _write(entries)


def _write(entries: list[AuditEntry]) -> None:
    # Feeds in one order everywhere: two transactions must not wait for each other's rows.
    for feed in sorted({entry.feed for entry in entries}):
        same = [entry for entry in entries if entry.feed == feed]
        for number, entry in enumerate(same, start=_last_feed_number(feed, len(same)) - len(same) + 1):
            entry.feed_seq = number
    for entry in entries:
        try:
            # Found out later, by the sequencer, such an entry would stop the whole ledger.
            entry_bytes(entry)
        except MalformedMessageError as error:
            raise RuntimeError(f"details of {entry.event!r} have no canonical form: {error}") from error
    if entries:
        insert_rows(entries)
        transaction.on_commit(lambda: publish_live([as_live_event(entry) for entry in entries]))


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


def _last_feed_number(feed: str, count: int) -> int:
    # One statement both takes the row's lock and gives the numbers, so they have no gaps and commit in order.
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO audit_auditfeed (name, last_seq) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET last_seq = audit_auditfeed.last_seq + excluded.last_seq "
            "RETURNING last_seq",
            [feed, count],
        )
        row = cursor.fetchone()
    return int(row[0])
