"""Whole trainings through keys, envelopes and the ring, beside the published algorithms written down plainly.

The reference is one process, float64, no clipping and no ring; it shares the hospitals' rows with the product and
nothing else. After four rounds the weights agree to what fixed-point rounding can make of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from latticeward.agent.jobs import JOBS
from latticeward.agent.jobs.job import SiteData
from tests.rounds.cohort import Cohort

Vector = NDArray[np.float64]
ROUNDS = 4


@dataclass
class Memory:
    """What a server optimiser keeps; v starts as the papers say."""

    m: Vector | float = 0.0
    v: Vector | float = 0.0


def fedavg(w: Vector, delta: Vector, memory: Memory) -> Vector:
    """McMahan et al. 2017, algorithm 1."""
    return w + delta


def fedavgm(w: Vector, delta: Vector, memory: Memory) -> Vector:
    """Hsu, Qi and Brown 2019, section 4.3: momentum 0.9, rate 1."""
    memory.v = 0.9 * memory.v + delta
    return w + memory.v


def fedadam(w: Vector, delta: Vector, memory: Memory) -> Vector:
    """Reddi et al. 2021, algorithm 2, FedAdam: rate 0.1, betas 0.9 and 0.99, tau 0.001, v_{-1} = tau^2."""
    memory.m = 0.9 * memory.m + 0.1 * delta
    memory.v = 0.99 * (memory.v if isinstance(memory.v, np.ndarray) else np.full_like(w, 1e-6)) + 0.01 * delta**2
    return w + 0.1 * memory.m / (np.sqrt(memory.v) + 1e-3)


def fedyogi(w: Vector, delta: Vector, memory: Memory) -> Vector:
    """Reddi et al. 2021, algorithm 2, FedYogi, with the same constants."""
    before = memory.v if isinstance(memory.v, np.ndarray) else np.full_like(w, 1e-6)
    memory.m = 0.9 * memory.m + 0.1 * delta
    memory.v = before - 0.01 * delta**2 * np.sign(before - delta**2)
    return w + 0.1 * memory.m / (np.sqrt(memory.v) + 1e-3)


# By how much a step can enlarge an error of the mean: 1 / (1 - momentum), rate / tau.
SERVERS: dict[str, tuple[Callable[[Vector, Vector, Memory], Vector], float]] = {
    "fedavg": (fedavg, 1.0),
    "fedavgm": (fedavgm, 10.0),
    "fedadam": (fedadam, 100.0),
    "fedyogi": (fedyogi, 100.0),
}


def local(w: Vector, data: SiteData, *, epochs: int, rate: float, l2: float, mu: float) -> Vector:
    """Gradient descent on log loss + l2/2 |weights|^2 + mu/2 |w - base|^2 (FedProx, Li et al. 2020, equation 2)."""
    x = np.c_[data.train_x.astype(np.float64), np.ones(len(data.train_x))]
    shrunk = np.r_[np.ones(w.size - 1), 0.0]
    moved = w.copy()
    for _ in range(epochs):
        error = 1 / (1 + np.exp(-x @ moved)) - data.train_y
        moved -= rate * (x.T @ error / len(x) + l2 * shrunk * moved + mu * (moved - w))
    return moved - w


def reference(server: str, *, epochs: int = 1, mu: float = 0.0) -> Vector:
    job = JOBS["heart"]
    sites = [job.load_site(site) for site in job.sites]
    settings = job.default_plan["trainer"]
    w, memory = np.zeros(job.layout.size), Memory()
    for _ in range(ROUNDS):
        base = w.astype(np.float32).astype(np.float64)  # a published model has single precision
        examples = np.array([len(data.train_y) for data in sites], dtype=np.float64)
        deltas = [
            local(base, data, epochs=epochs, rate=settings["learning_rate"], l2=settings["l2"], mu=mu) for data in sites
        ]
        w = SERVERS[server][0](base, np.average(deltas, axis=0, weights=examples), memory)
    return w


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("server", "trainer"),
    [*((name, {}) for name in SERVERS), ("fedavg", {"epochs": 3, "proximal_mu": 0.5})],
    ids=[*SERVERS, "fedprox"],
)
def test_a_training_on_the_demo_job_is_the_published_algorithm(
    cohort: Cohort, server: str, trainer: dict[str, float]
) -> None:
    job = JOBS["heart"]
    # A clip norm that no update reaches: clipping is the plan's choice and no part of these algorithms.
    settings = {**job.default_plan["trainer"], **trainer}
    training = cohort.train(server_optimiser={"name": server}, trainer=settings, clip_norm=50.0, weight_cap=400.0)
    base = None
    for _ in range(ROUNDS):
        base = cohort.weights(cohort.whole_round(training, base))
    assert base is not None
    expected = reference(server, epochs=int(settings["epochs"]), mu=settings["proximal_mu"])

    # Each of four updates is rounded by less than one step of 1/s, and the sum is divided by the shares' sum.
    codec_scale = (2**31 - 1) // (16 * 50)
    shares = sum(min(job.load_site(site).num_examples, 400) / 400 for site in job.sites)
    step = 4 / (codec_scale * shares)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(base, expected, rtol=1e-6, atol=ROUNDS * SERVERS[server][1] * step)


def test_the_reference_itself_tells_its_algorithms_apart() -> None:
    results = [reference(name) for name in SERVERS]
    results += [reference("fedavg", epochs=3, mu=0.5), reference("fedavg", epochs=3)]
    for index, one in enumerate(results):
        assert all(np.abs(one - other).max() > 1e-3 for other in results[:index])
