"""The table of jobs that an agent can run; each is a file here and a line in ``latticeward/jobs.py``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from latticeward.agent.jobs import heart, thyroid, watch
from latticeward.agent.jobs.job import Job

JOBS: Final[Mapping[str, Job]] = MappingProxyType({job.name: job for job in (heart.JOB, thyroid.JOB, watch.JOB)})
