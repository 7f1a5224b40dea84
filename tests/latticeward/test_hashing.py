"""Hashing a block at a time gives the digest of the whole, of any length, wherever the bytes lie."""

import hashlib
import os

import pytest

from latticeward.hashing import BLOCK_BYTES, feed


@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
@pytest.mark.parametrize("more", [-1, 0, 1, 63, 64, 65])
def test_the_digest_is_that_of_all_bytes_in_order(blocks: int, more: int) -> None:
    data = os.urandom(max(0, blocks * BLOCK_BYTES + more))
    for view in (data, memoryview(data), memoryview(b"x" + data)[1:], memoryview(bytearray(data))):
        state = hashlib.sha256(b"before")
        feed(state, view)
        assert state.digest() == hashlib.sha256(b"before" + data).digest()
