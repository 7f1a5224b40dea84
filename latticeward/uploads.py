"""How a large submission is cut into chunks: the arithmetic that both ends must share.

Chunk i begins at byte i · ``CHUNK_BYTES`` and has that length, the last one what is left. With one size for all there
is nothing to negotiate, two chunks cannot overlap, and a number names the same bytes at both ends.
"""

from typing import Final

from latticeward.errors import MalformedMessageError

CHUNK_BYTES: Final = 1024 * 1024


def chunk_count(size_bytes: int) -> int:
    """Chunks of a whole of ``size_bytes`` >= 1."""
    return -(-size_bytes // CHUNK_BYTES)


def chunk_length(number: int, size_bytes: int) -> int:
    """Bytes of chunk ``number``, counted from 0, of a whole of ``size_bytes``."""
    return min(CHUNK_BYTES, size_bytes - number * CHUNK_BYTES)


def chunk_number(offset: int, size_bytes: int) -> int:
    """Which chunk begins at byte ``offset`` of a whole of ``size_bytes``.

    Raises:
        MalformedMessageError: none does.
    """
    number, rest = divmod(offset, CHUNK_BYTES)
    if rest or not 0 <= offset < size_bytes:
        raise MalformedMessageError(f"no chunk of {size_bytes} bytes begins at {offset}")
    return number
