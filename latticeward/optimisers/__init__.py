"""The table of server optimisers: from base weights and a round's mean update to the next weights.

An optimiser is a pure function in a file and a line here; float64 in, float64 out, each coordinate by itself. A plan
names one together with the settings that differ from its defaults, as ``{"name": "fedadam", "learning_rate": 0.05}``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from latticeward.errors import IncompatiblePlanError, LayoutMismatchError, NonFiniteUpdateError
from latticeward.optimisers import fedadam, fedavg, fedavgm, fedyogi
from latticeward.optimisers.state import Float64Vector, OptimiserState, Settings
from latticeward.updates.tensors import FloatVector

Step = Callable[[Float64Vector, Float64Vector, OptimiserState, Settings], tuple[Float64Vector, OptimiserState]]

# 32,768 numbers (256 KiB each for weights, update and moments) stay in the second cache from step to step.
_BLOCK: Final = 32_768


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimiser:
    """One server optimiser: its step, and every setting that it knows with its default."""

    name: str
    title: str
    defaults: Settings
    step: Step


OPTIMISERS: Final[Mapping[str, Optimiser]] = MappingProxyType(
    {
        optimiser.name: optimiser
        for optimiser in (
            Optimiser(name="fedavg", title="FedAvg", defaults=fedavg.DEFAULTS, step=fedavg.step),
            Optimiser(name="fedavgm", title="FedAvg with momentum", defaults=fedavgm.DEFAULTS, step=fedavgm.step),
            Optimiser(name="fedadam", title="FedAdam", defaults=fedadam.DEFAULTS, step=fedadam.step),
            Optimiser(name="fedyogi", title="FedYogi", defaults=fedyogi.DEFAULTS, step=fedyogi.step),
        )
    }
)


def check_settings(settings: Settings) -> None:
    """Refuse a plan's optimiser settings before they are signed.

    Raises:
        IncompatiblePlanError: an unknown optimiser or setting, or a value out of range.
    """
    nothing = np.zeros(1, dtype=np.float64)
    server_step(nothing, nothing, OptimiserState(), settings)


def next_weights(
    base: FloatVector, mean_update: FloatVector, state: OptimiserState, settings: Settings
) -> tuple[FloatVector, OptimiserState]:
    """``server_step`` from published weights to those to publish: in float64, a block at a time, so that no vector of
    the model's length in double precision is made but the moments.

    Args:
        base, mean_update: float32, shape (d,).

    Returns:
        float32 weights, shape (d,), little-endian, and the new state; the arguments are not touched.

    Raises:
        IncompatiblePlanError, LayoutMismatchError, NonFiniteUpdateError: as there.
    """
    if mean_update.shape != base.shape or any(moment.shape != base.shape for moment in state.moments.values()):
        raise LayoutMismatchError("base weights, mean update and moments must have one shape")
    weights = np.empty(base.shape, dtype="<f4")
    moments: dict[str, Float64Vector] = {}
    for start in range(0, base.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        before = OptimiserState(step=state.step, moments={name: old[block] for name, old in state.moments.items()})
        moved, after = server_step(
            base[block].astype(np.float64), mean_update[block].astype(np.float64), before, settings
        )
        weights[block] = moved
        for name, moment in after.moments.items():
            if name not in moments:
                moments[name] = np.empty(base.shape)
            moments[name][block] = moment
    return weights, OptimiserState(step=state.step + 1, moments=moments)


def server_step(
    weights: Float64Vector, mean_update: Float64Vector, state: OptimiserState, settings: Settings
) -> tuple[Float64Vector, OptimiserState]:
    """Move the weights by a round's mean update.

    Args:
        weights: float64, shape (d,), the round's base model.
        mean_update: float64, shape (d,).
        state: what the rounds before left; ``OptimiserState()`` in the first.
        settings: the plan's ``server_optimiser``: ``name`` and what differs from the defaults.

    Returns:
        New weights and new state; the arguments are not touched.

    Raises:
        IncompatiblePlanError: an unknown optimiser or setting, or a value out of range.
        LayoutMismatchError: the vectors are not float64 of one shape.
        NonFiniteUpdateError: the new weights are not finite as float32, the form in which they are published.
    """
    optimiser = OPTIMISERS.get(str(settings.get("name")))
    if optimiser is None:
        raise IncompatiblePlanError(f"the server optimiser {settings.get('name')!r} is not known")
    chosen = {name: value for name, value in settings.items() if name != "name"}
    if unknown := set(chosen) - set(optimiser.defaults):
        raise IncompatiblePlanError(f"{optimiser.name} has no setting {sorted(unknown)!r}")
    if weights.dtype != np.float64 or mean_update.dtype != np.float64 or weights.shape != mean_update.shape:
        raise LayoutMismatchError("weights and mean update must be float64 vectors of one shape")
    moved, after = optimiser.step(weights, mean_update, state, {**optimiser.defaults, **chosen})
    with np.errstate(over="ignore"):
        if not np.isfinite(moved.astype(np.float32)).all():
            raise NonFiniteUpdateError("the new model is not finite")
    return moved, after
