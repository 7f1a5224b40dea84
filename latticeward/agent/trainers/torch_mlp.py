"""A multi-layer perceptron in PyTorch.

Layout: pairs of weight (inputs, outputs) and bias (outputs,), ReLU between them, one sigmoid output. The
parameters are views into one flat tensor, so a model goes in and out as the vector that the rest of the
system speaks of.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from latticeward.agent.jobs.job import SiteData
from latticeward.agent.trainers.torch_adam import tensors_of, train_by_adam
from latticeward.agent.trainers.trainer import TrainerSettings
from latticeward.errors import LayoutMismatchError
from latticeward.updates.tensors import FloatVector, TensorLayout, check_vector


class TorchMlp:
    """A ``Trainer`` (see there) for a stack of linear layers."""

    def __init__(self, layout: TensorLayout) -> None:
        shapes = [spec.shape for spec in layout.tensors]
        weights, biases = shapes[::2], shapes[1::2]
        fits = len(weights) == len(biases) and all(
            len(weight) == 2 and bias == weight[1:] for weight, bias in zip(weights, biases, strict=True)
        )
        if not fits or [w[1] for w in weights[:-1]] != [w[0] for w in weights[1:]] or weights[-1][1] != 1:
            raise LayoutMismatchError("the layout is not that of a perceptron with one output")
        self._size = layout.size
        self._inputs = weights[0][0]
        self._shapes = shapes

    def train(
        self, vector: FloatVector, data: SiteData, settings: TrainerSettings, rng: np.random.Generator
    ) -> tuple[FloatVector, int]:
        """``settings.epochs`` passes of Adam, its moments new in each round, on the mean log loss."""
        self._check(vector, data.train_x)
        x = torch.from_numpy(data.train_x)
        y = torch.from_numpy(data.train_y.astype(np.float32))

        def loss_of(flat: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return functional.binary_cross_entropy_with_logits(self._forward(flat, x[rows]), y[rows])

        examples = data.num_examples
        update = train_by_adam(vector, self._shapes, loss_of, examples=examples, settings=settings, rng=rng)
        return update, examples

    def scores(self, vector: FloatVector, x: FloatVector) -> NDArray[np.float64]:
        """The sigmoid of the network's output."""
        self._check(vector, x)
        with torch.no_grad():
            logits = self._forward(torch.from_numpy(vector.copy()), torch.from_numpy(np.ascontiguousarray(x)))
        # The sigmoid in double precision: float32 would round far scores to exactly 0 or 1 and make ties.
        probabilities: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(logits.double().numpy(), -700.0, 700.0)))
        return probabilities

    def _forward(self, flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        tensors = tensors_of(flat, self._shapes)
        layers = list(zip(tensors[::2], tensors[1::2], strict=True))
        for weight, bias in layers[:-1]:
            x = functional.relu(torch.addmm(bias, x, weight))
        weight, bias = layers[-1]
        return torch.addmm(bias, x, weight).squeeze(1)

    def _check(self, vector: FloatVector, x: FloatVector) -> None:
        check_vector(self._size, vector)
        if x.ndim != 2 or x.shape[1] != self._inputs:
            raise LayoutMismatchError(f"rows of shape {x.shape} do not fit a network of {self._inputs} inputs")
