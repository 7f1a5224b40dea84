"""Metrics out of counts, held to the plan's k-minimum: what is below it is not kept, so that nobody can be shown it."""

from typing import Any

import numpy as np

from latticeward.plan import RoundPlan
from latticeward.updates.encoding import DecodedSum
from latticeward.updates.metrics import METRICS
from latticeward.updates.ring import RingVector


def pooled_metric(plan: RoundPlan, decoded: DecodedSum, hospitals: int) -> dict[str, Any] | None:
    """The pooled metric, or None when fewer hospitals or patients stand behind it than the plan's k."""
    summary = METRICS[plan.metric].summarise(decoded.metric_counts)
    if summary.value is None or hospitals < plan.k_hospitals or summary.examples < plan.k_patients:
        return None
    return {"name": plan.metric, "value": summary.value, "hospitals": hospitals, "patients": summary.examples}


def hospital_metric(plan: RoundPlan, vector: RingVector) -> dict[str, Any] | None:
    """One hospital's own metric out of its contribution, if the plan releases it and enough patients are behind it.

    Args:
        vector: a validated contribution, shape (d + 1 + m,).
    """
    if not plan.release.hospital_metrics:
        return None
    summary = METRICS[plan.metric].summarise(vector[-plan.metric_size :].astype(np.int64))
    if summary.value is None or summary.smallest_class < plan.release.patients_per_class:
        return None
    return {"name": plan.metric, "value": summary.value, "patients": summary.examples}
