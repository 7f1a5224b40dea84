"""Sums of ring vectors: exact in any order, grouping and tree, in both forms, wherever the vectors lie in memory."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latticeward.errors import LayoutMismatchError
from latticeward.updates import ring
from latticeward.updates.ring import RingVector, accumulate, add_by_numpy, subtract

SIZE = 9_001  # longer than what goes to the compiled form, and no multiple of anything


def compiled() -> Callable[..., None]:
    if (add := ring._compiled()) is None:
        pytest.skip("the ring kernel is not built here")
    return add


def vectors_of(rng: np.random.Generator, count: int, dtype: type, size: int = SIZE) -> list[RingVector]:
    return [rng.integers(0, np.iinfo(dtype).max, size, dtype, endpoint=True) for _ in range(count)]


def total_of(vectors: list[RingVector]) -> RingVector:
    total = np.zeros_like(vectors[0])
    accumulate(total, *vectors)
    return total


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), dtype=st.sampled_from([np.uint32, np.uint64]), data=st.data())
def test_any_order_grouping_and_merge_tree_gives_the_same_bits(seed: int, dtype: type, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    vectors = vectors_of(rng, data.draw(st.integers(1, 24)), dtype)
    expected = np.sum(vectors, axis=0, dtype=dtype)
    # Micro-batches of any size into any of a few slots, then a tree of any fan-in over the slots' partials.
    order = data.draw(st.permutations(range(len(vectors))))
    partials = [np.zeros(SIZE, dtype) for _ in range(data.draw(st.integers(1, 6)))]
    while order:
        taken = data.draw(st.integers(1, len(order)))
        batch, order = order[:taken], order[taken:]
        accumulate(partials[data.draw(st.integers(0, len(partials) - 1))], *(vectors[index] for index in batch))
    fan_in = data.draw(st.integers(2, 5))
    while len(partials) > 1:
        partials = [total_of(partials[start : start + fan_in]) for start in range(0, len(partials), fan_in)]
    assert np.array_equal(partials[0], expected)
    subtract(partials[0], vectors[0])
    assert np.array_equal(partials[0], expected - vectors[0])


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("count", range(10))
def test_the_compiled_form_gives_the_bits_of_numpys(dtype: type, count: int) -> None:
    rng = np.random.default_rng(count)
    for size in (0, 1, 15, 64, 255, SIZE, 70_003):
        vectors = vectors_of(rng, count, dtype, size)
        first, second = vectors_of(rng, 2, dtype, size)
        second[:] = first
        compiled()(first, vectors)
        add_by_numpy(second, vectors)
        assert np.array_equal(first, second)


def test_vectors_are_added_where_they_lie_at_odd_addresses_and_with_gaps() -> None:
    rng = np.random.default_rng(3)
    raw = rng.bytes(4 * SIZE + 3)
    odd = np.frombuffer(raw, np.uint32, SIZE, offset=3)
    gaps = vectors_of(rng, 1, np.uint32, 2 * SIZE)[0][::2]
    total = total_of([odd, gaps])
    assert np.array_equal(total, np.frombuffer(raw[3:], np.uint32) + gaps)


def test_a_sum_may_be_added_to_itself() -> None:
    vector = vectors_of(np.random.default_rng(4), 1, np.uint32)[0]
    doubled = vector * np.uint32(2)
    accumulate(vector, vector)
    assert np.array_equal(vector, doubled)


def test_nothing_is_added_when_one_vector_does_not_fit() -> None:
    total = np.zeros(SIZE, np.uint32)
    ones = np.ones(SIZE, np.uint32)
    for stranger in (np.ones(SIZE - 1, np.uint32), np.ones(SIZE, np.uint64), np.ones(SIZE, np.int32)):
        with pytest.raises(LayoutMismatchError):
            accumulate(total, ones, stranger)
    assert not total.any()
