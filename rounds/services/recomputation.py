"""An auditor's question to the aggregation worker: does a published round follow from the envelopes that it counted?

The answer is yes, or the first difference. It is worked out inside the worker's boundary, from the stored envelopes,
and nothing of a single hospital leaves it. It can be asked until the round's key is destroyed.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from keys.selectors import server_verify_key
from latticeward.aggregation import AGGREGATORS
from latticeward.crypto.signing import Purpose
from latticeward.errors import NotFoundError, RecomputationError
from latticeward.lifecycle import RoundState
from latticeward.messages import ModelManifest, RoundRecord
from latticeward.updates.ring import RingVector, accumulate
from latticeward.updates.tensors import weights_digest
from rounds.models import Contribution, Partial, Round
from rounds.services.cohorts import measuring
from rounds.services.metrics import hospital_metric, measures, pooled_metric, shown_beside
from rounds.services.opening import opening_of, reopen_submission
from rounds.services.partials import commitment
from rounds.services.publication import base_weights, next_weights


@dataclass(frozen=True, slots=True)
class Recomputation:
    """Proof that a round was worked out again and came to the same."""

    round_id: UUID
    updates: int
    partials: int
    weights_digest: bytes | None


def recompute_round(round_id: UUID) -> Recomputation:
    """Work a published round out again and compare.

    1. The signed record verifies.
    2. The envelopes that the partials hold are those that the record counts, each still verifies, opens and is valid.
    3. Their sums are what the record commits to.
    4. The step from the base model gives the weights that the signed manifest names.
    5. The metrics, pooled and released, are the record's.

    Raises:
        NotFoundError: there is no such published round.
        KeyUsageError: the round's key was destroyed after the recomputation window.
        RecomputationError: something differs; the message says what.
    """
    current = Round.objects.select_related("training__federation", "base_model", "model").filter(pk=round_id).first()
    if current is None or current.state != RoundState.PUBLISHED or current.signed_record is None:
        raise NotFoundError(f"no published round {round_id}")
    opening = opening_of(current)
    plan, codec = opening.plan, opening.codec

    # 1
    record = RoundRecord.verify(bytes(current.signed_record), key=server_verify_key(Purpose.ROUND_RECORD))

    # 2
    sums: dict[int, RingVector] = defaultdict(codec.empty_sum)
    counted: dict[bytes, dict[str, Any] | None] = {}
    devices: dict[UUID, bytes] = {}
    own: dict[UUID, tuple[UUID, dict[str, Any] | None]] = {}
    contributions = Contribution.objects.filter(partial__round=current).select_related(
        "partial", "submission__participant__device", "submission__participant__round__training"
    )
    for contribution in contributions:
        vector = reopen_submission(contribution.submission, opening).vector
        digest, device = bytes.fromhex(contribution.submission.digest), contribution.submission.participant.device
        counted[digest] = hospital_metric(plan, vector)
        if contribution.measures != measures(plan, vector):
            raise RecomputationError(f"round {round_id}: who counts for the metric does not follow from the updates")
        if contribution.measures:
            devices[device.id], own[device.id] = digest, (device.site_id, counted[digest])
        accumulate(sums[contribution.partial.slot], vector)
    named = {row["submission_digest"]: _plain(row["metric"]) for row in record.participants if row["submission_digest"]}
    if counted.keys() != named.keys() or len(contributions) != record.accepted:
        raise RecomputationError(f"round {round_id}: the record counts other submissions than the partials hold")

    # 3
    partials = Partial.objects.filter(round=current).order_by("slot")
    committed = tuple(commitment(sums[partial.slot], bytes(partial.commitment_salt)) for partial in partials)
    if committed != record.partial_commitments:
        raise RecomputationError(f"round {round_id}: a partial sum is not what the record commits to")

    # 4
    total = codec.empty_sum()
    accumulate(total, *sums.values())
    decoded = AGGREGATORS[plan.aggregator].aggregate_sum(total, codec)
    weights = None
    if current.model is not None:
        manifest = ModelManifest.verify(
            bytes(current.model.signed_manifest or b""), key=server_verify_key(Purpose.MODEL_MANIFEST)
        )
        weights = weights_digest(next_weights(current, plan, base_weights(current, plan), decoded)[0])
        if not weights == manifest.weights_digest == record.weights_digest:
            raise RecomputationError(f"round {round_id}: the model does not follow from the updates")

    # 5
    pooled = pooled_metric(current, plan, decoded, measuring(current))
    if pooled != _plain(record.metric):
        raise RecomputationError(f"round {round_id}: the metric does not follow from the updates")
    shown = {devices[device] for device in shown_beside(plan, own, pooled)}
    if {digest: metric if digest in shown else None for digest, metric in counted.items()} != named:
        raise RecomputationError(f"round {round_id}: a hospital's own metric does not follow from its update")
    return Recomputation(round_id, record.accepted, len(committed), weights)


def _plain(metric: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return dict(metric) if metric is not None else None
