"""Federation of the neural job beside a plain computation in one process, and what the ring costs of the metric."""

from collections.abc import Callable

import numpy as np
import pytest

from bench.federation import run_federation
from bench.references import evaluate_vector
from latticeward.agent.jobs import JOBS
from latticeward.agent.trainers.trainer import batches
from latticeward.jobs import JobSpec
from latticeward.optimisers import OPTIMISERS
from latticeward.updates.tensors import initial_vector

SEED = 7


def test_heart_loses_less_than_a_hundredth_by_the_ring() -> None:
    rounds = JOBS["heart"].default_plan["rounds"]
    ring = run_federation("heart", rounds=rounds, through_ring=True).vectors[-1]
    plain = run_federation("heart", rounds=rounds, through_ring=False).vectors[-1]
    assert abs(evaluate_vector("heart", ring)["pooled"] - evaluate_vector("heart", plain)["pooled"]) < 0.01
    assert np.abs(ring - plain).max() < 1e-4


def _plain_mean(job: JobSpec, base: np.ndarray) -> np.ndarray:
    """One round of FedAvg's local part over thyroid: Adam on log loss with PyTorch's own layers and optimiser."""
    torch = pytest.importorskip("torch")
    sites = [JOBS[job.name].load_site(site) for site in job.sites]
    settings = job.default_plan["trainer"]
    updates = []
    for index, data in enumerate(sites):
        rng = np.random.Generator(np.random.PCG64([SEED, 0, index]))
        pieces = np.split(base, np.cumsum([tensor.size for tensor in job.layout.tensors])[:-1])
        shaped = [piece.reshape(tensor.shape) for piece, tensor in zip(pieces, job.layout.tensors, strict=True)]
        linears = []
        for weight, bias in zip(shaped[::2], shaped[1::2], strict=True):
            linear = torch.nn.Linear(*weight.shape).double()
            linear.weight.data, linear.bias.data = torch.tensor(weight.T).double(), torch.tensor(bias).double()
            linears.append(linear)
        network = torch.nn.Sequential(linears[0], torch.nn.ReLU(), linears[1], torch.nn.ReLU(), linears[2])
        optimiser = torch.optim.Adam(network.parameters(), lr=settings["learning_rate"])
        x, y = torch.tensor(data.train_x).double(), torch.tensor(data.train_y).double()
        for rows in batches(len(y), settings["batch_size"], rng):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x[rows]).squeeze(1), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        trained = [(linear.weight.data.T.numpy(), linear.bias.data.numpy()) for linear in linears]
        updates.append(np.concatenate([tensor.ravel() for pair in trained for tensor in pair]) - base)
    examples = np.array([len(data.train_y) for data in sites], dtype=np.float64)
    capped = np.minimum(examples, job.default_plan["weight_cap"])
    return np.average(updates, axis=0, weights=capped)


FIRST_STEPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fedavg": lambda mean: mean,
    "fedavgm": lambda mean: mean,
    "fedadam": lambda mean: 0.1 * 0.1 * mean / (np.sqrt(0.99e-6 + 0.01 * mean**2) + 1e-3),
    "fedyogi": lambda mean: 0.1 * 0.1 * mean / (np.sqrt(1e-6 - 0.01 * mean**2 * np.sign(1e-6 - mean**2)) + 1e-3),
}


@pytest.mark.torch
def test_thyroid_s_first_round_is_the_plain_computation_under_every_optimiser() -> None:
    job = JOBS["thyroid"]
    base = initial_vector(job.layout, job.initial)
    mean = _plain_mean(job, base.astype(np.float64))
    assert set(FIRST_STEPS) == set(OPTIMISERS)
    for name, first_step in FIRST_STEPS.items():
        moved = run_federation("thyroid", rounds=1, through_ring=True, server_optimiser={"name": name}).vectors[0]
        moves, expected = moved - base, first_step(mean)
        # Adam divides by the gradient's own size: where that is next to nothing, single precision decides its sign.
        # So the bulk of the coordinates agrees closely, and the whole in direction and size.
        assert np.median(np.abs(moves - expected)) < 1e-5
        assert np.linalg.norm(moves - expected) < 0.02 * np.linalg.norm(expected)
