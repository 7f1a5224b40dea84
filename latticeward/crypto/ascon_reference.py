"""Ascon-AEAD128 as NIST SP 800-232 writes it, in plain Python: the yardstick of the other two forms.

It also serves short messages where there is no compiler, at about 1 MB/s. Python's integers take a time that depends
on their size, so of the three forms this is the one that does not promise constant time.
"""

import hmac
from typing import Final

from latticeward.crypto.ascon_core import CHUNK_BYTES, SEALED_CHUNK_BYTES, TAG_BYTES, Buffer, chunk_nonce
from latticeward.errors import DecryptionError

IV: Final = 0x00001000808C0001
DOMAIN: Final = 0x8000000000000000
ROUND_CONSTANTS: Final = tuple(0xF0 - 0x0F * i for i in range(12))
BLOCK_BYTES: Final = 16
_MASK: Final = 0xFFFFFFFFFFFFFFFF


class ReferenceCore:
    """All of Ascon-AEAD128 in plain Python; see ``ascon_core.Core`` for the methods' contract."""

    name = "plain python"
    compiled = False

    def seal(self, *, key: bytes, nonce: bytes, associated_data: bytes, plaintext: Buffer) -> bytes:
        state = _start(key, nonce, associated_data)
        blocks = bytearray()
        whole, rest = _split(plaintext)
        for first, second in whole:
            state[0] ^= first
            state[1] ^= second
            blocks += _block(state[0], state[1])
            _permute(state, 4)
        _absorb_padded(state, rest)
        blocks += _block(state[0], state[1])[: len(rest)]
        # The bit that pads the last block was absorbed with it, after the bytes that go out.
        return bytes(blocks) + _finish(state, key)

    def open(self, *, key: bytes, nonce: bytes, associated_data: bytes, sealed: Buffer) -> bytes:
        state = _start(key, nonce, associated_data)
        sealed = bytes(sealed)
        blocks = bytearray()
        whole, rest = _split(sealed[:-TAG_BYTES])
        for first, second in whole:
            blocks += _block(state[0] ^ first, state[1] ^ second)
            state[0], state[1] = first, second
            _permute(state, 4)
        opened = bytes(a ^ b for a, b in zip(rest, _block(state[0], state[1]), strict=False))
        _absorb_padded(state, opened)
        if not hmac.compare_digest(_finish(state, key), sealed[-TAG_BYTES:]):
            raise DecryptionError("ascon tag")
        return bytes(blocks) + opened

    def seal_chunks(
        self, *, key: bytes, nonce: bytes, first_index: int, plaintext: memoryview, target: memoryview
    ) -> None:
        for i in range(len(plaintext) // CHUNK_BYTES):
            target[i * SEALED_CHUNK_BYTES : (i + 1) * SEALED_CHUNK_BYTES] = self.seal(
                key=key,
                nonce=chunk_nonce(nonce, first_index + i, last=False),
                associated_data=b"",
                plaintext=plaintext[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES],
            )

    def open_chunks(
        self, *, key: bytes, nonce: bytes, first_index: int, sealed: memoryview, target: memoryview
    ) -> None:
        opened = [
            self.open(
                key=key,
                nonce=chunk_nonce(nonce, first_index + i, last=False),
                associated_data=b"",
                sealed=sealed[i * SEALED_CHUNK_BYTES : (i + 1) * SEALED_CHUNK_BYTES],
            )
            for i in range(len(sealed) // SEALED_CHUNK_BYTES)
        ]
        target[:] = b"".join(opened)


def _split(message: Buffer) -> tuple[list[tuple[int, int]], bytes]:
    """Whole blocks as pairs of words, and the bytes after them (0 to 15)."""
    message = bytes(message)
    end = len(message) - len(message) % BLOCK_BYTES
    return [_words(message[at : at + BLOCK_BYTES]) for at in range(0, end, BLOCK_BYTES)], message[end:]


def _words(block: bytes) -> tuple[int, int]:
    return int.from_bytes(block[:8], "little"), int.from_bytes(block[8:], "little")


def _block(first: int, second: int) -> bytes:
    return first.to_bytes(8, "little") + second.to_bytes(8, "little")


def _absorb_padded(state: list[int], rest: bytes) -> None:
    first, second = _words(rest + b"\x01" + bytes(BLOCK_BYTES - 1 - len(rest)))
    state[0] ^= first
    state[1] ^= second


def _start(key: bytes, nonce: bytes, associated_data: bytes) -> list[int]:
    k0, k1 = _words(key)
    state = [IV, k0, k1, *_words(nonce)]
    _permute(state, 0)
    state[3] ^= k0
    state[4] ^= k1
    if associated_data:
        whole, rest = _split(associated_data)
        for first, second in whole:
            state[0] ^= first
            state[1] ^= second
            _permute(state, 4)
        _absorb_padded(state, rest)
        _permute(state, 4)
    state[4] ^= DOMAIN
    return state


def _finish(state: list[int], key: bytes) -> bytes:
    k0, k1 = _words(key)
    state[2] ^= k0
    state[3] ^= k1
    _permute(state, 0)
    return _block(state[3] ^ k0, state[4] ^ k1)


def _permute(state: list[int], first_round: int) -> None:
    x0, x1, x2, x3, x4 = state
    for constant in ROUND_CONSTANTS[first_round:]:
        x2 ^= constant
        x0 ^= x4
        x4 ^= x3
        x2 ^= x1
        t0 = x0 ^ (~x1 & x2)
        t1 = x1 ^ (~x2 & x3)
        t2 = x2 ^ (~x3 & x4)
        t3 = x3 ^ (~x4 & x0)
        t4 = x4 ^ (~x0 & x1)
        t1 ^= t0
        t0 ^= t4
        t3 ^= t2
        t2 ^= _MASK
        x0 = t0 ^ _rotate(t0, 19) ^ _rotate(t0, 28)
        x1 = t1 ^ _rotate(t1, 61) ^ _rotate(t1, 39)
        x2 = t2 ^ _rotate(t2, 1) ^ _rotate(t2, 6)
        x3 = t3 ^ _rotate(t3, 10) ^ _rotate(t3, 17)
        x4 = t4 ^ _rotate(t4, 7) ^ _rotate(t4, 41)
    state[:] = x0, x1, x2, x3, x4


def _rotate(word: int, bits: int) -> int:
    return (word >> bits) | (word << (64 - bits)) & _MASK
