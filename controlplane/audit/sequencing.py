"""Giving entries their leaf numbers, and signing the tree's head.

There is one sequencer at a time: it holds the lock of the ledger's single state row for as long as it numbers. Entries
are numbered in the order of their recording as far as it is known; what matters is that a number once given stays, and
that every entry gets one soon. The frontier (one hash a power of two) is all that is needed to go on, so the cost of a
batch does not grow with the tree.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from django.db import connection, transaction

from controlplane.audit.models import AuditEntry, Checkpoint, LedgerState
from controlplane.audit.tree import consistency_path
from latticeward import canonical
from latticeward.instants import to_unix_milliseconds
from latticeward.ledger.merkle import EMPTY_ROOT, Frontier, leaf_hash, verify_consistency

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
        frontier = Frontier.from_bytes(bytes(state.frontier))
        for entry in waiting:
            entry.leaf_index = frontier.size
            entry.leaf_hash = leaf_hash(entry_bytes(entry))
            frontier.append(entry.leaf_hash)
        _write_leaves(waiting)
        LedgerState.objects.filter(pk=1).update(size=frontier.size, frontier=frontier.to_bytes())
    return len(waiting)


def sign_head(sign: Callable[[int, bytes], str]) -> Checkpoint | None:
    """Sign the tree's present head if it grew since the last checkpoint.

    The stored leaves must lead from the last signed root to the frontier's, so that entries changed behind the
    product's back are found here and never signed over.

    Args:
        sign: makes the signed note of a size and a 32-byte root; the caller holds the key. Called only when there is
            something to sign.

    Returns:
        The new checkpoint, or None when there is nothing to sign.

    Raises:
        LedgerError: the tree does not extend the one that was signed last; nothing was signed.
    """
    state = LedgerState.objects.filter(pk=1).first()
    last = Checkpoint.objects.order_by("-size").first()
    if state is None or state.size <= (last.size if last else 0):
        return None
    frontier = Frontier.from_bytes(bytes(state.frontier))
    old_size, old_root = (last.size, bytes(last.root)) if last else (0, EMPTY_ROOT)
    verify_consistency(
        old_size=old_size,
        old_root=old_root,
        new_size=frontier.size,
        new_root=frontier.root,
        proof=consistency_path(old_size, frontier.size),
    )
    note = sign(frontier.size, frontier.root)
    # Of two signers that meet here the first one's note stays: the same tree, and what was served must not change.
    return Checkpoint.objects.get_or_create(
        size=frontier.size, defaults={"root": frontier.root, "note": note, "signed_at": datetime.now(UTC)}
    )[0]


def _write_leaves(entries: list[AuditEntry]) -> None:
    # One prepared statement for all: a tenth of the time of bulk_update's CASE expressions.
    prepare = AuditEntry._meta.get_field("id").get_db_prep_value
    rows: list[Any] = [(entry.leaf_index, entry.leaf_hash, prepare(entry.id, connection)) for entry in entries]
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE audit_auditentry SET leaf_index = %s, leaf_hash = %s WHERE id = %s AND leaf_index IS NULL", rows
        )
