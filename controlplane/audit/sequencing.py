"""Giving entries their leaf numbers, and signing the tree's head.

There is one sequencer at a time: it holds the lock of the ledger's single state row for as long as it numbers. Entries
are numbered in the order of their recording as far as it is known; what matters is that a number once given stays, and
that every entry gets one soon. The frontier (one hash a power of two) is all that is needed to go on, so the cost of a
batch does not grow with the tree.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from django.db import transaction

from controlplane.audit.models import AuditEntry, Checkpoint, LedgerState
from latticeward import canonical
from latticeward.instants import to_unix_milliseconds
from latticeward.ledger.checkpoint import Checkpoint as TreeHead
from latticeward.ledger.merkle import Frontier, leaf_hash

BATCH: Final = 1000


def entry_bytes(entry: AuditEntry) -> bytes:
    """The canonical bytes of an entry: what is hashed into its leaf (``docs/protocol.md``, "Ledger")."""
    return canonical.encode(
        {
            "type": "audit-entry",
            "v": 1,
            "id": str(entry.id),
            "event": entry.event,
            "actor": entry.actor,
            "subject_kind": entry.subject_kind,
            "subject_id": entry.subject_id,
            "details": entry.details,
            "feed": entry.feed,
            "feed_seq": entry.feed_seq,
            "recorded_at": to_unix_milliseconds(entry.recorded_at),
        }
    )


def sequence_entries() -> int:
    """Number up to ``BATCH`` waiting entries; returns how many."""
    with transaction.atomic():
        LedgerState.objects.get_or_create(pk=1)
        state = LedgerState.objects.select_for_update().get(pk=1)
        waiting = list(AuditEntry.objects.filter(leaf_index__isnull=True).order_by("recorded_at", "feed_seq")[:BATCH])
        if not waiting:
            return 0
        frontier = _frontier(state)
        for entry in waiting:
            entry.leaf_index = frontier.size
            entry.leaf_hash = leaf_hash(entry_bytes(entry))
            frontier.append(entry.leaf_hash)
        AuditEntry.objects.bulk_update(waiting, ["leaf_index", "leaf_hash"], batch_size=100)
        LedgerState.objects.filter(pk=1).update(size=frontier.size, frontier=frontier.to_bytes())
    return len(waiting)


def sign_head(origin: str, sign: Callable[[TreeHead], str]) -> Checkpoint | None:
    """Sign the tree's present head if it grew since the last checkpoint.

    Args:
        origin: name of this ledger.
        sign: makes the signed note; the caller holds the key.
    """
    state = LedgerState.objects.filter(pk=1).first()
    if state is None or state.size == 0 or Checkpoint.objects.filter(size__gte=state.size).exists():
        return None
    frontier = _frontier(state)
    root = frontier.root()
    head = TreeHead(origin=origin, size=frontier.size, root=root)
    kept: Any = Checkpoint.objects.get_or_create(
        size=frontier.size, defaults={"root": root, "note": sign(head), "signed_at": datetime.now(UTC)}
    )
    return kept[0]


def _frontier(state: LedgerState) -> Frontier:
    return Frontier.from_bytes(bytes(state.frontier)) if state.size else Frontier()
