"""FedAvg of a job through the real codec (clip, encode, sum, decode), beside the same in plain floats.

No keys, no envelopes, no server: it answers what the fixed-point ring and the clipping cost in the job's metric.
"""

import importlib.util
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.references import evaluate_vector, reference_results
from latticeward.agent.jobs import JOBS
from latticeward.agent.trainers import TRAINERS
from latticeward.agent.trainers.trainer import TrainerSettings
from latticeward.optimisers import server_step
from latticeward.optimisers.state import OptimiserState
from latticeward.updates.clipping import ModelUpdate, clip_update
from latticeward.updates.encoding import FixedPointCodec
from latticeward.updates.metrics import METRICS
from latticeward.updates.ring import accumulate
from latticeward.updates.tensors import FloatVector, initial_vector


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedRun:
    """What a simulated training came to.

    Attributes:
        vectors: the model after each round, float32, shape (d,).
        measured: the pooled metric of each round's base model, as the server sees it (AUCs are binned).
        clipped, saturated: updates that were clipped, coordinates that were held at the ring's bound.
        updates: how many there were.
    """

    vectors: list[FloatVector]
    measured: list[float | None]
    clipped: int
    saturated: int
    updates: int


def run_federation(
    job_name: str,
    *,
    rounds: int,
    through_ring: bool,
    seed: int = 7,
    server_optimiser: Mapping[str, int | float | str] | None = None,
    trainer_settings: Mapping[str, int | float | str] | None = None,
) -> FederatedRun:
    """Train over all the job's sites, by its default plan.

    Args:
        through_ring: whether updates pass clipping and the ring, or are averaged as float64.
        seed: of the devices' local randomness.
        server_optimiser: in place of the plan's own.
        trainer_settings: those of the local training that differ from the plan's.
    """
    job = JOBS[job_name]
    plan = job.default_plan
    trainer, settings = (
        TRAINERS[job.trainer](job.layout),
        TrainerSettings.from_plan({**plan["trainer"], **(trainer_settings or {})}),
    )
    metric = METRICS[job.metric]
    codec = FixedPointCodec(
        clip_norm=plan["clip_norm"],
        weight_cap=plan["weight_cap"],
        cohort_bound=plan["cohort_bound"],
        ring_bits=plan["ring_bits"],
        size=job.layout.size,
        metric_size=metric.size,
    )
    sites = [job.load_site(site) for site in job.sites]
    vector, state = initial_vector(job.layout, job.initial), OptimiserState()
    vectors: list[FloatVector] = []
    measured: list[float | None] = []
    clipped = saturated = 0
    for number in range(rounds):
        ring_sum = codec.empty_sum()
        weighted, weights = np.zeros(job.layout.size), 0.0
        for index, data in enumerate(sites):
            rng = np.random.Generator(np.random.PCG64([seed, number, index]))
            trained, examples = trainer.train(vector, data, settings, rng)
            update = clip_update(ModelUpdate(vector=trained, weight=examples), clip_norm=codec.clip_norm)
            encoded = codec.encode(update, metric.measure(trainer.scores(vector, data.test_x), data.test_y), rng)
            codec.validate_ring(encoded.vector)
            accumulate(ring_sum, encoded.vector)
            clipped, saturated = clipped + update.was_clipped, saturated + encoded.saturated
            share = min(examples, codec.weight_cap)
            weighted, weights = weighted + share * trained.astype(np.float64), weights + share
        decoded = codec.decode_sum(ring_sum)
        measured.append(metric.summarise(decoded.metric_counts).value)
        mean = decoded.mean.astype(np.float64) if through_ring else weighted / weights
        moved, state = server_step(vector.astype(np.float64), mean, state, server_optimiser or plan["server_optimiser"])
        vector = moved.astype(np.float32)
        vectors.append(vector)
    return FederatedRun(
        vectors=vectors,
        measured=measured,
        clipped=clipped,
        saturated=saturated,
        updates=rounds * len(sites),
    )


def run() -> Iterator[dict[str, Any]]:
    """Rows of all jobs by round; a job whose framework is not installed is left out."""
    for name, job in JOBS.items():
        if job.needs_torch and importlib.util.find_spec("torch") is None:
            print(f"   PyTorch is not installed: {name} is left out", file=sys.stderr)
            continue
        rounds, unit = job.default_plan["rounds"], job.metric
        started = time.perf_counter()
        ring = run_federation(name, rounds=rounds, through_ring=True)
        yield _row(f"{name}_seconds", time.perf_counter() - started, "s")
        plain = run_federation(name, rounds=rounds, through_ring=False)
        for number, (by_ring, by_float) in enumerate(zip(ring.vectors, plain.vectors, strict=True), start=1):
            yield _row(f"{name}_{unit}_ring_{number:02d}", evaluate_vector(name, by_ring)["pooled"], unit)
            yield _row(f"{name}_{unit}_float_{number:02d}", evaluate_vector(name, by_float)["pooled"], unit)
        yield _row(f"{name}_clipped", ring.clipped / ring.updates, "share")
        yield _row(f"{name}_saturated", ring.saturated, "coordinates")
        references = reference_results(name)
        yield _row(f"{name}_{unit}_central", references["central"], unit)
        for site, value in references["single"].items():
            yield _row(f"{name}_{unit}_alone_{site}", value, unit)


def _row(metric: str, value: float, unit: str) -> dict[str, Any]:
    return {"metric": metric, "value": value, "unit": unit}
