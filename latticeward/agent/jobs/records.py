"""Reading a packaged CSV file, splitting one hospital's rows, and encoding features with committed constants.

Nothing here looks at more than one hospital: scaling uses fixed clinical constants, never statistics of
pooled rows, since those would carry the other hospitals' patients into the preprocessing.
"""

import csv
import hashlib
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from latticeward.agent.jobs.job import SiteData
from latticeward.errors import NotFoundError
from latticeward.updates.tensors import FloatVector

SPLIT_SEED: Final = 7
TEST_SHARE: Final = 0.3

Row = Mapping[str, str]


def read_rows(package: str, file_name: str) -> Iterator[Row]:
    """The rows of ``data/<file_name>`` in an installed package, as text by column.

    The package is located, not imported: these data packages import pandas when they are, which would more
    than double an agent's memory.

    Raises:
        NotFoundError: the package or its file is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(f"the data package {package!r} is not installed")
    path = Path(spec.submodule_search_locations[0]) / "data" / file_name
    if not path.is_file():
        raise NotFoundError(f"{package} holds no file {file_name}")
    with path.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


@dataclass(frozen=True, slots=True)
class Number:
    """A measured quantity: (f(x) - centre) / spread, then a flag that is 1 where it was not measured.

    Attributes:
        low, high: values outside are held at the limit; impossible ones occur in the files.
        zero_is_missing: a zero stands for "not measured", as for serum cholesterol.
        logarithmic: f is the natural logarithm; ``centre`` and ``spread`` are in its unit.
        flagged: whether the missing flag is a feature.
    """

    column: str
    centre: float
    spread: float
    low: float
    high: float
    zero_is_missing: bool = False
    logarithmic: bool = False
    flagged: bool = True

    def encode(self, row: Row) -> list[float]:
        """One value (0, the centre, where missing) and, if flagged, its flag."""
        text = row[self.column].strip()
        value = float(text) if text else 0.0
        if not text or (self.zero_is_missing and value == 0.0):
            return [0.0, 1.0][: 1 + self.flagged]
        held = min(max(value, self.low), self.high)
        scaled = ((math.log(held) if self.logarithmic else held) - self.centre) / self.spread
        return [scaled, 0.0][: 1 + self.flagged]


@dataclass(frozen=True, slots=True)
class Choice:
    """A category: one indicator a listed value, then a flag that is 1 where none was recorded.

    A value that is not listed has no indicator set; with two values, list one.
    """

    column: str
    values: tuple[str, ...]
    flagged: bool = True

    def encode(self, row: Row) -> list[float]:
        """``len(values)`` indicators and, if flagged, the missing flag."""
        text = row[self.column].strip()
        indicators = [float(text == value) for value in self.values]
        return [*indicators, float(not text)] if self.flagged else indicators


def encode_rows(rows: Sequence[Row], features: Sequence[Number | Choice]) -> FloatVector:
    """float32 matrix, shape (len(rows), encoded features), columns in the order of ``features``."""
    return np.array([[x for feature in features for x in feature.encode(row)] for row in rows], dtype=np.float32)


def split_site(job: str, site: str, identities: Sequence[str], x: FloatVector, y: NDArray[np.int64]) -> SiteData:
    """Put 30 % of each class into the test part, by a draw that depends on the patients' identities alone.

    Patients are ordered by a hash of seed, job, site and identity, so the split is the same with any version
    of any library, and adding a patient moves hardly any other.

    Args:
        identities: a distinct text a row.
        x: float32, shape (n, features).
        y: int64, shape (n,), each 0 or 1.
    """
    keys = [hashlib.sha256(f"{SPLIT_SEED}|{job}|{site}|{identity}".encode()).digest() for identity in identities]
    drawn = sorted(range(len(keys)), key=keys.__getitem__)
    in_test = np.zeros(y.size, dtype=np.bool_)
    for label in (0, 1):
        members = [index for index in drawn if y[index] == label]
        in_test[members[: math.floor(TEST_SHARE * len(members) + 0.5)]] = True
    return SiteData(train_x=x[~in_test], train_y=y[~in_test], test_x=x[in_test], test_y=y[in_test])
