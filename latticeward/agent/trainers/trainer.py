"""What every trainer is: local steps over a flat vector, with settings that the plan fixes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from latticeward.agent.jobs.job import SiteData
from latticeward.errors import IncompatiblePlanError
from latticeward.updates.tensors import FloatVector


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSettings:
    """The plan's trainer settings, checked.

    Attributes:
        epochs: passes over the training part.
        batch_size: rows a step.
        learning_rate: step size of the local optimiser.
        l2: weight decay, per step and unit of learning rate; biases are left alone.
        proximal_mu: FedProx (Li et al. 2020): pull towards the round's base model, 0 for plain FedAvg.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    l2: float = 0.0
    proximal_mu: float = 0.0

    @classmethod
    def from_plan(cls, settings: Mapping[str, int | float | str]) -> Self:
        """Read the mapping that a plan carries.

        Raises:
            IncompatiblePlanError: a setting is unknown, missing, or out of range.
        """
        ranges = {
            "epochs": (1, 1000),
            "batch_size": (1, 1_000_000),
            "learning_rate": (1e-9, 100.0),
            "l2": (0.0, 10.0),
            "proximal_mu": (0.0, 100.0),
        }
        if not {"epochs", "batch_size", "learning_rate"} <= set(settings) <= set(ranges):
            raise IncompatiblePlanError(f"the trainer does not know the settings {sorted(settings)!r}")
        numbers: dict[str, float] = {}
        for name, value in settings.items():
            low, high = ranges[name]
            if isinstance(value, str | bool) or not math.isfinite(value) or not low <= value <= high:
                raise IncompatiblePlanError(f"the trainer's {name!r} must lie between {low:g} and {high:g}")
            numbers[name] = value
        epochs, batch_size = numbers.pop("epochs"), numbers.pop("batch_size")
        if epochs != int(epochs) or batch_size != int(batch_size):
            raise IncompatiblePlanError("epochs and batch size are whole numbers")
        return cls(epochs=int(epochs), batch_size=int(batch_size), **numbers)


class Trainer(Protocol):
    """Local learning over one layout; the only code that sees patients' rows. No state between calls."""

    def train(
        self, vector: FloatVector, data: SiteData, settings: TrainerSettings, rng: np.random.Generator
    ) -> tuple[FloatVector, int]:
        """Learn from the training part, starting at the base model.

        Args:
            vector: float32, shape (d,), the base model; not changed.
            rng: order of the rows; the result is a pure function of the arguments.

        Returns:
            The update (trained minus base, float32, shape (d,)) and the examples behind it.

        Raises:
            LayoutMismatchError: the vector or the rows do not fit the layout.
        """

    def scores(self, vector: FloatVector, x: FloatVector) -> NDArray[np.float64]:
        """The probability of the positive class for each row, float64, shape (n,), each in [0, 1]; of several classes
        that of each, shape (n, classes).

        Args:
            vector: float32, shape (d,).
            x: float32, shape (n, features).

        Raises:
            LayoutMismatchError: the vector or the rows do not fit the layout.
        """


def batches(n: int, batch_size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """One epoch's batches: row numbers 0..n-1 in random order, cut every ``batch_size``."""
    order = rng.permutation(n)
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]
