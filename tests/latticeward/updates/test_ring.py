"""Sums of ring vectors, in any order, grouping and tree, and their extent: exact in both forms, wherever they lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latticeward.errors import LayoutMismatchError
from latticeward.updates import ring
from latticeward.updates.ring import (
    Extent,
    RingVector,
    accumulate,
    add_by_numpy,
    as_signed,
    extent_by_numpy,
    extent_of,
    subtract,
)

SIZE = 9_001  # longer than what goes to the compiled form, and no multiple of anything


def compiled() -> ring._Compiled:
    if (forms := ring._compiled()) is None:
        pytest.skip("the ring kernel is not built here")
    return forms


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
        compiled().add(first, vectors)
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


def exact_extent(vector: RingVector) -> Extent:
    coordinates = as_signed(vector).tolist()
    squares = sum(value * value for value in coordinates)
    return Extent(least=min(coordinates), greatest=max(coordinates), squares=squares)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([np.uint32, np.uint64]),
    size=st.sampled_from([1, 2, 127, 128, 383, 384, 385, 768, SIZE, 16_384, 20_011]),
    bits=st.integers(1, 64),
)
def test_the_extent_is_that_of_whole_numbers_in_both_forms(seed: int, dtype: type, size: int, bits: int) -> None:
    vector = vectors_of(np.random.default_rng(seed), 1, dtype, size)[0]
    vector = (as_signed(vector) >> max(0, 8 * vector.itemsize - bits)).view(dtype)  # both signs, of so many bits
    assert extent_by_numpy(vector) == exact_extent(vector)
    assert compiled().extent(vector) == exact_extent(vector)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_the_extent_of_the_furthest_coordinates_does_not_wrap_around(dtype: type) -> None:
    lowest = 1 << 8 * np.dtype(dtype).itemsize - 1
    for size in (1, 300, SIZE):
        for value in (lowest, lowest - 1, 0):
            vector = np.full(size, value, dtype)
            for extent in (extent_by_numpy, compiled().extent):
                assert extent(vector) == exact_extent(vector)


def test_the_extent_is_found_where_a_vector_lies_at_odd_addresses_and_with_gaps() -> None:
    rng = np.random.default_rng(5)
    odd = np.frombuffer(rng.bytes(4 * SIZE + 3), np.uint32, SIZE, offset=3)
    gaps = vectors_of(rng, 1, np.uint32, 2 * SIZE)[0][::2]
    for vector in (odd, gaps):
        assert extent_of(vector) == exact_extent(vector)


def test_nothing_and_other_numbers_have_no_extent() -> None:
    for stranger in (np.zeros(0, np.uint32), np.zeros(4, np.int32), np.zeros((2, 2), np.uint32)):
        with pytest.raises(LayoutMismatchError):
            extent_of(stranger)
