"""Telling of stored plans that are not those that were signed: whoever changed one wrote to the database by hand.

A running training fails over it by itself, and pages and answers refuse to speak by such a plan; a training that has
ended would keep silent about it, so every plan is looked at now and then.
"""

from django.db import transaction

from controlplane.audit.models import AuditEntry
from controlplane.audit.services import record
from latticeward.errors import PlanChangedError
from rounds.models import Training

_EVENT = "training.plan_changed"


def report_changed_plans() -> int:
    """Write into the ledger, once for each, which stored plans are not the signed ones; returns how many are new."""
    told = set(AuditEntry.objects.filter(event=_EVENT).values_list("subject_id", flat=True))
    rows = Training.objects.select_related("federation").defer("signed_plan")
    new = [row for row in rows.iterator(chunk_size=50) if str(row.id) not in told and _is_changed(row)]
    for training in new:
        with transaction.atomic():
            record(
                _EVENT,
                actor="system",
                feed=training.federation.feed,
                subject=("training", training.id),
                details={"title": training.title, "state": training.state},
            )
    return len(new)


def _is_changed(training: Training) -> bool:
    try:
        training.round_plan  # noqa: B018 - reading it is the question
    except PlanChangedError:
        return True
    return False
