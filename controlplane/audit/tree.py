"""The hashes of the ledger's tree, read from the leaf hashes in the database, and the proofs made of them.

Whole subtrees never change, so those of 1,024 leaves and more are kept in the process: after the first proof, another
costs a few thousand leaves at most, however long the ledger is.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from django.db.models import Max

from controlplane.audit.models import AuditEntry
from latticeward.errors import ConsistencyProofError, InclusionProofError, LedgerError
from latticeward.ledger.merkle import (
    EMPTY_ROOT,
    Range,
    consistency_ranges,
    inclusion_ranges,
    node_hash,
    root_hash,
    split,
)

_KEPT_LEAVES: Final = 1024
_KEPT_SUBTREES: Final = 65_536


def inclusion_path(index: int, size: int) -> list[bytes]:
    """The proof that leaf ``index`` is in the tree of ``size`` leaves: hashes of 32 bytes, from the leaf upwards.

    Raises:
        InclusionProofError: there is no such leaf.
        LedgerError: the database lacks leaves of that tree.
    """
    if size > _numbered():
        raise InclusionProofError(f"the ledger has no {size} leaves yet")
    return _hashes(inclusion_ranges(index, size))


def consistency_path(old_size: int, new_size: int) -> list[bytes]:
    """The proof that the tree of ``new_size`` leaves begins with that of ``old_size``.

    Raises:
        ConsistencyProofError: the sizes are out of order, or the ledger is shorter.
        LedgerError: the database lacks leaves of that tree.
    """
    if new_size > _numbered():
        raise ConsistencyProofError(f"the ledger has no {new_size} leaves yet")
    return _hashes(consistency_ranges(old_size, new_size))


def tree_root(size: int) -> bytes:
    """The 32-byte root over the first ``size`` leaves as the database has them.

    Raises:
        LedgerError: it lacks some of them.
    """
    return _hashes([(0, size)])[0] if size else EMPTY_ROOT


def _numbered() -> int:
    newest = AuditEntry.objects.aggregate(newest=Max("leaf_index"))["newest"]
    return 0 if newest is None else int(newest) + 1


def _hashes(ranges: Sequence[Range]) -> list[bytes]:
    """The hashes of ranges as proofs name them."""
    if not ranges:
        return []
    # Which ledger it is, by its first leaf (which holds a random id): a process may see more than one, as tests do.
    ledger = _leaves(0, 1)[0]
    return [_hash_of(ledger, start, end) for start, end in ranges]


def _hash_of(ledger: bytes, start: int, end: int) -> bytes:
    size = end - start
    if size < _KEPT_LEAVES:
        return root_hash(_leaves(start, end))
    if size & (size - 1) == 0:
        return _whole_subtree(ledger, start, end)
    middle = start + split(size)
    return node_hash(_hash_of(ledger, start, middle), _hash_of(ledger, middle, end))


@lru_cache(maxsize=_KEPT_SUBTREES)
def _whole_subtree(ledger: bytes, start: int, end: int) -> bytes:
    if end - start == _KEPT_LEAVES:
        return root_hash(_leaves(start, end))
    middle = (start + end) // 2
    return node_hash(_whole_subtree(ledger, start, middle), _whole_subtree(ledger, middle, end))


def _leaves(start: int, end: int) -> list[bytes]:
    rows = AuditEntry.objects.filter(leaf_index__gte=start, leaf_index__lt=end).order_by("leaf_index")
    hashes = [bytes(row) for row in rows.values_list("leaf_hash", flat=True) if row is not None]
    if len(hashes) != end - start:
        raise LedgerError(f"the database lacks leaves between {start} and {end}")
    return hashes
