"""Sums of ring vectors modulo 2^k, in place: the exact addition that every partial sum is made of; and their extent.

Integers modulo a power of two make a group, so a sum has the same bits in any order and any grouping, and what was
added can be taken out again. Several vectors are added in one pass: a block of the sum stays in the cache while each
vector goes by once, so a sum of many costs little more than reading them. The extent of one vector, by which it is
believed or refused, is exact too: every machine gives the same verdict. The work is done by ``_ring.c`` where it is
built (``compiled.py``), else by NumPy at half of its speed or less; neither copies a vector, and both let go of the
interpreter lock.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latticeward.compiled import Kernel
from latticeward.errors import LayoutMismatchError, SelfTestError

RingVector = NDArray[np.unsignedinteger[Any]]

KERNEL: Final = Kernel(name="ring", folder=Path(__file__).parent, sources=("_ring.c",))
# 32,768 words (128 or 256 KiB) stay in the second cache while several vectors are added to them.
_BLOCK: Final = 32_768
# Below this a call through ctypes costs more than it saves.
_SHORT: Final = 4_096
# Longer pieces make BLAS start threads.
_PIECE: Final = 8_192
_LIMB_BITS: Final = 16
_KNOWN_VECTORS: Final = 7
_KNOWN_WORDS: Final = 40_005


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How far the coordinates of a ring vector reach, read as signed; all three exactly.

    Attributes:
        least, greatest: of the coordinates.
        squares: their sum of squares.
    """

    least: int
    greatest: int
    squares: int


def accumulate(partial: RingVector, *vectors: RingVector) -> None:
    """Add ring vectors to a partial sum, in place, modulo 2^k; the bits are those of any order.

    Args:
        partial: uint32 or uint64, shape (n,), writable.
        vectors: the same dtype and shape; read only, at any alignment.

    Raises:
        LayoutMismatchError: a dtype or shape differs from the partial's; nothing was added.
    """
    _check_alike(partial, vectors)
    compiled = _compiled() if partial.size >= _SHORT and partial.flags.c_contiguous else None
    if compiled is None or not all(_stands_apart(vector, partial) for vector in vectors):
        add_by_numpy(partial, vectors)
    else:
        compiled.add(partial, vectors)


def subtract(partial: RingVector, vector: RingVector) -> None:
    """Take one ring vector out of a partial sum, in place, modulo 2^k: the inverse of ``accumulate``.

    Raises:
        LayoutMismatchError: a dtype or shape differs from the partial's.
    """
    _check_alike(partial, (vector,))
    np.subtract(partial, vector, out=partial)


def add_by_numpy(partial: RingVector, vectors: Sequence[RingVector]) -> None:
    """The form that needs no compiler; for ``accumulate``, and for tests and measurements."""
    for start in range(0, partial.size, _BLOCK):
        block = partial[start : start + _BLOCK]
        for vector in vectors:
            np.add(block, vector[start : start + _BLOCK], out=block)


def extent_of(vector: RingVector) -> Extent:
    """How far a vector reaches.

    Args:
        vector: uint32 or uint64, shape (n,), 1 <= n < 2^30; read only, at any alignment.

    Raises:
        LayoutMismatchError: another dtype or shape.
    """
    _require_ring_vector(vector)
    if not vector.size:
        raise LayoutMismatchError("an empty ring vector has no extent")
    compiled = _compiled() if vector.flags.c_contiguous else None
    return extent_by_numpy(vector) if compiled is None else compiled.extent(vector)


def extent_by_numpy(vector: RingVector) -> Extent:
    """The form that needs no compiler; for ``extent_of``, and for tests and measurements."""
    signed, squares = as_signed(vector), 0
    limbs = np.empty((8 * vector.itemsize // _LIMB_BITS, _PIECE))
    pairs = list(combinations_with_replacement(range(len(limbs)), 2))
    for start in range(0, vector.size, _PIECE):
        # Sums of products of limbs, in float64 by BLAS, stay below 2^45: exact, in whichever order it adds.
        sizes = np.abs(signed[start : start + _PIECE]).view(vector.dtype)
        for place, limb in enumerate(limbs):
            limb[: sizes.size] = sizes >> _LIMB_BITS * place & 0xFFFF
        for i, j in pairs:
            product = int(np.dot(limbs[i, : sizes.size], limbs[j, : sizes.size]))
            squares += product << _LIMB_BITS * (i + j) + (i != j)
    return Extent(least=int(signed.min()), greatest=int(signed.max()), squares=squares)


def as_signed(vector: RingVector) -> NDArray[np.signedinteger[Any]]:
    """The same memory read as two's complement."""
    return vector.view(np.int32 if vector.itemsize == 4 else np.int64)


class _Compiled(NamedTuple):
    add: Callable[[RingVector, Sequence[RingVector]], None]
    extent: Callable[[RingVector], Extent]


@cache
def _compiled() -> _Compiled | None:
    """The forms in C, once they have given known answers; None where they are not built.

    Raises:
        SelfTestError: the library computes wrongly, so it may not be used.
    """
    library = KERNEL.load()
    if library is None:
        return None
    adders = {4: library.latticeward_ring_add_32, 8: library.latticeward_ring_add_64}
    measures = {4: library.latticeward_ring_extent_32, 8: library.latticeward_ring_extent_64}
    for function in adders.values():
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        function.restype = None
    for function in measures.values():
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
        function.restype = None

    def add(partial: RingVector, vectors: Sequence[RingVector]) -> None:
        addresses = (ctypes.c_void_p * len(vectors))(*(vector.ctypes.data for vector in vectors))
        adders[partial.itemsize](partial.ctypes.data, addresses, len(vectors), partial.size)

    def extent(vector: RingVector) -> Extent:
        bounds, digits = (ctypes.c_int64 * 2)(), (ctypes.c_uint64 * 4)()
        measures[vector.itemsize](vector.ctypes.data, vector.size, bounds, digits)
        squares = sum(digit << 32 * place for place, digit in enumerate(digits))
        return Extent(least=bounds[0], greatest=bounds[1], squares=squares)

    for dtype in (np.uint32, np.uint64):
        # Odd lengths and an odd number of vectors pass through every loop; the values wrap around.
        words = np.arange((_KNOWN_VECTORS + 1) * _KNOWN_WORDS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        rows: NDArray[Any] = words.astype(dtype).reshape(_KNOWN_VECTORS + 1, -1)
        first, *others = rows
        expected = first.copy()
        add_by_numpy(expected, others)
        add(first, others)
        if not np.array_equal(first, expected):
            raise SelfTestError("the compiled ring sum differs from NumPy's")
        if extent(first) != extent_by_numpy(first):
            raise SelfTestError("the compiled extent of a ring vector differs from NumPy's")
    return _Compiled(add, extent)


def _stands_apart(vector: RingVector, partial: RingVector) -> bool:
    return vector.flags.c_contiguous and not np.may_share_memory(vector, partial)


def _check_alike(partial: RingVector, vectors: Sequence[RingVector]) -> None:
    _require_ring_vector(partial)
    for vector in vectors:
        if vector.dtype != partial.dtype or vector.shape != partial.shape:
            raise LayoutMismatchError(
                f"a ring vector is {vector.dtype} {vector.shape}, not {partial.dtype} {partial.shape}"
            )


def _require_ring_vector(vector: RingVector) -> None:
    if vector.ndim != 1 or vector.dtype not in (np.dtype(np.uint32), np.dtype(np.uint64)):
        raise LayoutMismatchError(f"{vector.dtype} {vector.shape} is not a ring vector")
