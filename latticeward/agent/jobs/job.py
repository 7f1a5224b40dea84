"""A job as an agent has it: the shared specification plus the loading of one site's rows."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from latticeward.jobs import JobSpec
from latticeward.updates.tensors import FloatVector


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteData:
    """One hospital's encoded rows, split once and for all.

    Attributes:
        train_x, test_x: float32, shape (n, features).
        train_y, test_y: int64, shape (n,), each 0 or 1, or the number of one of several classes.
    """

    train_x: FloatVector
    train_y: NDArray[np.int64]
    test_x: FloatVector
    test_y: NDArray[np.int64]

    @property
    def num_examples(self) -> int:
        """Rows that training uses: the weight of this hospital's update."""
        return int(self.train_y.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(JobSpec):
    """A job that this machine can run.

    Attributes:
        load_site: a site's slug -> its rows and no other's; ``NotFoundError`` for an unknown slug.
    """

    load_site: Callable[[str], SiteData]

    @classmethod
    def of(cls, spec: JobSpec, load_site: Callable[[str], SiteData]) -> Self:
        """The job of a specification, with its data."""
        return cls(**{field.name: getattr(spec, field.name) for field in fields(spec)}, load_site=load_site)
