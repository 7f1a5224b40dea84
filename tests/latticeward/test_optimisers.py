"""Server optimisers against their papers' arithmetic, and their memory through its bytes."""

from typing import Any

import numpy as np
import pytest

from latticeward.errors import (
    IncompatiblePlanError,
    LayoutMismatchError,
    MalformedMessageError,
    NonFiniteUpdateError,
)
from latticeward.optimisers import OPTIMISERS, check_settings, next_weights, server_step
from latticeward.optimisers.state import OptimiserState

WEIGHTS = np.array([1.0, -2.0, 0.0])
UPDATES = [np.array([0.5, 0.0, -1.0]), np.array([-0.25, 1e-3, -1.0]), np.array([0.0, 0.0, 2.0])]


def _run(settings: dict[str, float | str]) -> np.ndarray:
    weights, state = WEIGHTS, OptimiserState()
    for update in UPDATES:
        weights, state = server_step(weights, update, state, settings)
        state = OptimiserState.from_bytes(state.to_bytes(), size=3)
    assert state.step == len(UPDATES)
    return weights


def test_fedavg_adds_the_mean() -> None:
    np.testing.assert_array_equal(_run({"name": "fedavg"}), WEIGHTS + UPDATES[0] + UPDATES[1] + UPDATES[2])
    np.testing.assert_allclose(_run({"name": "fedavg", "learning_rate": 0.5}), WEIGHTS + 0.5 * sum(UPDATES))


def test_fedavgm_is_heavy_ball() -> None:
    expected, velocity = WEIGHTS.copy(), np.zeros(3)
    for update in UPDATES:
        velocity = 0.8 * velocity + update
        expected = expected + 0.3 * velocity
    np.testing.assert_allclose(_run({"name": "fedavgm", "momentum": 0.8, "learning_rate": 0.3}), expected)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_adaptive_steps_coordinate_by_coordinate(name: str) -> None:
    rate, beta1, beta2, tau = 0.1, 0.9, 0.99, 1e-3
    expected = []
    for index, weight in enumerate(WEIGHTS.tolist()):
        first, second = 0.0, tau**2
        for update in UPDATES:
            delta = float(update[index])
            first = beta1 * first + (1 - beta1) * delta
            if name == "fedadam":
                second = beta2 * second + (1 - beta2) * delta**2
            else:
                second -= (1 - beta2) * delta**2 * float(np.sign(second - delta**2))
            weight += rate * first / (second**0.5 + tau)
        expected.append(weight)
    np.testing.assert_allclose(_run({"name": name}), expected, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_steps_are_pure_and_known_to_the_table(name: str) -> None:
    weights, update = WEIGHTS.copy(), UPDATES[0].copy()
    state = OptimiserState()
    moved, after = server_step(weights, update, state, {"name": name})
    again, _ = server_step(weights, update, state, {"name": name})
    assert np.array_equal(moved, again) and moved.dtype == np.float64
    assert np.array_equal(weights, WEIGHTS) and np.array_equal(update, UPDATES[0])
    assert (state.step, after.step) == (0, 1)
    assert OPTIMISERS[name].name == name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"name": "sgd"},
        {"name": "fedavg", "momentum": 0.5},
        {"name": "fedavg", "learning_rate": 0.0},
        {"name": "fedavg", "learning_rate": "1"},
        {"name": "fedavg", "learning_rate": True},
        {"name": "fedavg", "learning_rate": b""},
        {"name": "fedavg", "learning_rate": None},
        {"name": "fedavg", "learning_rate": 10**400},
        {"name": "fedavgm", "momentum": 1.0},
        {"name": "fedadam", "tau": float("nan")},
        {"name": "fedyogi", "beta2": -0.1},
    ],
)
def test_refuses_settings_before_they_are_signed(settings: dict[str, Any]) -> None:
    with pytest.raises(IncompatiblePlanError):
        check_settings(settings)


def test_refuses_vectors_that_do_not_fit() -> None:
    with pytest.raises(LayoutMismatchError):
        server_step(WEIGHTS, np.zeros(2), OptimiserState(), {"name": "fedavg"})
    with pytest.raises(LayoutMismatchError):
        server_step(WEIGHTS, np.zeros(3, np.float32), OptimiserState(), {"name": "fedavg"})
    state = OptimiserState(step=1, moments={"velocity": np.zeros(2)})
    with pytest.raises(LayoutMismatchError):
        server_step(WEIGHTS, np.zeros(3), state, {"name": "fedavgm"})
    with pytest.raises(NonFiniteUpdateError):
        server_step(WEIGHTS, np.full(3, 1e39), OptimiserState(), {"name": "fedavg"})


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_next_weights_are_the_step_in_double_precision_rounded_once(name: str) -> None:
    rng = np.random.default_rng(1)
    base, first, second = rng.standard_normal((3, 70_001)).astype(np.float32)
    exact, weights = base.astype(np.float64), base
    memory = kept = OptimiserState()
    for update in (first, second):
        exact, memory = server_step(weights.astype(np.float64), update.astype(np.float64), memory, {"name": name})
        weights, kept = next_weights(weights, update, kept, {"name": name})
        assert weights.dtype == np.dtype("<f4") and np.array_equal(weights, exact.astype(np.float32))
        assert kept.to_bytes() == memory.to_bytes()


def test_next_weights_refuse_what_does_not_fit_before_they_take_a_step() -> None:
    base, length = np.zeros(65_536, np.float32), 65_536 + 1  # whole blocks, which alone would not show what is too long
    longer = OptimiserState(step=1, moments={"velocity": np.zeros(length)})
    with pytest.raises(LayoutMismatchError):
        next_weights(base, np.zeros(length, np.float32), OptimiserState(), {"name": "fedavg"})
    with pytest.raises(LayoutMismatchError):
        next_weights(base, base, longer, {"name": "fedavgm"})
    with pytest.raises(NonFiniteUpdateError):
        next_weights(base, np.full_like(base, np.inf), OptimiserState(), {"name": "fedavg"})


def test_refuses_a_memory_of_another_model() -> None:
    raw = OptimiserState(step=1, moments={"velocity": np.zeros(3)}).to_bytes()
    with pytest.raises(MalformedMessageError):
        OptimiserState.from_bytes(raw, size=4)
    with pytest.raises(MalformedMessageError):
        OptimiserState.from_bytes(raw + b"\0", size=3)


@pytest.mark.parametrize("value", [b"\x01", None, [1], "1", True, float("nan"), float("inf")])
def test_a_setting_that_is_no_number_is_refused_in_words(value: object) -> None:
    with pytest.raises(IncompatiblePlanError, match="must lie between"):
        check_settings({"name": "fedadam", "learning_rate": value})  # type: ignore[dict-item]
