"""Metrics out of counts, held to the plan's k-minimum: what is below it is not kept, so that nobody can be shown it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import numpy as np

from latticeward.plan import RoundPlan
from latticeward.updates.encoding import DecodedSum
from latticeward.updates.metrics import METRICS
from latticeward.updates.ring import RingVector
from rounds.models import Round
from rounds.services.cohorts import Cohort, hides_metric

# By device: its hospital, and its own metric if that may be kept.
OwnMetrics = Mapping[UUID, tuple[UUID, Mapping[str, Any] | None]]


def pooled_metric(current: Round, plan: RoundPlan, decoded: DecodedSum, behind: Cohort) -> dict[str, Any] | None:
    """The pooled metric, or None when it would tell of fewer hospitals or patients than the plan's k.

    Args:
        behind: who stands behind it, as ``cohorts.measuring`` found it.
    """
    summary = METRICS[plan.metric].summarise(decoded.metric_counts)
    if summary.value is None or summary.examples < plan.k_patients or not hides_metric(current, plan, behind):
        return None
    hospitals = len(set(behind.values()))
    return {"name": plan.metric, "value": summary.value, "hospitals": hospitals, "patients": summary.examples}


def shown_beside(plan: RoundPlan, own: OwnMetrics, pooled: Mapping[str, Any] | None) -> set[UUID]:
    """The devices whose hospitals' own metrics may be shown beside the pooled one.

    Whoever subtracts them from the pooled metric learns of the others together, so those must be nobody or make up the
    plan's k: while they do not, the value of the fewest patients is not shown either.

    Args:
        own: of every device with test patients its hospital, and its metric where that keeps its own minimum.
        pooled: as ``pooled_metric`` returned it; where it is None there is nothing to subtract from.
    """
    shown = {device: (metric["patients"], device) for device, (_, metric) in own.items() if metric is not None}
    while pooled is not None and shown:
        hidden = {site for device, (site, _) in own.items() if device not in shown}
        patients = pooled["patients"] - sum(count for count, _ in shown.values())
        if not hidden or (len(hidden) >= plan.k_hospitals and patients >= plan.k_patients):
            break
        del shown[min(shown, key=shown.__getitem__)]
    return set(shown)


def measures(plan: RoundPlan, vector: RingVector) -> bool:
    """Whether a validated contribution, shape (d + 1 + m,), has test patients behind it: it counts for k only then."""
    return bool(vector[-plan.metric_size :].any())


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
