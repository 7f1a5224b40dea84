"""FedAvgM: heavy-ball momentum over rounds (Hsu, Qi and Brown 2019), which steadies unlike hospitals."""

from latticeward.optimisers.state import Float64Vector, OptimiserState, Settings, number

DEFAULTS: Settings = {"learning_rate": 1.0, "momentum": 0.9}


def step(
    weights: Float64Vector, mean_update: Float64Vector, state: OptimiserState, settings: Settings
) -> tuple[Float64Vector, OptimiserState]:
    """velocity = momentum · velocity + mean_update; weights + learning_rate · velocity."""
    rate = number(settings, "learning_rate", low=1e-6, high=100.0)
    momentum = number(settings, "momentum", low=0.0, high=0.9999)
    velocity = momentum * state.moment("velocity", like=weights) + mean_update
    return weights + rate * velocity, OptimiserState(step=state.step + 1, moments={"velocity": velocity})
