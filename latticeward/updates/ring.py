"""Sums of ring vectors modulo 2^k, in place: the exact addition that every partial sum is made of.

Integers modulo a power of two make a group, so a sum has the same bits in any order and any grouping, and what was
added can be taken out again. Several vectors are added in one pass: a block of the sum stays in the cache while each
vector goes by once, so a sum of many costs little more than reading them. The work is done by ``_ring.c`` where it is
built (``compiled.py``), else by NumPy at about half of its speed; neither copies a vector, and both let go of the
interpreter lock.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from latticeward.compiled import Kernel
from latticeward.errors import LayoutMismatchError, SelfTestError

RingVector = NDArray[np.unsignedinteger[Any]]
_Adder = Callable[[RingVector, Sequence[RingVector]], None]

KERNEL: Final = Kernel(name="ring", folder=Path(__file__).parent, sources=("_ring.c",))
# 32,768 words (128 or 256 KiB) stay in the second cache while several vectors are added to them.
_BLOCK: Final = 32_768
# Below this a call through ctypes costs more than it saves.
_SHORT: Final = 4_096
_KNOWN_VECTORS: Final = 7
_KNOWN_WORDS: Final = 40_005


def accumulate(partial: RingVector, *vectors: RingVector) -> None:
    """Add ring vectors to a partial sum, in place, modulo 2^k; the bits are those of any order.

    Args:
        partial: uint32 or uint64, shape (n,), writable.
        vectors: the same dtype and shape; read only, at any alignment.

    Raises:
        LayoutMismatchError: a dtype or shape differs from the partial's; nothing was added.
    """
    _check_alike(partial, vectors)
    add = _compiled() if partial.size >= _SHORT else None
    if add is None or not partial.flags.c_contiguous or not all(_stands_apart(vector, partial) for vector in vectors):
        add = add_by_numpy
    add(partial, vectors)


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


@cache
def _compiled() -> _Adder | None:
    """The form in C, once it has given a known answer; None where it is not built.

    Raises:
        SelfTestError: the library adds wrongly, so it may not be used.
    """
    library = KERNEL.load()
    if library is None:
        return None
    functions = {4: library.latticeward_ring_add_32, 8: library.latticeward_ring_add_64}
    for function in functions.values():
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        function.restype = None

    def add(partial: RingVector, vectors: Sequence[RingVector]) -> None:
        addresses = (ctypes.c_void_p * len(vectors))(*(vector.ctypes.data for vector in vectors))
        functions[partial.itemsize](partial.ctypes.data, addresses, len(vectors), partial.size)

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
    return add


def _stands_apart(vector: RingVector, partial: RingVector) -> bool:
    return vector.flags.c_contiguous and not np.may_share_memory(vector, partial)


def _check_alike(partial: RingVector, vectors: Sequence[RingVector]) -> None:
    if partial.ndim != 1 or partial.dtype not in (np.dtype(np.uint32), np.dtype(np.uint64)):
        raise LayoutMismatchError(f"a partial sum is {partial.dtype} {partial.shape}, not a ring vector")
    for vector in vectors:
        if vector.dtype != partial.dtype or vector.shape != partial.shape:
            raise LayoutMismatchError(
                f"a ring vector is {vector.dtype} {vector.shape}, not {partial.dtype} {partial.shape}"
            )
