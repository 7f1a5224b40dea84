"""Trainers are pure functions of model, rows, settings and seed, and they learn."""

import numpy as np
import pytest

from latticeward.agent.jobs import JOBS
from latticeward.agent.jobs.job import SiteData
from latticeward.agent.trainers import TRAINERS
from latticeward.agent.trainers.trainer import TrainerSettings
from latticeward.errors import IncompatiblePlanError, LayoutMismatchError
from latticeward.updates.tensors import TensorLayout, TensorSpec, initial_vector

LAYOUTS = {
    "numpy_linear": TensorLayout((TensorSpec("weight", (4,)), TensorSpec("bias", (1,)))),
    "torch_mlp": TensorLayout(
        (
            TensorSpec("a.weight", (4, 8)),
            TensorSpec("a.bias", (8,)),
            TensorSpec("b.weight", (8, 1)),
            TensorSpec("b.bias", (1,)),
        )
    ),
}
LAYOUTS["torch_cnn"] = TensorLayout(
    (
        TensorSpec("a.weight", (8, 2, 3)),
        TensorSpec("a.bias", (8,)),
        TensorSpec("b.weight", (8, 2)),
        TensorSpec("b.bias", (2,)),
    )
)
NAMES = [
    pytest.param("numpy_linear"),
    pytest.param("torch_mlp", marks=pytest.mark.torch),
    pytest.param("torch_cnn", marks=pytest.mark.torch),
]
SETTINGS = {"epochs": 3, "batch_size": 16, "learning_rate": 0.02}


@pytest.fixture
def data() -> SiteData:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3 > 0).astype(np.int64)
    return SiteData(train_x=x[:150], train_y=y[:150], test_x=x[150:], test_y=y[150:])


def _start(name: str) -> np.ndarray:
    if name.startswith("torch"):
        pytest.importorskip("torch")
    return initial_vector(LAYOUTS[name], {"kind": "glorot", "seed": 1})


def _train(name: str, data: SiteData, *, seed: int = 5, **changes: float) -> np.ndarray:
    settings = TrainerSettings.from_plan({**SETTINGS, **changes})
    trainer = TRAINERS[name](LAYOUTS[name])
    update, examples = trainer.train(_start(name), data, settings, np.random.default_rng(seed))
    assert examples == 150 and update.dtype == np.float32 and update.shape == (LAYOUTS[name].size,)
    return update


@pytest.mark.parametrize("name", NAMES)
def test_training_is_repeatable_and_leaves_the_base_alone(name: str, data: SiteData) -> None:
    base = _start(name)
    kept = base.copy()
    one = _train(name, data)
    assert np.array_equal(one, _train(name, data)) and np.array_equal(base, kept)
    assert not np.array_equal(one, _train(name, data, seed=6))


@pytest.mark.parametrize("name", NAMES)
def test_training_learns(name: str, data: SiteData) -> None:
    start = _start(name)
    trainer = TRAINERS[name](LAYOUTS[name])
    trained = start + _train(name, data, epochs=40, learning_rate=0.05)

    def accuracy(vector: np.ndarray) -> float:
        scores = trainer.scores(vector, data.test_x)
        assert scores.dtype == np.float64 and scores.min() >= 0 and scores.max() <= 1
        answers = scores.argmax(axis=1) if scores.ndim == 2 else scores > 0.5
        return float(np.mean(answers == data.test_y))

    assert accuracy(trained) > max(0.9, accuracy(start))


@pytest.mark.parametrize("name", NAMES)
def test_the_proximal_term_holds_the_update_back(name: str, data: SiteData) -> None:
    free, held = _train(name, data, epochs=20), _train(name, data, epochs=20, proximal_mu=5.0)
    assert np.linalg.norm(held) < 0.7 * np.linalg.norm(free)


@pytest.mark.parametrize("name", NAMES)
def test_l2_pulls_weights_to_zero_and_leaves_biases(name: str, data: SiteData) -> None:
    start = _start(name)
    weights = LAYOUTS[name].tensors[0].size
    free, decayed = start + _train(name, data, epochs=30), start + _train(name, data, epochs=30, l2=1.0)
    assert np.linalg.norm(decayed[:weights]) < np.linalg.norm(free[:weights])


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_extreme_models_stay_probabilities(name: str, data: SiteData) -> None:
    vector = np.full(LAYOUTS[name].size, 1e6, np.float32)
    _start(name)
    scores = TRAINERS[name](LAYOUTS[name]).scores(vector, data.test_x)
    assert np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_refuses_what_does_not_fit_the_layout(name: str, data: SiteData) -> None:
    start = _start(name)
    trainer = TRAINERS[name](LAYOUTS[name])
    settings = TrainerSettings.from_plan(SETTINGS)
    narrow = SiteData(train_x=data.train_x[:, :3], train_y=data.train_y, test_x=data.test_x, test_y=data.test_y)
    with pytest.raises(LayoutMismatchError):
        trainer.train(start, narrow, settings, np.random.default_rng(0))
    with pytest.raises(LayoutMismatchError):
        trainer.scores(start[:-1], data.test_x)
    wrong = TensorLayout((TensorSpec("weight", (4, 2)), TensorSpec("bias", (2,))))
    with pytest.raises(LayoutMismatchError):
        TRAINERS[name](wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"learning_rate": float("nan")},
        {"learning_rate": "fast"},
        {"batch_size": True},
        {"l2": -1.0},
        {"proximal_mu": 1e9},
        {"dropout": 0.1},
    ],
)
def test_refuses_settings_out_of_range(change: dict[str, float | str]) -> None:
    with pytest.raises(IncompatiblePlanError):
        TrainerSettings.from_plan({**SETTINGS, **change})
    with pytest.raises(IncompatiblePlanError):
        TrainerSettings.from_plan({"epochs": 1})


@pytest.mark.parametrize("name", sorted(JOBS))
def test_every_job_names_a_trainer_for_its_layout(name: str) -> None:
    job = JOBS[name]
    if job.needs_torch:
        pytest.importorskip("torch")
    TrainerSettings.from_plan(job.default_plan["trainer"])
    assert TRAINERS[job.trainer](job.layout)
