"""The table of trainers; each is a file and a line here, and imports its framework when asked for."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from latticeward.agent.trainers.trainer import Trainer
from latticeward.updates.tensors import TensorLayout


def _numpy_linear(layout: TensorLayout) -> Trainer:
    from latticeward.agent.trainers.numpy_linear import NumpyLinear

    return NumpyLinear(layout)


def _torch_mlp(layout: TensorLayout) -> Trainer:
    from latticeward.agent.trainers.torch_mlp import TorchMlp

    return TorchMlp(layout)


def _torch_cnn(layout: TensorLayout) -> Trainer:
    from latticeward.agent.trainers.torch_cnn import TorchCnn

    return TorchCnn(layout)


# A name of a trainer -> what makes it for a layout; LayoutMismatchError if the layout is not one of its kind.
TRAINERS: Final[Mapping[str, Callable[[TensorLayout], Trainer]]] = MappingProxyType(
    {"numpy_linear": _numpy_linear, "torch_mlp": _torch_mlp, "torch_cnn": _torch_cnn}
)
