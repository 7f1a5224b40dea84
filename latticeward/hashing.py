"""Hashing what is as large as a model, at the speed of the hash and not of the memory that it lies in.

SHA-256 is one chain: each 64 bytes wait for those before, so the processor sees late which line of memory comes next,
and what fetches ahead by itself stops at the end of a page of 4 KiB. A model that is in no cache takes half as long
again to hash as one that is. Reading is no chain, many lines come at once: so a block is read into the cache and then
hashed. That needs no large pages, which a mapped file would not have anyway (ADR 0035).
"""

from typing import Final, Protocol

# Fits into the second cache of usual servers; more blocks would ask for the interpreter lock more often.
BLOCK_BYTES: Final = 524_288
_LINE_BYTES: Final = 64


class Hash(Protocol):
    """What ``hashlib`` makes."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""


def feed(state: Hash, data: bytes | memoryview) -> None:
    """Give a hash its next bytes, of any length; a memoryview is contiguous and of single bytes."""
    if len(data) <= BLOCK_BYTES:
        state.update(data)
        return
    # Imported here, because processes that never hash anything large need not load it.
    import numpy as np

    view, lines = memoryview(data), np.frombuffer(data, np.uint8)
    for start in range(0, len(view), BLOCK_BYTES):
        stop = start + BLOCK_BYTES
        np.bitwise_or.reduce(lines[start:stop:_LINE_BYTES])
        state.update(view[start:stop])
