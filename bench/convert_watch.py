"""Turn the smartwatch recordings of the PyPI package ``seglearn`` into the plain arrays that the job ``watch`` reads.

Run once, by hand, on a copy of ``seglearn/data/watch_dataset.npy`` (its digest is compared first): the file is a
pickle, and nothing of the product ever opens one. What comes out is ``latticeward/agent/jobs/data/watch.npz``: 25 Hz
instead of 50 (means of two), as whole steps of a twelve-bit range for each channel.
"""

import hashlib
import sys
from pathlib import Path
from typing import Final

import numpy as np

from latticeward.agent.jobs.watch import DATA_FILE

SOURCE_SHA256: Final = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
FULL_RANGE: Final = 2047


def convert(source: Path, target: Path) -> None:
    """Read the pickle, write the arrays."""
    raw = source.read_bytes()
    if hashlib.sha256(raw).hexdigest() != SOURCE_SHA256:
        raise SystemExit(f"{source} is not the file that was converted; it is a pickle and is not opened")
    data = np.load(source, allow_pickle=True).item()
    halved = [row[: len(row) // 2 * 2].reshape(-1, 2, row.shape[1]).mean(axis=1) for row in data["X"]]
    scale = np.abs(np.concatenate(halved)).max(axis=0) / FULL_RANGE
    np.savez_compressed(
        target,
        samples=np.round(np.concatenate(halved) / scale).astype(np.int16),
        lengths=np.array([len(row) for row in halved], dtype=np.int32),
        unit=scale.astype(np.float32),
        exercise=data["y"].astype(np.int8),
        subject=data["subject"].astype(np.int8),
    )


if __name__ == "__main__":
    convert(Path(sys.argv[1]), DATA_FILE)
