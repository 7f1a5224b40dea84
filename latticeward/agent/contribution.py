"""The hospital's side of training: one job, one site's rows, and the secrets that a submission needs."""

from typing import Any

from latticeward.agent.jobs import JOBS
from latticeward.agent.jobs.job import Job, SiteData
from latticeward.agent.pipeline import prepare_submission
from latticeward.crypto.keys import CompositeSigningKey
from latticeward.errors import NotFoundError
from latticeward.messages import Assignment
from latticeward.plan import RoundPlan
from latticeward.updates.tensors import FloatVector


class SiteContributor:
    """Prepares submissions of one site for one job; the rows are loaded once."""

    def __init__(self, *, job: Job, data: SiteData, signing_key: CompositeSigningKey, local_seed: bytes) -> None:
        self.job = job
        self._data = data
        self._signing_key = signing_key
        self._local_seed = local_seed

    def prepare(
        self, plan: RoundPlan, assignment: Assignment, base_vector: FloatVector, *, created_at: int
    ) -> tuple[bytes, bytes, dict[str, Any]]:
        """See ``pipeline.prepare_submission``."""
        return prepare_submission(
            plan=plan,
            assignment=assignment,
            job=self.job,
            base_vector=base_vector,
            data=self._data,
            signing_key=self._signing_key,
            device_seed=self._local_seed,
            created_at=created_at,
        )


def find_job(name: str) -> Job:
    """A job by its name.

    Raises:
        NotFoundError: this version knows no such job.
    """
    try:
        return JOBS[name]
    except KeyError as exc:
        raise NotFoundError(f"no job is named {name!r}; this version knows {', '.join(sorted(JOBS))}") from exc
