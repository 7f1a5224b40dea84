"""Federation of the neural job beside a plain computation in one process, and what the ring costs of the metric."""

import numpy as np
import pytest

from bench.federation import run_federation
from bench.references import evaluate_vector
from latticeward.agent.jobs import JOBS
from latticeward.agent.trainers.trainer import batches
from latticeward.jobs import JobSpec
from latticeward.optimisers import OPTIMISERS
from latticeward.updates.tensors import initial_vector
from tests.rounds.test_reference import SERVERS, Memory

SEED = 7
ROUNDS = 4


def test_heart_loses_less_than_a_hundredth_by_the_ring() -> None:
    rounds = JOBS["heart"].default_plan["rounds"]
    ring = run_federation("heart", rounds=rounds, through_ring=True).vectors[-1]
    plain = run_federation("heart", rounds=rounds, through_ring=False).vectors[-1]
    assert abs(evaluate_vector("heart", ring)["pooled"] - evaluate_vector("heart", plain)["pooled"]) < 0.01
    assert np.abs(ring - plain).max() < 1e-4


def plain_mean(job: JobSpec, base: np.ndarray, number: int = 0, *, mu: float = 0.0) -> np.ndarray:
    """One round's mean update over thyroid: Adam on log loss + mu/2 |w - base|^2, with PyTorch's own layers, float64.

    Args:
        base: float64, shape (d,), the round's base model.
        number: of the round, from 0; it seeds the order of the rows, which is all that is random here.
    """
    torch = pytest.importorskip("torch")
    sites = [JOBS[job.name].load_site(site) for site in job.sites]
    settings = job.default_plan["trainer"]
    updates = []
    for index, data in enumerate(sites):
        rng = np.random.Generator(np.random.PCG64([SEED, number, index]))
        pieces = np.split(base, np.cumsum([tensor.size for tensor in job.layout.tensors])[:-1])
        shaped = [piece.reshape(tensor.shape) for piece, tensor in zip(pieces, job.layout.tensors, strict=True)]
        linears = []
        for weight, bias in zip(shaped[::2], shaped[1::2], strict=True):
            linear = torch.nn.Linear(*weight.shape).double()
            linear.weight.data, linear.bias.data = torch.tensor(weight.T).double(), torch.tensor(bias).double()
            linears.append(linear)
        network = torch.nn.Sequential(linears[0], torch.nn.ReLU(), linears[1], torch.nn.ReLU(), linears[2])
        start = [parameter.detach().clone() for parameter in network.parameters()]
        optimiser = torch.optim.Adam(network.parameters(), lr=settings["learning_rate"])
        x, y = torch.tensor(data.train_x).double(), torch.tensor(data.train_y).double()
        for rows in batches(len(y), settings["batch_size"], rng):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x[rows]).squeeze(1), y[rows])
            away = sum(((now - then) ** 2).sum() for now, then in zip(network.parameters(), start, strict=True))
            optimiser.zero_grad()
            (loss + mu / 2 * away).backward()
            optimiser.step()
        trained = [(linear.weight.data.T.numpy(), linear.bias.data.numpy()) for linear in linears]
        updates.append(np.concatenate([tensor.ravel() for pair in trained for tensor in pair]) - base)
    examples = np.array([len(data.train_y) for data in sites], dtype=np.float64)
    capped = np.minimum(examples, job.default_plan["weight_cap"])
    return np.average(updates, axis=0, weights=capped)


def plain_training(server: str, *, rounds: int, mu: float = 0.0) -> list[np.ndarray]:
    """The weights after each round, by the published algorithm alone."""
    job = JOBS["thyroid"]
    w, memory = initial_vector(job.layout, job.initial).astype(np.float64), Memory()
    found = []
    for number in range(rounds):
        base = w.astype(np.float32).astype(np.float64)  # a published model has single precision
        w = SERVERS[server][0](base, plain_mean(job, base, number, mu=mu), memory)
        found.append(w)
    return found


@pytest.mark.torch
def test_thyroid_s_first_round_is_the_plain_computation_under_every_optimiser() -> None:
    job = JOBS["thyroid"]
    base = initial_vector(job.layout, job.initial)
    mean = plain_mean(job, base.astype(np.float64))
    assert set(SERVERS) == set(OPTIMISERS)
    for name, (step, _) in SERVERS.items():
        moved = run_federation("thyroid", rounds=1, through_ring=True, server_optimiser={"name": name}).vectors[0]
        moves, expected = moved - base, step(base.astype(np.float64), mean, Memory()) - base
        # Adam divides by the gradient's own size: where that is next to nothing, single precision decides its sign.
        # So the bulk of the coordinates agrees closely, and the whole in direction and size.
        assert np.median(np.abs(moves - expected)) < 1e-5
        assert np.linalg.norm(moves - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "mu"), [*((name, 0.0) for name in OPTIMISERS), ("fedavg", 0.5)], ids=[*OPTIMISERS, "fedprox"]
)
def test_thyroid_s_rounds_are_the_plain_computation(server: str, mu: float) -> None:
    """Round by round: what single precision decides otherwise stays small beside what the rounds have moved."""
    job = JOBS["thyroid"]
    start = initial_vector(job.layout, job.initial)
    expected = plain_training(server, rounds=ROUNDS, mu=mu)
    run = run_federation(
        "thyroid",
        rounds=ROUNDS,
        through_ring=True,
        server_optimiser={"name": server},
        trainer_settings={"proximal_mu": mu},
    )
    assert run.clipped == 0 and run.saturated == 0
    for moved, plain in zip(run.vectors, expected, strict=True):
        assert np.linalg.norm(moved - plain) < 0.05 * np.linalg.norm(plain - start)
    pooled = [
        evaluate_vector("thyroid", vector.astype(np.float32))["pooled"] for vector in (run.vectors[-1], expected[-1])
    ]
    assert abs(pooled[0] - pooled[1]) < 0.01


@pytest.mark.torch
@pytest.mark.slow
def test_thyroid_by_the_plan_comes_to_the_plain_computation_s_auc_in_all_its_rounds() -> None:
    name = str(JOBS["thyroid"].default_plan["server_optimiser"]["name"])
    run = run_federation("thyroid", rounds=20, through_ring=True)
    expected = plain_training(name, rounds=20)
    for number in (4, 9, 14, 19):
        ours = evaluate_vector("thyroid", run.vectors[number])["pooled"]
        plain = evaluate_vector("thyroid", expected[number].astype(np.float32))["pooled"]
        assert abs(ours - plain) < 0.01
