"""FedAvg: take the mean update as it is (McMahan et al. 2017), times a server learning rate, normally 1."""

from latticeward.optimisers.state import Float64Vector, OptimiserState, Settings, number

DEFAULTS: Settings = {"learning_rate": 1.0}


def step(
    weights: Float64Vector, mean_update: Float64Vector, state: OptimiserState, settings: Settings
) -> tuple[Float64Vector, OptimiserState]:
    """weights + learning_rate · mean_update; nothing is remembered but the count of rounds."""
    rate = number(settings, "learning_rate", low=1e-6, high=100.0)
    moved = rate * mean_update
    moved += weights
    return moved, OptimiserState(step=state.step + 1)
