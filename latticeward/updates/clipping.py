"""Bounding how much one hospital's update can say: L2 clipping, the premise of both the ring and of privacy.

``ClippedUpdate`` comes from ``clip_update`` only, so holding one is the proof that its norm is bounded.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from latticeward.errors import IncompatiblePlanError, LayoutMismatchError, NonFiniteUpdateError
from latticeward.updates.tensors import FloatVector

_BLOCK: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUpdate:
    """What local training made: trained minus base weights.

    Attributes:
        vector: float32, shape (d,).
        weight: training examples behind it, >= 0, not yet capped.
    """

    vector: FloatVector
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedUpdate:
    """An update whose L2 norm is at most C, up to the rounding of float32.

    Attributes:
        vector: float32, shape (d,).
        weight: examples, finite and >= 0.
        factor: what the update was multiplied by, in (0, 1].
        was_clipped: whether the factor was below 1.
    """

    vector: FloatVector
    weight: float
    factor: float
    was_clipped: bool


def l2_norm(vector: FloatVector) -> float:
    """The L2 norm in double precision.

    Squares of float32 fit float64, so it is infinite or NaN exactly if an entry is.
    """
    total = 0.0
    for start in range(0, vector.size, _BLOCK):
        block = vector[start : start + _BLOCK].astype(np.float64)
        total += float(block @ block)
    return math.sqrt(total)


def clip_update(update: ModelUpdate, *, clip_norm: float) -> ClippedUpdate:
    """Scale an update so that its L2 norm is at most ``clip_norm``.

    Args:
        update: float32 vector, shape (d,), and its weight in examples.
        clip_norm: C > 0, in the unit of the weights.

    Returns:
        The same direction, norm <= C. A zero update stays zero.

    Raises:
        NonFiniteUpdateError: an entry or the weight is NaN or infinite.
        LayoutMismatchError: not a float32 vector, or a negative weight.
        IncompatiblePlanError: C is not a positive number.
    """
    if not (math.isfinite(clip_norm) and clip_norm > 0):
        raise IncompatiblePlanError("the clip norm must be a positive number")
    if update.vector.dtype != np.float32 or update.vector.ndim != 1:
        raise LayoutMismatchError(f"an update is {update.vector.dtype} {update.vector.shape}, not a float32 vector")
    norm = l2_norm(update.vector)
    if not math.isfinite(norm) or not math.isfinite(update.weight):
        raise NonFiniteUpdateError("the update or its weight is not finite")
    if update.weight < 0:
        raise LayoutMismatchError("an update cannot stand for fewer than no examples")
    if norm <= clip_norm:
        return ClippedUpdate(vector=update.vector, weight=update.weight, factor=1.0, was_clipped=False)
    factor = clip_norm / norm
    # The factor alone can underflow float32 for a huge norm; the products are taken in double precision.
    vector = (update.vector * np.float64(factor)).astype(np.float32)
    return ClippedUpdate(vector=vector, weight=update.weight, factor=factor, was_clipped=True)
