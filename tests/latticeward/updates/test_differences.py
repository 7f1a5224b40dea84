"""Two versions side by side: every tensor is accounted for, and the numbers are those of plain arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from latticeward.errors import LayoutMismatchError
from latticeward.updates.differences import TensorChange, compare_weights
from latticeward.updates.tensors import FloatVector, TensorLayout, TensorSpec

LAYOUT = TensorLayout((TensorSpec("weight", (2, 2)), TensorSpec("bias", (2,))))


def vector(*numbers: float) -> FloatVector:
    return np.array(numbers, dtype=np.float32)


def test_a_changed_tensor_has_its_norm_its_largest_entry_and_its_angle() -> None:
    rows, total = compare_weights(LAYOUT, vector(3, 4, 0, 0, 1, 0), LAYOUT, vector(3, 4, 0, 5, 0, -1))
    weight, bias = rows
    assert (weight.change, weight.l2, weight.largest, weight.relative) == (TensorChange.CHANGED, 5.0, 5.0, 1.0)
    assert weight.cosine == pytest.approx(25 / (5 * np.sqrt(50)))
    assert bias.cosine == 0.0 and bias.l2 == pytest.approx(np.sqrt(2))
    assert total is not None and total.l2 == pytest.approx(np.sqrt(27))


def test_zero_weights_have_no_relative_change_and_no_angle() -> None:
    rows, _ = compare_weights(LAYOUT, np.zeros(6, np.float32), LAYOUT, vector(1, 0, 0, 0, 0, 0))
    assert (rows[0].relative, rows[0].cosine, rows[0].l2) == (None, None, 1.0)
    assert rows[1].change == TensorChange.SAME


def test_other_layouts_are_told_tensor_by_tensor() -> None:
    other = TensorLayout((TensorSpec("weight", (2, 3)), TensorSpec("scale", (1,))))
    rows, total = compare_weights(LAYOUT, np.ones(6, np.float32), other, np.ones(7, np.float32))
    found = [(row.name, row.change, row.before_shape, row.after_shape) for row in rows]
    assert found == [
        ("weight", TensorChange.RESHAPED, (2, 2), (2, 3)),
        ("bias", TensorChange.REMOVED, (2,), None),
        ("scale", TensorChange.ADDED, None, (1,)),
    ]
    assert total is None and all(row.l2 is None for row in rows)


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(LayoutMismatchError):
        compare_weights(LAYOUT, np.ones(6, np.float32), LAYOUT, np.ones(5, np.float32))


numbers = st.floats(-1e3, 1e3, width=32)


@given(before=arrays(np.float32, 6, elements=numbers), after=arrays(np.float32, 6, elements=numbers))
def test_the_change_is_the_same_both_ways_and_the_angle_is_one(before: FloatVector, after: FloatVector) -> None:
    there, _ = compare_weights(LAYOUT, before, LAYOUT, after)
    back, _ = compare_weights(LAYOUT, after, LAYOUT, before)
    for one, other in zip(there, back, strict=True):
        assert (one.l2, one.largest, one.cosine) == (other.l2, other.largest, other.cosine)
        assert one.cosine is None or -1 <= one.cosine <= 1
    assert all(row.change == TensorChange.SAME for row in compare_weights(LAYOUT, before, LAYOUT, before)[0])
