"""How two versions' weights differ, worked out where they may be opened: a person asks, the aggregation worker answers.

The web tier holds no content key, so the question is a row and the answer is written into it once. Two versions never
change, so an answer holds for ever and the same question is not worked out twice.
"""

from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from latticeward.errors import InvalidValueError, LatticewardError, NotFoundError, TooManyRequestsError
from latticeward.updates.differences import TensorDifference, compare_weights
from rounds.models import ModelDifference, ModelVersion
from rounds.services.publication import open_model

# The worker that answers also ends rounds, and readers may ask about every pair of versions.
WAITING_AT_MOST: Final = 16


def request_difference(*, before: ModelVersion, after: ModelVersion, actor: str) -> ModelDifference:
    """Ask how ``after`` differs from ``before``; asked again, the same row comes back.

    Raises:
        InvalidValueError: it is one version twice.
        NotFoundError: they are of two federations.
        TooManyRequestsError: as many questions as may wait wait for the worker already.
    """
    if before.id == after.id:
        raise InvalidValueError("A version does not differ from itself: choose two.")
    if before.training.federation_id != after.training.federation_id:
        raise NotFoundError(f"models {before.id} and {after.id} are of two federations")
    with transaction.atomic():
        row, made = ModelDifference.objects.get_or_create(
            before=before, after=after, defaults={"requested_by": actor, "requested_at": timezone.now()}
        )
        if made:
            if ModelDifference.objects.filter(computed_at__isnull=True).count() > WAITING_AT_MOST:
                raise TooManyRequestsError(f"{WAITING_AT_MOST} differences wait for the aggregation worker")
            record(
                "model.compared",
                actor=actor,
                feed=after.training.federation.feed,
                subject=("model", after.id),
                details={"number": after.number, "before": str(before.id)},
            )
    return row


def compute_difference(difference_id: UUID) -> None:
    """Aggregation worker: open both versions, compare, and keep what was found; or why it could not be."""
    rows = ModelDifference.objects.select_related("before__training", "after__training")
    if (asked := rows.filter(pk=difference_id).first()) is None:
        raise NotFoundError(f"difference {difference_id}")
    if asked.computed_at is not None:
        return
    result, code = None, ""
    try:
        tensors, total = compare_weights(
            asked.before.training.round_plan.layout,
            open_model(asked.before),
            asked.after.training.round_plan.layout,
            open_model(asked.after),
        )
        result = {"tensors": [_as_json(row) for row in tensors], "total": _as_json(total) if total else None}
    except LatticewardError as error:
        code = error.code
    waiting = ModelDifference.objects.filter(pk=asked.pk, computed_at__isnull=True)
    waiting.update(result=result, failure_code=code, computed_at=timezone.now())


def _as_json(row: TensorDifference) -> dict[str, Any]:
    shapes = {
        name: list(shape) if (shape := getattr(row, name)) is not None else None
        for name in ("before_shape", "after_shape")
    }
    return {**asdict(row), "change": str(row.change), **shapes}
