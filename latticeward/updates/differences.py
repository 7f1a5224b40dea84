"""How two sets of weights differ, tensor by tensor: what people look at before they trust a new version. Pure.

A tensor is compared with its namesake of the same shape. One that only one side has, or whose shape changed, has no
numbers, and says so instead. Sums are taken in float64: a float32 sum of a million squares loses its last digits.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from latticeward.updates.tensors import FloatVector, TensorLayout, unflatten


class TensorChange(StrEnum):
    """What became of one tensor."""

    SAME = "same"
    CHANGED = "changed"
    RESHAPED = "reshaped"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDifference:
    """One tensor before and after; numbers in the unit of the weights, None where nothing can be compared.

    Attributes:
        before_shape, after_shape: None where that side has no such tensor.
        l2: Euclidean norm of the change.
        largest: largest change of one entry, without its sign.
        relative: l2 divided by the norm before; None where that is zero.
        cosine: of the angle between before and after, -1 to 1; None where one of them is zero.
    """

    name: str
    change: TensorChange
    before_shape: tuple[int, ...] | None
    after_shape: tuple[int, ...] | None
    l2: float | None = None
    largest: float | None = None
    relative: float | None = None
    cosine: float | None = None


def compare_weights(
    before_layout: TensorLayout, before: FloatVector, after_layout: TensorLayout, after: FloatVector
) -> tuple[list[TensorDifference], TensorDifference | None]:
    """Compare two models.

    Args:
        before, after: float32, shape (d,) of their layouts.

    Returns:
        The tensors in the order of the first layout, then those that only the second has; and all of them as one
        tensor called ``all``, or None where the layouts differ.

    Raises:
        LayoutMismatchError: a vector is not of its layout.
    """
    old, new = unflatten(before_layout, before), unflatten(after_layout, after)
    rows = []
    for name in [*old, *(name for name in new if name not in old)]:
        one, other = old.get(name), new.get(name)
        if one is None or other is None or one.shape != other.shape:
            change = (
                TensorChange.ADDED if one is None else TensorChange.REMOVED if other is None else TensorChange.RESHAPED
            )
            rows.append(
                TensorDifference(
                    name=name,
                    change=change,
                    before_shape=None if one is None else one.shape,
                    after_shape=None if other is None else other.shape,
                )
            )
        else:
            rows.append(_compare(name, one, other))
    return rows, _compare("all", before, after) if before_layout == after_layout else None


def _compare(name: str, before: FloatVector, after: FloatVector) -> TensorDifference:
    old, new = before.ravel().astype(np.float64), after.ravel().astype(np.float64)
    change = new - old
    norm_before, norm_after, l2 = (float(np.linalg.norm(vector)) for vector in (old, new, change))
    cosine = None
    if norm_before and norm_after:
        # Rounding can carry the quotient past one.
        cosine = max(-1.0, min(1.0, float(np.dot(old, new)) / (norm_before * norm_after)))
    return TensorDifference(
        name=name,
        change=TensorChange.SAME if before.tobytes() == after.tobytes() else TensorChange.CHANGED,
        before_shape=before.shape,
        after_shape=after.shape,
        l2=l2,
        largest=float(np.abs(change).max()),
        relative=l2 / norm_before if norm_before and math.isfinite(l2 / norm_before) else None,
        cosine=cosine,
    )
