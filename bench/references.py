"""What federation is compared with: one model on all rows, one model a hospital, and any vector by hospital.

For the demo driver, which has every hospital's rows on one machine; the server has none and never imports
this. All figures are on the same test parts as the agents'. AUCs are exact, where the server's own are binned.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from latticeward.agent.jobs import JOBS
from latticeward.agent.jobs.job import Job, SiteData
from latticeward.agent.trainers import TRAINERS
from latticeward.agent.trainers.trainer import TrainerSettings
from latticeward.errors import LayoutMismatchError, NotFoundError
from latticeward.updates.tensors import FloatVector, initial_vector

# Fewer patients of either class, and one of them moves the AUC by several points.
SMALL_CLASS: Final = 10


def exact_auc(scores: NDArray[Any], labels: NDArray[Any]) -> float | None:
    """The area under the ROC curve as a rank statistic; ties count by half.

    Args:
        scores: shape (n,).
        labels: shape (n,), each 0 or 1.

    Returns:
        In [0, 1], or None if a class is empty.

    Raises:
        LayoutMismatchError: the shapes differ.
    """
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise LayoutMismatchError("scores need as many labels")
    values, place = np.unique(scores, return_inverse=True)
    positives = np.bincount(place, weights=labels, minlength=values.size)
    negatives = np.bincount(place, weights=1 - labels, minlength=values.size)
    pairs = positives.sum() * negatives.sum()
    if pairs == 0:
        return None
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + 0.5 * negatives)).sum() / pairs)


def exact_accuracy(scores: NDArray[Any], labels: NDArray[Any]) -> float | None:
    """The share of rows whose largest class score, shape (n, classes), is that of the label; None without rows."""
    return float((scores.argmax(axis=1) == labels).mean()) if labels.size else None


_EXACT: Final = {"auc": exact_auc, "accuracy": exact_accuracy}


def evaluate_vector(job: str, vector: FloatVector) -> dict[str, Any]:
    """The job's metric of a model on all test rows together, and hospital by hospital.

    Args:
        job: a name of ``JOBS``.
        vector: float32, shape (d,).

    Returns:
        ``{"pooled": value, "by_site": {site: {"value": value or None, "small_sample": bool, "examples": n}}}``;
        ``small_sample`` where a class of the hospital's test part has fewer than ten examples.

    Raises:
        NotFoundError: an unknown job, or its data is not installed.
        LayoutMismatchError: the vector is not of the job's layout.
    """
    return _evaluate(_job(job), _load(job), vector)


def reference_results(job: str) -> dict[str, Any]:
    """Train with the job's own settings on all training rows together, and on each hospital's alone.

    Each reference makes as many passes over its rows as a device does over all rounds of a training, and is
    evaluated on the pooled test rows.

    Returns:
        ``{"central": value, "single": {site: value}}``.

    Raises:
        NotFoundError: an unknown job, or its data is not installed.
    """
    results = {site: evaluate_vector(job, vectors[-1])["pooled"] for site, vectors in reference_vectors(job)}
    return {"central": results.pop(""), "single": results}


def reference_vectors(job: str) -> Iterator[tuple[str, list[FloatVector]]]:
    """The references' models after as many passes as a device makes in 1, 2, … rounds.

    Yields:
        The empty text with the model of all training rows together, then each site's slug with its own.
    """
    known = _job(job)
    sites = _load(job)
    pooled = SiteData(
        train_x=np.concatenate([data.train_x for data in sites.values()]),
        train_y=np.concatenate([data.train_y for data in sites.values()]),
        test_x=np.concatenate([data.test_x for data in sites.values()]),
        test_y=np.concatenate([data.test_y for data in sites.values()]),
    )
    for site, data in {"": pooled, **sites}.items():
        yield site, _train_alone(known, data)


def _job(name: str) -> Job:
    if name not in JOBS:
        raise NotFoundError(f"no job is called {name!r}")
    return JOBS[name]


@cache
def _load(name: str) -> dict[str, SiteData]:
    job = _job(name)
    return {site: job.load_site(site) for site in job.sites}


def _train_alone(job: Job, data: SiteData) -> list[FloatVector]:
    trainer = TRAINERS[job.trainer](job.layout)
    settings = TrainerSettings.from_plan(job.default_plan["trainer"])
    rng = np.random.Generator(np.random.PCG64(7))
    vector = initial_vector(job.layout, job.initial)
    vectors = []
    # Round by round and not in one go: optimisers with a memory start afresh each round, as they do on a
    # device.
    for _ in range(job.default_plan["rounds"]):
        vector = vector + trainer.train(vector, data, settings, rng)[0]
        vectors.append(vector)
    return vectors


def _evaluate(job: Job, sites: dict[str, SiteData], vector: FloatVector) -> dict[str, Any]:
    trainer, measure = TRAINERS[job.trainer](job.layout), _EXACT[job.metric]
    scores = {site: trainer.scores(vector, data.test_x) for site, data in sites.items()}
    labels = {site: data.test_y for site, data in sites.items()}
    return {
        "pooled": measure(np.concatenate(list(scores.values())), np.concatenate(list(labels.values()))),
        "by_site": {
            site: {
                "value": measure(scores[site], labels[site]),
                "small_sample": int(np.bincount(labels[site], minlength=2).min()) < SMALL_CLASS,
                "examples": int(labels[site].size),
            }
            for site in sites
        },
    }
