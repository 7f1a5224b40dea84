"""Every cut is a partition: the chunks cover the whole, in order, and no two share a byte."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latticeward.errors import MalformedMessageError
from latticeward.uploads import CHUNK_BYTES, chunk_count, chunk_length, chunk_number

SIZES = st.integers(1, 40 * CHUNK_BYTES)


@given(SIZES)
@example(1)
@example(CHUNK_BYTES)
@example(CHUNK_BYTES + 1)
def test_the_chunks_cover_the_whole_without_overlap(size: int) -> None:
    lengths = [chunk_length(number, size) for number in range(chunk_count(size))]
    assert sum(lengths) == size
    assert set(lengths[:-1]) <= {CHUNK_BYTES}
    assert 1 <= lengths[-1] <= CHUNK_BYTES
    assert [chunk_number(number * CHUNK_BYTES, size) for number in range(len(lengths))] == list(range(len(lengths)))


@given(SIZES, st.integers(-CHUNK_BYTES, 41 * CHUNK_BYTES))
def test_only_a_chunks_first_byte_begins_a_chunk(size: int, offset: int) -> None:
    if offset % CHUNK_BYTES == 0 and 0 <= offset < size:
        assert chunk_number(offset, size) == offset // CHUNK_BYTES
        return
    with pytest.raises(MalformedMessageError):
        chunk_number(offset, size)
