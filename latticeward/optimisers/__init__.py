"""The table of server optimisers: from base weights and a round's mean update to the next weights.

An optimiser is a pure function in a file and a line here; float64 in, float64 out. A plan names one together
with the settings that differ from its defaults, as ``{"name": "fedadam", "learning_rate": 0.05}``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from latticeward.errors import IncompatiblePlanError, LayoutMismatchError, NonFiniteUpdateError
from latticeward.optimisers import fedadam, fedavg, fedavgm, fedyogi
from latticeward.optimisers.state import Float64Vector, OptimiserState, Settings

Step = Callable[[Float64Vector, Float64Vector, OptimiserState, Settings], tuple[Float64Vector, OptimiserState]]

_BLOCK: Final = 65_536


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
    # In pieces that stay in the cache, as in ``FixedPointCodec.decode_sum``.
    for start in range(0, moved.size, _BLOCK):
        with np.errstate(over="ignore"):
            if not np.isfinite(moved[start : start + _BLOCK].astype(np.float32)).all():
                raise NonFiniteUpdateError("the new model is not finite")
    return moved, after
