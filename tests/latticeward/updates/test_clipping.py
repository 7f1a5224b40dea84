"""Clipping bounds the norm, keeps the direction, and lets nothing through that is not a number."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from latticeward.errors import IncompatiblePlanError, LayoutMismatchError, NonFiniteUpdateError
from latticeward.updates.clipping import ModelUpdate, clip_update, l2_norm


def _update(values: list[float], weight: float = 1.0) -> ModelUpdate:
    return ModelUpdate(vector=np.array(values, np.float32), weight=weight)


@given(
    arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    st.floats(1e-3, 1e6),
)
def test_norm_is_bounded_and_direction_kept(vector: np.ndarray, clip_norm: float) -> None:
    clipped = clip_update(ModelUpdate(vector=vector, weight=3.0), clip_norm=clip_norm)
    assert l2_norm(clipped.vector) <= clip_norm * (1 + 1e-6)
    assert clipped.weight == 3.0
    assert clipped.was_clipped == (l2_norm(vector) > clip_norm)
    assert np.all((clipped.vector == 0) | (np.sign(clipped.vector) == np.sign(vector)))
    np.testing.assert_allclose(clipped.vector, vector * np.float64(clipped.factor), rtol=1e-6, atol=1e-37)


def test_zero_stays_zero_and_small_stays_itself() -> None:
    assert not clip_update(_update([0.0, 0.0]), clip_norm=1.0).vector.any()
    small = clip_update(_update([0.3, 0.4]), clip_norm=1.0)
    assert not small.was_clipped and small.factor == 1.0


def test_norm_is_taken_over_all_blocks() -> None:
    assert math.isclose(l2_norm(np.ones(200_000, np.float32)), math.sqrt(200_000))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(NonFiniteUpdateError):
        clip_update(_update([0.0, value]), clip_norm=1.0)
    with pytest.raises(NonFiniteUpdateError):
        clip_update(_update([0.0], weight=value), clip_norm=1.0)


def test_refuses_other_forms() -> None:
    with pytest.raises(LayoutMismatchError):
        clip_update(ModelUpdate(vector=np.zeros(2), weight=1.0), clip_norm=1.0)  # type: ignore[arg-type]
    with pytest.raises(LayoutMismatchError):
        clip_update(ModelUpdate(vector=np.zeros((2, 2), np.float32), weight=1.0), clip_norm=1.0)
    with pytest.raises(LayoutMismatchError):
        clip_update(_update([0.0], weight=-1.0), clip_norm=1.0)
    for clip_norm in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(IncompatiblePlanError):
            clip_update(_update([0.0]), clip_norm=clip_norm)
