"""The layout of a model, and version 0 of it."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticeward.errors import (
    IncompatiblePlanError,
    LayoutMismatchError,
    MalformedMessageError,
    NonFiniteUpdateError,
)
from latticeward.updates.tensors import (
    TensorLayout,
    TensorSpec,
    flatten,
    initial_vector,
    unflatten,
    vector_from_bytes,
    vector_to_bytes,
    weights_digest,
)

LAYOUT = TensorLayout((TensorSpec("w", (3, 4)), TensorSpec("b", (4,)), TensorSpec("s", ())))


def test_layout_survives_the_wire() -> None:
    assert LAYOUT.size == 17
    assert TensorLayout.from_wire(LAYOUT.to_wire()) == LAYOUT


@pytest.mark.parametrize(
    "wire",
    [
        [],
        [{"name": "w", "shape": [2], "dtype": "float64"}],
        [{"name": "", "shape": [2], "dtype": "float32"}],
        [{"name": "w", "shape": [0], "dtype": "float32"}],
        [{"name": "w", "shape": [True], "dtype": "float32"}],
        [{"name": "w", "shape": ["2"], "dtype": "float32"}],
        [{"name": "w", "shape": [2**28, 2], "dtype": "float32"}],
        [{"name": "w", "shape": [1] * 9, "dtype": "float32"}],
        [{"name": "w", "shape": [2], "dtype": "float32"}] * 2,
        [{"name": "w", "shape": [2], "dtype": "float32", "order": "C"}],
        [{"name": "w", "shape": [2]}],
        ["w"],
    ],
)
def test_refuses_a_layout_that_is_not_one(wire: list[object]) -> None:
    with pytest.raises(MalformedMessageError):
        TensorLayout.from_wire(wire)


@given(st.integers(0, 2**32 - 1))
def test_flatten_and_unflatten_are_inverse(seed: int) -> None:
    vector = np.random.default_rng(seed).standard_normal(LAYOUT.size).astype(np.float32)
    tensors = unflatten(LAYOUT, vector)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"w": (3, 4), "b": (4,), "s": ()}
    assert np.array_equal(flatten(LAYOUT, tensors), vector)


def test_flatten_refuses_other_names_shapes_and_dtypes() -> None:
    good = unflatten(LAYOUT, np.zeros(17, np.float32))
    bads: tuple[dict[str, Any], ...] = (
        {**good, "extra": np.zeros(1, np.float32)},
        {**good, "b": np.zeros(5, np.float32)},
        {**good, "b": np.zeros(4, np.float64)},
    )
    for bad in bads:
        with pytest.raises(LayoutMismatchError):
            flatten(LAYOUT, bad)
    with pytest.raises(LayoutMismatchError):
        unflatten(LAYOUT, np.zeros(16, np.float32))
    with pytest.raises(LayoutMismatchError):
        unflatten(LAYOUT, np.zeros(17))  # type: ignore[arg-type]


def test_initial_vectors_are_the_same_everywhere() -> None:
    assert not initial_vector(LAYOUT, {"kind": "zeros"}).any()
    vector = initial_vector(LAYOUT, {"kind": "glorot", "seed": 7})
    tensors = unflatten(LAYOUT, vector)
    assert np.abs(tensors["w"]).max() <= np.sqrt(6 / 7)
    assert np.unique(tensors["w"]).size == 12
    assert not tensors["b"].any() and not tensors["s"].any()
    # Pinned bits: hospitals on other processors or other NumPy versions must compute this very model.
    assert hashlib.sha256(vector_to_bytes(vector)).hexdigest() == (
        "c3ed22847cfbf0f50244eab01b0db0f1a78bd0690f9b7037e17c21407185f5fb"
    )


@pytest.mark.parametrize(
    "initial",
    [{}, {"kind": "ones"}, {"kind": "zeros", "seed": 1}, {"kind": "glorot"}, {"kind": "glorot", "seed": -1}],
)
def test_refuses_an_unknown_start(initial: dict[str, int | str]) -> None:
    with pytest.raises(IncompatiblePlanError):
        initial_vector(LAYOUT, initial)


def test_weights_travel_as_little_endian_singles() -> None:
    vector = np.array([1.0, -2.5], np.float32)
    raw = vector_to_bytes(vector)
    assert raw == bytes.fromhex("0000803f000020c0")
    assert np.array_equal(vector_from_bytes(raw, size=2), vector)
    with pytest.raises(LayoutMismatchError):
        vector_from_bytes(raw, size=3)
    with pytest.raises(NonFiniteUpdateError):
        vector_from_bytes(np.array([np.nan], "<f4").tobytes(), size=1)


def test_digest_sees_every_bit() -> None:
    vector = np.zeros(4, np.float32)
    before = weights_digest(vector)
    assert len(before) == 32 and before == weights_digest(vector.copy())
    vector[3] = np.nextafter(np.float32(0), np.float32(1))
    assert weights_digest(vector) != before
