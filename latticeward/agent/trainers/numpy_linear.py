"""Logistic regression by mini-batch gradient descent, in NumPy alone.

Layout: ``weight`` (features,) and ``bias`` (1,). Arithmetic is float64 within a round; only what leaves is
float32.
"""

import numpy as np
from numpy.typing import NDArray

from latticeward.agent.jobs.job import SiteData
from latticeward.agent.trainers.trainer import TrainerSettings, batches
from latticeward.errors import LayoutMismatchError
from latticeward.updates.tensors import FloatVector, TensorLayout, check_vector


class NumpyLinear:
    """A ``Trainer`` (see there) for one linear layer and a sigmoid."""

    def __init__(self, layout: TensorLayout) -> None:
        shapes = {spec.name: spec.shape for spec in layout.tensors}
        if list(shapes) != ["weight", "bias"] or len(shapes["weight"]) != 1 or shapes["bias"] != (1,):
            raise LayoutMismatchError("a linear model has a weight vector and one bias")
        self._size = layout.size

    def train(
        self, vector: FloatVector, data: SiteData, settings: TrainerSettings, rng: np.random.Generator
    ) -> tuple[FloatVector, int]:
        """``settings.epochs`` passes of gradient descent on the mean log loss."""
        self._check(vector, data.train_x)
        base = vector.astype(np.float64)
        theta = base.copy()
        x = _with_ones(data.train_x)
        y = data.train_y.astype(np.float64)
        decay = np.full(self._size, settings.l2)
        decay[-1] = 0.0
        for _ in range(settings.epochs):
            for rows in batches(y.size, settings.batch_size, rng):
                residual = _sigmoid(x[rows] @ theta) - y[rows]
                gradient = residual @ x[rows] / rows.size
                gradient += decay * theta + settings.proximal_mu * (theta - base)
                theta -= settings.learning_rate * gradient
        return (theta - base).astype(np.float32), data.num_examples

    def scores(self, vector: FloatVector, x: FloatVector) -> NDArray[np.float64]:
        """The sigmoid of the linear score."""
        self._check(vector, x)
        return _sigmoid(_with_ones(x) @ vector.astype(np.float64))

    def _check(self, vector: FloatVector, x: FloatVector) -> None:
        check_vector(self._size, vector)
        if x.ndim != 2 or x.shape[1] != self._size - 1:
            raise LayoutMismatchError(f"rows of shape {x.shape} do not fit a model of {self._size} numbers")


def _with_ones(x: FloatVector) -> NDArray[np.float64]:
    return np.hstack([x.astype(np.float64), np.ones((x.shape[0], 1))])


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    # tanh cannot overflow, where exp of a large negative score would.
    return 0.5 * (1.0 + np.tanh(0.5 * z))
