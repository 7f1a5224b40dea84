"""Ascon-AEAD128 where there is no compiler: NumPy, with every 16 KiB chunk of a message as a lane.

A NumPy call costs half a microsecond however little it works on, so the permutation is written to need few calls: the
five words of all lanes lie in one block of memory, and whatever happens to all five is one call. Rows 5 and 6 repeat
rows 0 and 1, so that the substitution's "next word" and "next but one" are plain slices. Few lanes do not pay for the
calls; short messages and a message's last chunk go through ``ascon_reference.py``.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from latticeward.crypto.ascon_core import CHUNK_BYTES, SEALED_CHUNK_BYTES
from latticeward.crypto.ascon_reference import BLOCK_BYTES, DOMAIN, IV, ROUND_CONSTANTS, ReferenceCore
from latticeward.errors import DecryptionError

Words = NDArray[np.uint64]

# Below this many chunks plain Python is quicker than the calls.
_FEWEST_LANES: Final = 6
# Beyond this many the words of all lanes no longer stay in a core's cache.
_MOST_LANES: Final = 1024
# So many blocks of every lane are turned from chunk order into lane order at a time: one cache line of each chunk.
_TILE_BLOCKS: Final = 4
_CHUNK_BLOCKS: Final = CHUNK_BYTES // BLOCK_BYTES
_ROTATIONS: Final = (
    np.array([19, 61, 1, 10, 7], dtype=np.uint64),
    np.array([28, 39, 6, 17, 41], dtype=np.uint64),
)
_ALL_ONES: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_INVERTED_CONSTANTS: Final = tuple(np.uint64(constant) ^ _ALL_ONES for constant in ROUND_CONSTANTS)


class NumpyCore(ReferenceCore):
    """Batches of chunks in NumPy; single messages as the reference does them."""

    name = "numpy lanes"

    def seal_chunks(
        self, *, key: bytes, nonce: bytes, first_index: int, plaintext: memoryview, target: memoryview
    ) -> None:
        count = len(plaintext) // CHUNK_BYTES
        if count < _FEWEST_LANES:
            super().seal_chunks(key=key, nonce=nonce, first_index=first_index, plaintext=plaintext, target=target)
            return
        source, sealed = _as_words(plaintext, CHUNK_BYTES), _as_words(target, SEALED_CHUNK_BYTES)
        for at in range(0, count, _MOST_LANES):
            lanes = _Lanes(key, nonce, first_index + at, min(_MOST_LANES, count - at))
            lanes.seal(source[at : at + _MOST_LANES], sealed[at : at + _MOST_LANES])

    def open_chunks(
        self, *, key: bytes, nonce: bytes, first_index: int, sealed: memoryview, target: memoryview
    ) -> None:
        count = len(sealed) // SEALED_CHUNK_BYTES
        if count < _FEWEST_LANES:
            super().open_chunks(key=key, nonce=nonce, first_index=first_index, sealed=sealed, target=target)
            return
        source, opened = _as_words(sealed, SEALED_CHUNK_BYTES), _as_words(target, CHUNK_BYTES)
        difference = np.uint64(0)
        for at in range(0, count, _MOST_LANES):
            lanes = _Lanes(key, nonce, first_index + at, min(_MOST_LANES, count - at))
            difference |= lanes.open(source[at : at + _MOST_LANES], opened[at : at + _MOST_LANES])
        if difference != 0:
            opened[:] = 0
            raise DecryptionError("ascon tag")


def _as_words(buffer: memoryview, chunk_bytes: int) -> Words:
    """The buffer as (chunks, blocks of a chunk, 2) little-endian words; writes go through."""
    return np.frombuffer(buffer, dtype="<u8").reshape(-1, chunk_bytes // BLOCK_BYTES, 2)


class _Lanes:
    """The states of many chunks side by side, and the scratch memory that the permutation works in."""

    def __init__(self, key: bytes, nonce: bytes, first_index: int, count: int) -> None:
        self._key = [np.uint64(word) for word in np.frombuffer(key, dtype="<u8")]
        self._extended = np.empty((7, count), dtype=np.uint64)
        self._rows = list(self._extended)
        self._words = self._extended[:5]
        self._scratch = np.empty((2, 5, count), dtype=np.uint64)
        # Spread over all lanes: a call on equal shapes takes half the time of one that has to repeat a column.
        self._shifts = [
            tuple(np.repeat(bits[:, None], count, axis=1) for bits in (rotation, np.uint64(64) - rotation))
            for rotation in _ROTATIONS
        ]
        self._tile = np.empty((_TILE_BLOCKS, 2, count), dtype=np.uint64)
        self._opened = np.empty_like(self._tile)
        self._start(nonce, first_index, count)

    def seal(self, source: Words, sealed: Words) -> None:
        """Source (n, 1024, 2) into sealed (n, 1025, 2): the last block of a sealed chunk is its tag."""
        rate = self._extended[:2]
        for at in range(0, _CHUNK_BLOCKS, _TILE_BLOCKS):
            self._tile[:] = source[:, at : at + _TILE_BLOCKS].transpose(1, 2, 0)
            for block in self._tile:
                rate ^= block
                block[:] = rate
                self._permute(4)
            sealed[:, at : at + _TILE_BLOCKS] = self._tile.transpose(2, 0, 1)
        sealed[:, _CHUNK_BLOCKS] = self._finish().T

    def open(self, sealed: Words, opened: Words) -> np.uint64:
        """The reverse; zero when every tag is right."""
        rate = self._extended[:2]
        for at in range(0, _CHUNK_BLOCKS, _TILE_BLOCKS):
            self._tile[:] = sealed[:, at : at + _TILE_BLOCKS].transpose(1, 2, 0)
            for block, plain in zip(self._tile, self._opened, strict=True):
                np.bitwise_xor(rate, block, out=plain)
                rate[:] = block
                self._permute(4)
            opened[:, at : at + _TILE_BLOCKS] = self._opened.transpose(2, 0, 1)
        difference = self._finish() ^ sealed[:, _CHUNK_BLOCKS].T
        return np.uint64(np.bitwise_or.reduce(difference, axis=None))

    def _start(self, nonce: bytes, first_index: int, count: int) -> None:
        x0, x1, x2, x3, x4 = self._rows[:5]
        first, last = np.frombuffer(nonce, dtype="<u8")
        x0[:] = IV
        x1[:], x2[:] = self._key
        x3[:] = first
        # The index stands most significant byte first at the end of the nonce, which is read the other way round.
        x4[:] = np.arange(first_index, first_index + count, dtype=">u8").view("<u8") ^ last
        self._permute(0)
        x3 ^= self._key[0]
        x4 ^= self._key[1] ^ np.uint64(DOMAIN)

    def _finish(self) -> Words:
        """The tags, shape (2, n). A chunk fills its blocks, so its padding block holds one bit only."""
        x0, _, x2, x3, x4 = self._rows[:5]
        x0 ^= np.uint64(1)
        x2 ^= self._key[0]
        x3 ^= self._key[1]
        self._permute(0)
        x3 ^= self._key[0]
        x4 ^= self._key[1]
        return self._extended[3:5]

    def _permute(self, first_round: int) -> None:
        x0, x1, x2, x3, x4, again0, again1 = self._rows
        words, extended = self._words, self._extended
        mixed, shifted = self._scratch
        (right0, left0), (right1, left1) = self._shifts
        right_shift, left_shift = np.right_shift, np.left_shift
        x2 ^= _ALL_ONES
        for constant in _INVERTED_CONSTANTS[first_round:]:
            # The complement that ends one round's substitution and the constant that begins the next are one step:
            # the linear layer between them lets a complement through.
            x2 ^= constant
            x0 ^= x4
            x4 ^= x3
            x2 ^= x1
            again0[:] = x0
            again1[:] = x1
            np.invert(extended[1:6], out=mixed)
            mixed &= extended[2:7]
            words ^= mixed
            x1 ^= x0
            x0 ^= x4
            x3 ^= x2
            right_shift(words, right0, out=mixed)
            left_shift(words, left0, out=shifted)
            mixed ^= shifted
            left_shift(words, left1, out=shifted)
            mixed ^= shifted
            right_shift(words, right1, out=shifted)
            mixed ^= shifted
            words ^= mixed
        x2 ^= _ALL_ONES
