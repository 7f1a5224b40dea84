"""Reading the ledger: what a page missed, pages of the tree, and proofs."""

import base64
from typing import Any, Final
from uuid import UUID

from controlplane.audit.models import AuditEntry, Checkpoint
from controlplane.audit.sequencing import entry_bytes
from controlplane.audit.services import as_live_event
from controlplane.audit.tree import consistency_path, inclusion_path
from controlplane.prepared import PreparedSelect


def events_since(feed: str, seq: int, *, limit: int = 1000) -> list[dict[str, Any]]:
    """The live events of a feed after number ``seq``, in order, at most ``limit``."""
    entries = AuditEntry.objects.filter(feed=feed, feed_seq__gt=seq).order_by("feed_seq")[:limit]
    return [as_live_event(entry) for entry in entries]


def leaf_hashes(size: int) -> list[bytes]:
    """The first ``size`` leaf hashes, in order: for whoever wants to compute the whole tree again."""
    rows = AuditEntry.objects.filter(leaf_index__lt=size).order_by("leaf_index").values_list("leaf_hash", flat=True)
    return [bytes(row) for row in rows if row is not None]


def entries_page(start: int, *, limit: int = 100) -> list[AuditEntry]:
    """Numbered entries from leaf ``start`` on, in the tree's order, at most ``limit``."""
    return list(AuditEntry.objects.filter(leaf_index__gte=start).order_by("leaf_index")[:limit])


def entry_bytes_at(index: int) -> bytes | None:
    """The canonical bytes behind leaf ``index``; None where the tree does not reach."""
    entry = AuditEntry.objects.filter(leaf_index=index).first()
    return entry_bytes(entry) if entry else None


def consistency_between(old_size: int, new_size: int) -> list[str]:
    """The proof, in hexadecimal, that the tree of ``new_size`` leaves begins with that of ``old_size``.

    Raises:
        ConsistencyProofError: the sizes are out of order, or the ledger is shorter.
    """
    return [item.hex() for item in consistency_path(old_size, new_size)]


_NEWEST_HEAD: Final = PreparedSelect(lambda: Checkpoint.objects.order_by("-size").values_list("size", "root")[:1])


def newest_head() -> dict[str, Any] | None:
    """Size and root (32 bytes) of the newest signed tree head; None before the first one."""
    head = _NEWEST_HEAD.first()
    return {"size": head[0], "root": bytes(head[1])} if head else None


def inclusion_proof_of(entry_id: UUID, *, since: int = 0) -> dict[str, Any] | None:
    """An entry, its place, and the proofs that the newest signed head contains it and extends an older one.

    Args:
        since: leaves of the head that the asker has seen; 0 if none.

    Returns:
        None while the entry has no number yet, or no head was signed over it.

    Raises:
        ConsistencyProofError: no head of so many leaves can have been seen.
    """
    entry = AuditEntry.objects.filter(pk=entry_id).first()
    head = Checkpoint.objects.order_by("-size").first()
    if entry is None or entry.leaf_index is None or head is None or head.size <= entry.leaf_index:
        return None
    return {
        "entry": base64.urlsafe_b64encode(entry_bytes(entry)).decode().rstrip("="),
        "index": entry.leaf_index,
        "checkpoint": head.note,
        "proof": [item.hex() for item in inclusion_path(entry.leaf_index, head.size)],
        "consistency": consistency_between(since, head.size),
    }
