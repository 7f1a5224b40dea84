"""The ledger's tree: RFC 6962 hashes, inclusion and consistency proofs, and a frontier to append with.

A proof is a list of the hashes of certain ranges of leaves. ``inclusion_ranges`` and ``consistency_ranges`` say which,
so whoever keeps leaves in a database fetches and hashes no more than it needs; ``inclusion_proof`` and
``consistency_proof`` do it for leaves at hand. Verifying follows RFC 9162, sections 2.1.3.2 and 2.1.4.2. Everything
here is bytes in, bytes out: no clock, no storage, no signature (those are in ``checkpoint.py``).
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Final, Self

from latticeward.errors import ConsistencyProofError, InclusionProofError, MalformedMessageError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
_SIZE_BYTES: Final = 8

# Leaves start .. end - 1 of the tree.
Range = tuple[int, int]


def leaf_hash(entry: bytes) -> bytes:
    """The 32-byte hash of an entry of any length; its prefix keeps an inner node from passing for an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The 32-byte hash of an inner node over two hashes of 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """How many of ``size`` >= 2 leaves stand in the left subtree: the largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def root_hash(leaf_hashes: Iterable[bytes]) -> bytes:
    """The 32-byte root over leaf hashes in their order; ``EMPTY_ROOT`` over none."""
    frontier = Frontier()
    frontier.extend(leaf_hashes)
    return frontier.root


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The ranges whose hashes prove leaf ``index`` in a tree of ``size`` leaves, from the leaf upwards.

    Raises:
        InclusionProofError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise InclusionProofError(f"a tree of {size} leaves has no leaf {index}")
    ranges: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(old_size: int, new_size: int) -> list[Range]:
    """The ranges whose hashes prove that a tree of ``new_size`` leaves begins with the one of ``old_size``.

    Raises:
        ConsistencyProofError: the sizes are negative or the new tree is the smaller one.
    """
    if not 0 <= old_size <= new_size:
        raise ConsistencyProofError(f"a tree of {new_size} leaves does not extend one of {old_size}")
    if old_size in {0, new_size}:
        return []
    ranges: list[Range] = []
    start, end = 0, new_size
    while end != old_size:
        middle = start + split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    # When the old tree is itself a subtree, the verifier has its hash already: it is the old root.
    if start != 0:
        ranges.append((start, end))
    return ranges[::-1]


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The proof for one leaf of the tree over all ``leaf_hashes``.

    Raises:
        InclusionProofError: there is no such leaf.
    """
    return [root_hash(leaf_hashes[start:end]) for start, end in inclusion_ranges(index, len(leaf_hashes))]


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """The proof that the tree over all ``leaf_hashes`` begins with the one over the first ``old_size``.

    Raises:
        ConsistencyProofError: there are fewer leaves than that.
    """
    return [root_hash(leaf_hashes[start:end]) for start, end in consistency_ranges(old_size, len(leaf_hashes))]


def verify_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf stands at ``index`` of the tree that ``root`` commits to.

    Args:
        leaf: the leaf's hash, 32 bytes.
        index: 0 <= index < size.
        size: leaves of the tree.
        proof: hashes of 32 bytes, from the leaf upwards.
        root: 32 bytes, from a verified checkpoint.

    Raises:
        InclusionProofError: it does not, or the proof is not one for these numbers.
    """
    if len(leaf) != HASH_BYTES or not _all_hashes(proof):
        raise InclusionProofError("a hash of the proof has not 32 bytes")
    if not 0 <= index < size:
        raise InclusionProofError(f"a tree of {size} leaves has no leaf {index}")
    position, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise InclusionProofError("the proof is too long")
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise InclusionProofError("the proof is too short")
    if not hmac.compare_digest(computed, root):
        raise InclusionProofError(f"leaf {index} is not in the tree of {size} leaves")


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of ``new_root`` begins with all leaves of the tree of ``old_root``, unchanged.

    Args:
        old_size: leaves of the older tree; 0 is consistent with every tree.
        old_root: 32 bytes.
        new_size: at least ``old_size``.
        new_root: 32 bytes.
        proof: hashes of 32 bytes, as ``consistency_proof`` gives them.

    Raises:
        ConsistencyProofError: it does not, or the proof is not one for these sizes.
    """
    if not _all_hashes(proof):
        raise ConsistencyProofError("a hash of the proof has not 32 bytes")
    if not 0 <= old_size <= new_size:
        raise ConsistencyProofError(f"a tree of {new_size} leaves does not extend one of {old_size}")
    if old_size in {0, new_size}:
        expected = EMPTY_ROOT if old_size == 0 else new_root
        if proof or not hmac.compare_digest(old_root, expected):
            raise ConsistencyProofError(f"the trees of {old_size} and {new_size} leaves are not one and the same")
        return
    # An old tree that is a whole subtree of the new one stands for itself.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise ConsistencyProofError("the proof is too short")
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ConsistencyProofError("the proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise ConsistencyProofError("the proof is too short")
    if not (hmac.compare_digest(old, old_root) and hmac.compare_digest(new, new_root)):
        raise ConsistencyProofError(f"the tree of {new_size} leaves does not begin with that of {old_size}")


class Frontier:
    """The right edge of a growing tree: all that it takes to append a leaf and to tell the root, O(log n) hashes.

    It holds the root of one whole subtree for every one bit of the size, largest first.
    """

    __slots__ = ("_hashes", "_size")

    def __init__(self) -> None:
        self._hashes: list[bytes] = []
        self._size = 0

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Undo ``to_bytes``; no bytes at all are the empty tree.

        Raises:
            MalformedMessageError: the number of hashes does not fit the size.
        """
        frontier = cls()
        if raw:
            frontier._size = int.from_bytes(raw[:_SIZE_BYTES], "big")
            hashes = raw[_SIZE_BYTES:]
            frontier._hashes = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
            if len(raw) != _SIZE_BYTES + HASH_BYTES * frontier._size.bit_count():
                raise MalformedMessageError("a frontier's hashes do not fit its size")
        return frontier

    def to_bytes(self) -> bytes:
        """The size as eight bytes, most significant first, and 32 bytes for each of its one bits."""
        return self._size.to_bytes(_SIZE_BYTES, "big") + b"".join(self._hashes)

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._size

    @property
    def root(self) -> bytes:
        """The 32-byte root of the tree so far."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root

    def append(self, leaf: bytes) -> None:
        """Add one leaf by its 32-byte hash."""
        ones = self._size
        while ones & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            ones >>= 1
        self._hashes.append(leaf)
        self._size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves by their hashes, in order."""
        for leaf in leaves:
            self.append(leaf)


def _all_hashes(proof: Sequence[bytes]) -> bool:
    return all(len(one) == HASH_BYTES for one in proof)
