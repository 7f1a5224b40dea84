"""From partial sums to a result that waits for its signature: merge, decode, step, seal and account.

All heavy work was done while updates arrived, so what is left does not grow with the cohort except by one stanza a
device. It may be repeated: what is prepared is not prepared again. ``signing.py`` makes the result true.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from controlplane.audit.selectors import newest_head
from controlplane.prepared import PreparedSelect, PreparedUpdate
from controlplane.transitions import apply_transition
from latticeward.aggregation import AGGREGATORS
from latticeward.errors import (
    CohortTooCloseError,
    ContributionError,
    KMinimumError,
    NotFoundError,
    QuorumNotMetError,
    UnsupportedSuiteError,
)
from latticeward.instants import to_unix_milliseconds
from latticeward.lifecycle import ROUND, RoundState
from latticeward.messages import RoundRecord
from latticeward.opening import codec_of
from latticeward.plan import RoundPlan
from latticeward.updates.encoding import DecodedSum
from latticeward.updates.ring import accumulate
from rounds.models import ModelVersion, Partial, Participant, Round, Submission
from rounds.services.cohorts import Cohort, measuring, require_hiding
from rounds.services.metrics import pooled_metric, shown_beside
from rounds.services.partials import commitment, load_partial, members_by_partial, require_members
from rounds.services.publication import ModelInMaking, keep_model

# A worker that is silent for longer has died, and another begins anew; twice the work gives the same bits.
LEASE: Final = timedelta(seconds=20)

# What is asked between a round's last update and its model: prepared, since everybody waits for it.
_ROUND: Final = PreparedSelect(
    lambda round_id: Round.objects.select_related("training__federation", "base_model").filter(pk=round_id), UUID
)
_CLAIM: Final = PreparedUpdate(
    lambda round_id, now, claim, until: (
        _unprepared(round_id).filter(Q(claimed_until=None) | Q(claimed_until__lt=now)),
        {"claim": claim, "claimed_until": until},
    ),
    UUID,
    datetime,
    UUID,
    datetime,
)
_RENEW: Final = PreparedUpdate(
    lambda round_id, claim, until: (_unprepared(round_id).filter(claim=claim), {"claimed_until": until}),
    UUID,
    UUID,
    datetime,
)
# In no order: a round's usual one asks for its training, whose row would be locked as well.
_LOCK: Final = PreparedSelect(
    lambda round_id: _unprepared(round_id).select_for_update().order_by().values_list("pk"), UUID
)
_PARTIALS: Final = PreparedSelect(lambda round_id: Partial.objects.filter(round_id=round_id).order_by("slot"), UUID)
_COUNTED: Final = PreparedSelect(
    lambda round_id: Submission.objects.filter(participant__round_id=round_id, outcome="accepted").values_list(
        "participant_id", "digest"
    ),
    UUID,
)
_PLACES: Final = PreparedSelect(
    lambda round_id: (
        Participant.objects.filter(round_id=round_id)
        .order_by("device_id")
        .values_list("id", "device_id", "device__site__name", "state", "code", "metric")
    ),
    UUID,
)


def _unprepared(round_id: UUID) -> QuerySet[Round]:
    return Round.objects.filter(pk=round_id, state=RoundState.AGGREGATING, record=None)


def aggregate_round(round_id: UUID) -> bool:
    """Merge the partials of a closed round and prepare its result.

    One worker at a time: a second call leaves while the first one's lease lasts.

    Returns:
        Whether a result is prepared and waits for the authority's signature.
    """
    current = _ROUND.first(round_id)
    if current is None:
        raise NotFoundError(f"round {round_id}")
    if current.state != RoundState.AGGREGATING:
        return False
    if current.record is not None:
        return True
    claim, now = uuid4(), timezone.now()
    if not _CLAIM(round_id, now, claim, now + LEASE):
        return False

    def renew() -> None:
        # A large model takes longer than one lease; whoever has lost it goes on, since the result is the same.
        _RENEW(round_id, claim, timezone.now() + LEASE)

    try:
        _prepare(current, renew)
    except (
        ContributionError,
        QuorumNotMetError,
        KMinimumError,
        CohortTooCloseError,
        UnsupportedSuiteError,
    ) as error:
        apply_transition(
            current,
            ROUND,
            "fail",
            actor="worker:aggregate",
            feed=current.feed,
            details={"code": error.code, "number": current.number},
            failure_code=error.code,
            state_due_at=None,
        )
        return False
    except BaseException:
        _unprepared(round_id).filter(claim=claim).update(claim=None, claimed_until=None)
        raise
    return True


def _prepare(current: Round, renew: Callable[[], None]) -> None:
    plan = current.training.round_plan
    started = time.perf_counter()
    cohort = require_hiding(current, plan)
    with ThreadPoolExecutor(2) as beside:
        making = ModelInMaking(current, plan, beside) if current.kind == "training" else None
        decoded, commitments = _merge(current, plan, len(cohort), renew, beside)
        merged_at = time.perf_counter()
        renew()
        if making:
            making.begin(decoded)
        with transaction.atomic():
            # A second worker that merged the same members computed the same result: the first one's stands.
            if not _LOCK.first(current.id):
                return
            behind = measuring(current)
            metric = pooled_metric(current, plan, decoded, behind)
            withheld = _withheld(current, plan, metric, behind)
            participants = _participants(current, withheld)
            if making:
                making.keep_stanzas()
            model = making.finish() if making else None
            sealed_at = time.perf_counter()
            hashed = [each.result() for each in commitments]
            account = _account(current, plan, model, metric, participants, hashed, len(cohort))
            if model is not None:
                keep_model(current, model)
            if withheld:
                current.participants.filter(device__in=withheld).update(metric=None)
            Round.objects.filter(pk=current.pk).update(
                record=account.to_bytes(),
                model=model,
                metric_value=metric["value"] if metric else None,
                metric_support={"hospitals": metric["hospitals"], "patients": metric["patients"]} if metric else None,
                stage_seconds={"merge": merged_at - started, "seal": sealed_at - merged_at},
            )


def _withheld(current: Round, plan: RoundPlan, pooled: dict[str, Any] | None, behind: Cohort) -> set[UUID]:
    """The devices whose own metrics would tell, beside the pooled one, of fewer than k others."""
    if not plan.release.hospital_metrics:
        return set()  # none was kept
    own = {row.device_id: (behind[row.device_id], row.metric) for row in current.participants.filter(device__in=behind)}
    return set(own) - shown_beside(plan, own, pooled)


def _merge(
    current: Round, plan: RoundPlan, accepted: int, renew: Callable[[], None], beside: ThreadPoolExecutor
) -> tuple[DecodedSum, list[Future[bytes]]]:
    """The mean of what all partials hold, which are ``accepted`` updates, and a commitment to each partial."""
    codec = codec_of(plan)
    total: Any = None
    # Hashing takes as long as all else that is done to a partial, and needs nothing of it.
    commitments: list[Future[bytes]] = []
    seen: set[str] = set()
    held = members_by_partial(current.id)
    for partial in _PARTIALS(current.id):
        members = held.get(partial.id, [])
        require_members(partial, members)
        if seen & set(members):
            raise AssertionError(f"partial {partial.slot} of round {current.id} holds what another holds")
        seen |= set(members)
        if total is not None:
            renew()
        vector = load_partial(partial, codec.dtype)
        commitments.append(beside.submit(commitment, vector, bytes(partial.commitment_salt)))
        if total is None:
            total = vector
        else:
            commitments[0].result()  # the first partial becomes the sum, once it is hashed
            accumulate(total, vector)
    if accepted != len(seen):
        raise AssertionError(f"round {current.id} accepted {accepted} updates and its partials hold {len(seen)}")
    if total is None:
        raise QuorumNotMetError(f"round {current.id} holds no update")
    decoded = AGGREGATORS[plan.aggregator].aggregate_sum(total, codec)
    if current.kind == "training" and plan.weight_rule == "examples" and decoded.examples < plan.k_patients:
        raise KMinimumError(f"round {current.id} was learnt from {decoded.examples:.0f} patients")
    return decoded, commitments


def _participants(current: Round, withheld: set[UUID]) -> tuple[dict[str, Any], ...]:
    """What the record says of each participant."""
    counted = dict(_COUNTED(current.id))
    return tuple(
        {
            "device_id": str(device_id),
            "site": site,
            "outcome": state,
            "code": code or None,
            "submission_digest": bytes.fromhex(counted[identity]) if identity in counted else None,
            "metric": own if device_id not in withheld else None,
        }
        for identity, device_id, site, state, code, own in _PLACES(current.id)
    )


def _account(
    current: Round,
    plan: RoundPlan,
    model: ModelVersion | None,
    metric: dict[str, Any] | None,
    participants: tuple[dict[str, Any], ...],
    commitments: list[bytes],
    accepted: int,
) -> RoundRecord:
    return RoundRecord(
        round_id=str(current.id),
        training_id=plan.training_id,
        federation_id=plan.federation_id,
        number=current.number,
        kind=current.kind,
        plan_digest=bytes(current.training.plan_digest),
        base_model_digest=bytes(current.base_model_digest),
        weights_digest=bytes(model.weights_digest) if model else None,
        model_id=str(model.id) if model else None,
        suite=plan.suite,
        protection=plan.protection,
        aggregator=plan.aggregator,
        participants=participants,
        accepted=accepted,
        quorum=current.quorum,
        partial_commitments=tuple(commitments),
        metric=metric,
        noise_multiplier=plan.noise_multiplier,
        epsilon_spent=None,  # plans with noise, which alone could promise a number, are refused
        delta=None,
        ledger=newest_head(),
        opened_at=to_unix_milliseconds(current.opened_at or current.created_at),
        closed_at=to_unix_milliseconds(current.closed_at or timezone.now()),
    )
