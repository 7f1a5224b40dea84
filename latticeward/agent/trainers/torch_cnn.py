"""A small convolutional network over several channels of a signal, in PyTorch.

Layout: pairs of weight (outputs, inputs, taps) and bias (outputs,) for the convolutions, each followed by ReLU and a
halving of the length by maxima; then the mean over time; then one weight (inputs, classes) and bias (classes,) with a
softmax. A row has the samples of the first channel, then those of the second, and so on.
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

_SCORED_AT_ONCE = 512


class TorchCnn:
    """A ``Trainer`` (see there) for convolutions in time and one linear layer."""

    def __init__(self, layout: TensorLayout) -> None:
        shapes = [spec.shape for spec in layout.tensors]
        weights, biases = shapes[::2], shapes[1::2]
        fits = len(weights) == len(biases) >= 2 and all(
            len(weight) == 3 and bias == weight[:1] for weight, bias in zip(weights[:-1], biases[:-1], strict=True)
        )
        fits = fits and len(weights[-1]) == 2 and biases[-1] == weights[-1][1:]
        chained = [w[0] for w in weights[:-1]] == [*(w[1] for w in weights[1:-1]), weights[-1][0]] if fits else False
        if not chained:
            raise LayoutMismatchError("the layout is not that of convolutions and a linear layer")
        self._size = layout.size
        self._channels = weights[0][1]
        self._shapes = shapes

    def train(
        self, vector: FloatVector, data: SiteData, settings: TrainerSettings, rng: np.random.Generator
    ) -> tuple[FloatVector, int]:
        """``settings.epochs`` passes of Adam, its moments new in each round, on the mean cross entropy."""
        self._check(vector, data.train_x)
        x = self._signals(data.train_x)
        y = torch.from_numpy(data.train_y)

        def loss_of(flat: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return functional.cross_entropy(self._forward(flat, x[rows]), y[rows])

        examples = data.num_examples
        update = train_by_adam(vector, self._shapes, loss_of, examples=examples, settings=settings, rng=rng)
        return update, examples

    def scores(self, vector: FloatVector, x: FloatVector) -> NDArray[np.float64]:
        """The softmax of the network's outputs, shape (n, classes)."""
        self._check(vector, x)
        flat = torch.from_numpy(vector.copy())
        with torch.no_grad():
            logits = [self._forward(flat, part) for part in torch.split(self._signals(x), _SCORED_AT_ONCE)]
        probabilities: NDArray[np.float64] = torch.softmax(torch.cat(logits).double(), dim=1).numpy()
        return probabilities

    def _forward(self, flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        tensors = tensors_of(flat, self._shapes)
        layers = list(zip(tensors[::2], tensors[1::2], strict=True))
        for weight, bias in layers[:-1]:
            x = functional.max_pool1d(functional.relu(functional.conv1d(x, weight, bias, padding="same")), 2)
        weight, bias = layers[-1]
        return torch.addmm(bias, x.mean(dim=2), weight)

    def _signals(self, x: FloatVector) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).view(len(x), self._channels, -1)

    def _check(self, vector: FloatVector, x: FloatVector) -> None:
        check_vector(self._size, vector)
        halvings = 2 ** (len(self._shapes) // 2 - 1)
        if x.ndim != 2 or x.shape[1] % self._channels or x.shape[1] // self._channels < halvings:
            raise LayoutMismatchError(f"rows of shape {x.shape} do not fit a network of {self._channels} channels")
