"""FedAdam: a step size of its own for each coordinate (Reddi et al. 2021, algorithm 2).

As in the paper there is no bias correction, and the second moment starts at tau squared.
"""

import numpy as np

from latticeward.optimisers.state import Float64Vector, OptimiserState, Settings, number

DEFAULTS: Settings = {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}


def step(
    weights: Float64Vector, mean_update: Float64Vector, state: OptimiserState, settings: Settings
) -> tuple[Float64Vector, OptimiserState]:
    """weights + learning_rate · m / (sqrt(v) + tau), v a running mean of squared updates."""
    rate = number(settings, "learning_rate", low=1e-6, high=100.0)
    beta1 = number(settings, "beta1", low=0.0, high=0.9999)
    beta2 = number(settings, "beta2", low=0.0, high=0.9999)
    tau = number(settings, "tau", low=1e-9, high=1.0)
    first = beta1 * state.moment("first", like=weights) + (1.0 - beta1) * mean_update
    second = beta2 * state.moment("second", like=weights, initial=tau**2) + (1.0 - beta2) * mean_update**2
    moved = weights + rate * first / (np.sqrt(second) + tau)
    return moved, OptimiserState(step=state.step + 1, moments={"first": first, "second": second})
