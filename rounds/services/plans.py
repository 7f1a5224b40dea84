"""Making a plan: a job's defaults, what a start's training promised, and what an operator wants otherwise."""

import time
from dataclasses import fields
from typing import Any
from uuid import uuid4

from devices.models import Federation
from devices.suites import accepted_suites
from latticeward.errors import IncompatiblePlanError
from latticeward.jobs import JOB_SPECS
from latticeward.plan import PARTS, RoundPlan
from latticeward.updates.metrics import METRICS
from rounds.registry.selectors import published_model
from rounds.services.starts import named

# A start's training has promised these to its hospitals; a lower promise would be refused (ADR 0033).
_INHERITED = ("suite", "sensitivity", "quorum", "k_hospitals", "k_patients")
_FIXED = {"training_id", "federation_id", "layout", "initial", "metric", "metric_size", "created_at", "job"}


def plan_for(request: dict[str, Any], federation: Federation) -> RoundPlan:
    """A plan from a job's defaults, what it inherits from its start's training, and what the operator wants otherwise.

    Raises:
        IncompatiblePlanError: an override names no field that an operator may choose.
        NotFoundError: there is no such version to start from.
    """
    job = JOB_SPECS[request["job"]]
    start = published_model(request["start_from"]) if request.get("start_from") else None
    inherited = {name: getattr(start.training.round_plan, name) for name in _INHERITED} if start else {}
    overrides = dict(request.get("plan") or {})
    if "rounds" in request:
        overrides["rounds"] = request["rounds"]
    known = {field.name for field in fields(RoundPlan)} - _FIXED
    if unknown := set(overrides) - known:
        raise IncompatiblePlanError(f"the plan has no field {sorted(unknown)[0]!r} that you could choose")
    metric = METRICS[job.metric]
    values: dict[str, Any] = {
        **job.default_plan,
        "suite": accepted_suites()[0],
        **inherited,
        **{name: request[name] for name in ("suite",) if name in request},
        "title": request.get("title") or job.title,
        **overrides,
    }
    try:
        values |= {name: PARTS[name](**overrides[name]) for name in PARTS.keys() & overrides.keys()}
        return RoundPlan(
            training_id=str(uuid4()),
            federation_id=str(federation.id),
            job=job.name,
            layout=job.layout,
            initial=named(start).to_initial() if start else job.initial,
            metric=job.metric,
            metric_size=metric.size,
            created_at=int(time.time() * 1000),
            **values,
        ).validate()
    except (TypeError, ValueError) as error:
        raise IncompatiblePlanError("a field of the plan has a value of the wrong kind") from error
