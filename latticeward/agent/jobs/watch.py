"""Shoulder exercises seen by a smartwatch: six channels of motion, seven exercises, ten people (Burns et al. 2018).

The recordings are those of the package ``seglearn`` (D. M. Burns, BSD licence, see ``data/LICENSE-watch.txt``),
converted once to plain arrays at 25 Hz (``bench/convert_watch.py``). A hospital has all recordings of its own
patients and of nobody else's. An example is a window of four seconds, not a patient.
"""

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from latticeward.agent.jobs.job import Job, SiteData
from latticeward.errors import NotFoundError
from latticeward.jobs import WATCH, WATCH_CHANNELS, WATCH_WINDOW
from latticeward.updates.tensors import FloatVector

DATA_FILE: Final = Path(__file__).parent / "data" / "watch.npz"

_PATIENTS: Final = {
    "harbour-clinic": (1, 2, 3),
    "meadow-clinic": (4, 5, 6),
    "hill-clinic": (7, 8),
    "river-clinic": (9, 10),
}
_STEP: Final = 25  # samples: one second
# The last quarter of every recording is the test part; a training window ends before it begins.
_TRAINING_SHARE: Final = 0.75
# Acceleration in g and turning rate in rad/s: round figures of an arm's motion, not statistics of these people.
_SPREAD: Final = np.array([1.0, 0.5, 0.5, 1.0, 2.5, 1.0], dtype=np.float32)


def load_site(site: str) -> SiteData:
    """The windows of one clinic's patients: each row has the samples of one channel after the other's.

    Args:
        site: a slug of ``WATCH.sites``.

    Raises:
        NotFoundError: the job knows no such site.
    """
    if site not in _PATIENTS:
        raise NotFoundError(f"the job {WATCH.name!r} knows no site {site!r}")
    parts: dict[str, list[tuple[FloatVector, int]]] = {"train": [], "test": []}
    for subject, exercise, samples in _recordings():
        if subject in _PATIENTS[site]:
            border = int(_TRAINING_SHARE * len(samples))
            parts["train"] += [(window, exercise) for window in _windows(samples[:border])]
            parts["test"] += [(window, exercise) for window in _windows(samples[border:])]
    return SiteData(
        train_x=np.stack([window for window, _ in parts["train"]]),
        train_y=np.array([label for _, label in parts["train"]], dtype=np.int64),
        test_x=np.stack([window for window, _ in parts["test"]]),
        test_y=np.array([label for _, label in parts["test"]], dtype=np.int64),
    )


@cache
def _recordings() -> list[tuple[int, int, FloatVector]]:
    """Subject, exercise and samples (n, channels) of each recording."""
    with np.load(DATA_FILE, allow_pickle=False) as data:
        samples = data["samples"] * (data["unit"] / _SPREAD)
        pieces: list[NDArray[np.float32]] = np.split(samples, np.cumsum(data["lengths"])[:-1])
        return list(zip(data["subject"].tolist(), data["exercise"].tolist(), pieces, strict=True))


def _windows(samples: FloatVector) -> list[FloatVector]:
    starts = range(0, len(samples) - WATCH_WINDOW + 1, _STEP)
    return [samples[start : start + WATCH_WINDOW].T.reshape(WATCH_CHANNELS * WATCH_WINDOW) for start in starts]


JOB: Final = Job.of(WATCH, load_site)
