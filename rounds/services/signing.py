"""The authority's part of a round: it signs what the aggregation worker prepared, and the result becomes true.

That worker wrote the record, and whoever can write to the database could have changed it since. None is signed that is
of another round or that breaks the plan.
"""

import logging
import time
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from controlplane.prepared import PreparedSelect
from controlplane.transitions import apply_transition
from keys.services import sign_with
from latticeward.crypto.signing import Purpose
from latticeward.errors import LedgerError, ProtocolError, WrongContextError
from latticeward.lifecycle import ROUND, RoundState
from latticeward.messages import RoundRecord
from latticeward.records import require_promises
from rounds.models import ModelVersion, Round

logger = logging.getLogger(__name__)

_PUBLISHABLE: Final = PreparedSelect(
    lambda round_id: Round.objects.select_related("model", "training").filter(
        pk=round_id, state=RoundState.AGGREGATING
    ),
    UUID,
)


def publish_round(round_id: UUID) -> UUID | None:
    """Authority worker: sign manifest and record and publish; or fail the round whose record it does not sign.

    Returns:
        The training that may now go on, None if there was nothing to publish.
    """
    started = time.perf_counter()
    current = _PUBLISHABLE.first(round_id)
    if current is None or current.record is None:
        return None
    try:
        record = _signable(current, bytes(current.record))
    except (ProtocolError, WrongContextError, LedgerError) as error:
        logger.error("round %s: its record is not signed: %s", round_id, error)
        apply_transition(
            current,
            ROUND,
            "fail",
            actor="worker:authority",
            feed=current.feed,
            details={"code": "record_refused", "number": current.number},
            failure_code="record_refused",
            state_due_at=None,
        )
        return current.training_id
    signed_record = sign_with(Purpose.ROUND_RECORD, bytes(current.record))
    signed_manifest = sign_with(Purpose.MODEL_MANIFEST, bytes(current.model.manifest)) if current.model else None
    with transaction.atomic():
        if current.model and signed_manifest:
            ModelVersion.objects.filter(pk=current.model.pk).update(signed_manifest=signed_manifest)
        apply_transition(
            current,
            ROUND,
            "publish",
            actor="worker:authority",
            feed=current.feed,
            details={
                "number": current.number,
                "kind": current.kind,
                "training": str(current.training_id),
                "model": str(current.model_id) if current.model_id else None,
                "metric": {"name": current.metric_name, "value": current.metric_value},
                "record": record.digest.hex(),
            },
            signed_record=signed_record,
            published_at=timezone.now(),
            state_due_at=None,
            stage_seconds={**current.stage_seconds, "publish": time.perf_counter() - started},
        )
    return current.training_id


def _signable(current: Round, raw: bytes) -> RoundRecord:
    """The record of a round, if it is this round's and keeps the plan's promises.

    Raises:
        ProtocolError: it is no record.
        WrongContextError: it is of another round, plan or model, or the plan is not the signed one.
        LedgerError: it breaks the plan.
    """
    record = RoundRecord.from_bytes(raw)
    plan = current.training.round_plan
    expected = {
        "round_id": str(current.id),
        "training_id": plan.training_id,
        "federation_id": plan.federation_id,
        "number": current.number,
        "kind": current.kind,
        "plan_digest": bytes(current.training.plan_digest),
        "base_model_digest": bytes(current.base_model_digest),
        "model_id": str(current.model.id) if current.model else None,
        "weights_digest": bytes(current.model.weights_digest) if current.model else None,
    }
    for name, value in expected.items():
        if getattr(record, name) != value:
            raise WrongContextError(f"the record's {name} is not this round's")
    require_promises(record, plan)
    return record
