"""Opening trainings, ending them, and opening each next round of a running one.

Every function is safe to repeat: a second call finds the state moved and leaves. None of them enqueues; the doors and
tasks do, after the commit.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from devices.models import Device, Federation
from devices.selectors import active_devices
from devices.suites import accepted_suites, require_accepted, suits
from keys import vault
from keys.services import sign_with
from latticeward.crypto.keys import DecapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.crypto.suites import get_suite
from latticeward.errors import IncompatiblePlanError, ModelUnusableError, NotFoundError, PlanChangedError
from latticeward.instants import to_unix_milliseconds
from latticeward.lifecycle import ROUND, TRAINING, RoundState, TrainingState
from latticeward.messages import Assignment, roster_digest
from latticeward.plan import RoundPlan
from latticeward.updates.tensors import initial_vector, weights_digest
from rounds.models import Participant, Round, Submission, Training
from rounds.policy import Series, best_of, next_step
from rounds.selectors import BASE_NUMBER, metric_by_round
from rounds.services.coordination import drop_undecided
from rounds.services.publication import seal_for_newcomers
from rounds.services.starts import next_base, require_start

# A training whose rounds fail this often in a row will not mend itself.
FAILURES_IN_A_ROW: Final = 3
OPEN_ROUND_STATES: Final = (
    RoundState.DRAFT,
    RoundState.SIGNING,
    RoundState.RECRUITING,
    RoundState.COLLECTING,
    RoundState.AGGREGATING,
)


def open_training(*, federation: Federation, plan: RoundPlan, actor: str) -> Training:
    """Keep a plan and hand it to the authority worker for signing.

    Raises:
        IncompatiblePlanError: the plan's parts do not fit each other.
        UnsupportedSuiteError: its suite is not one that this federation accepts, at or above the floor.
        NotFoundError, ModelUnusableError: it starts from a version that is not there, or that may not be a start.
    """
    plan.validate()
    require_accepted(plan.suite)
    raw = plan.to_bytes()
    RoundPlan.from_bytes(raw)  # what cannot be read back must not be signed
    with transaction.atomic():
        training = Training.objects.create(
            id=UUID(plan.training_id),
            federation=federation,
            title=plan.title,
            job=plan.job,
            plan=raw,
            plan_digest=plan.digest,
            suite=plan.suite,
            quorum=plan.quorum,
            metric=plan.metric,
            rounds_max=plan.rounds,
            start_model=require_start(plan),
            created_by=actor,
        )
        feed = federation.feed
        start = plan.start.model_id if plan.start else None
        record(
            "training.drafted",
            actor=actor,
            feed=feed,
            subject=("training", training.id),
            details={"job": plan.job, "start": start},
        )
        apply_transition(
            training,
            TRAINING,
            "submit",
            actor=actor,
            feed=feed,
            state_due_at=timezone.now() + timedelta(seconds=plan.stage_seconds.signing),
        )
    return training


def sign_training(training_id: UUID) -> None:
    """Authority worker: sign the plan and start the training."""
    training = Training.objects.select_related("federation").get(pk=training_id)
    if training.state != TrainingState.SIGNING:
        return
    signed = sign_with(Purpose.PLAN, training.round_plan.to_bytes())
    apply_transition(
        training,
        TRAINING,
        "start",
        actor="worker:authority",
        feed=training.federation.feed,
        details={"plan_digest": bytes(training.plan_digest).hex(), "suite": training.suite},
        signed_plan=signed,
        state_due_at=None,
    )


def stop_training(*, training: Training, actor: str, reason: str) -> None:
    """Stop a training for good; a round that is still open is aborted, one that aggregates is let finish."""
    with transaction.atomic():
        apply_transition(
            training,
            TRAINING,
            "stop",
            actor=actor,
            feed=training.federation.feed,
            details={"reason": reason},
            ended_by="operator",
            ended_at=timezone.now(),
        )
        for open_round in training.rounds.select_for_update().filter(state__in=OPEN_ROUND_STATES[:-1]):
            drop_undecided(open_round, because="training_stopped")
            apply_transition(
                open_round,
                ROUND,
                "abort",
                actor=actor,
                feed=open_round.feed,
                failure_code="training_stopped",
                closed_at=timezone.now(),
                state_due_at=None,
            )


def advance_training(training_id: UUID) -> Round | None:
    """Open the training's next round if it is due, or end the training.

    Returns:
        The round that was opened and now waits for the authority's signature; None if there is none to open.
    """
    with transaction.atomic():
        training = Training.objects.select_for_update(of=("self",)).select_related("federation").get(pk=training_id)
        if training.state == TrainingState.SIGNING:
            if training.state_due_at and timezone.now() > training.state_due_at + timedelta(seconds=30):
                _fail_training(training, "not_signed_in_time")
            return None
        if training.state != TrainingState.RUNNING or training.rounds.filter(state__in=OPEN_ROUND_STATES).exists():
            return None
        history = list(training.rounds.order_by("-number").values_list("number", "state", "kind"))
        failures = 0
        for _, state, _ in history:
            if state == RoundState.PUBLISHED:
                break
            failures += 1
        if failures >= FAILURES_IN_A_ROW:
            _fail_training(training, "rounds_failed_in_a_row")
            return None
        if training.suite not in accepted_suites():
            _fail_training(training, "suite_retired")
            return None
        try:
            plan = training.round_plan
        except PlanChangedError:
            _fail_training(training, "plan_changed")
            return None
        series = _series_of(training)
        step = next_step(plan, series)
        if step.kind == "complete":
            _complete(training, step.rule, published=series.published)
            return None
        try:
            if not series.published:
                require_start(plan, training=training)
        except (NotFoundError, ModelUnusableError, IncompatiblePlanError, PlanChangedError):
            _fail_training(training, "start_unusable")
            return None
        return _open_round(training, plan, step.kind, number=history[0][0] + 1 if history else 1)


def _series_of(training: Training) -> Series:
    published = training.rounds.filter(state=RoundState.PUBLISHED)
    learnt = published.filter(kind="training")
    measured = learnt.order_by("number").values_list(BASE_NUMBER, "metric_value")
    sent = Submission.objects.filter(participant__round__training=training).aggregate(total=Sum("size_bytes"))
    return Series(
        published=learnt.count(),
        evaluated=published.filter(kind="evaluation").exists(),
        values=tuple((number, value) for number, value in measured if value is not None),
        seconds=(timezone.now() - training.created_at).total_seconds(),
        sent_bytes=sent["total"] or 0,
    )


def _complete(training: Training, rule: str, *, published: int) -> None:
    # The version that the final evaluation measured counts as well, so this is asked of all that were measured.
    best = best_of([(row["model_number"], row["value"]) for row in metric_by_round(training)])
    apply_transition(
        training,
        TRAINING,
        "complete",
        actor="worker:aggregate",
        feed=training.federation.feed,
        details={
            "rule": rule,
            "rounds": published,
            "best": {"model_number": best[0], "value": best[1]} if best else None,
        },
        ended_by=rule,
        ended_at=timezone.now(),
    )


def _fail_training(training: Training, code: str) -> None:
    apply_transition(
        training,
        TRAINING,
        "fail",
        actor="worker:aggregate",
        feed=training.federation.feed,
        details={"code": code},
        ended_by=code,
        ended_at=timezone.now(),
    )


def _cohort(training: Training, plan: RoundPlan, base_model_digest: bytes) -> list[Device]:
    """The devices that the plan invites; empty while too few could come for a result."""
    # A device whose keys are of another suite's algorithms could neither open the base model nor sign an update.
    fit = [device for device in active_devices(training.federation) if suits(device, training.suite)]
    active = {str(device.id): device for device in fit}
    chosen = plan.cohort.choose(
        [(identity, device.site.slug) for identity, device in active.items()],
        bound=plan.cohort_bound,
        plan_digest=bytes(training.plan_digest),
        base_model_digest=base_model_digest,
    )
    devices = [active[identity] for identity in chosen]
    enough = len(devices) >= plan.quorum and len({device.site_id for device in devices}) >= plan.k_hospitals
    return devices if enough else []


def _open_round(training: Training, plan: RoundPlan, kind: str, *, number: int) -> Round | None:
    now = datetime.now(UTC)
    stages = plan.stage_seconds
    base = next_base(training)
    if base is None:
        base_digest = weights_digest(initial_vector(plan.layout, plan.initial))
    else:
        base_digest = bytes(base.weights_digest)
    devices = _cohort(training, plan, base_digest)
    if not devices:
        return None  # the sweep asks again: devices may still enrol
    if base is not None:
        seal_for_newcomers(base)  # nobody may be invited to start from a model that they cannot open
    round_id = uuid4()
    recipient = DecapsulationKey.generate(get_suite(plan.suite).kem)
    recruiting_due_at = now + timedelta(seconds=stages.signing + stages.recruiting)
    collecting_due_at = recruiting_due_at + timedelta(seconds=stages.collecting)
    assignment = Assignment(
        round_id=str(round_id),
        training_id=str(training.id),
        federation_id=str(training.federation_id),
        number=number,
        kind=kind,
        plan_digest=bytes(training.plan_digest),
        base_model=str(base.id) if base else None,
        base_model_digest=base_digest,
        recipient_algorithm=recipient.encapsulation_key.algorithm,
        recipient_key=recipient.encapsulation_key.raw,
        roster_digest=roster_digest([str(device.id) for device in devices]),
        opened_at=to_unix_milliseconds(now),
        recruiting_due_at=to_unix_milliseconds(recruiting_due_at),
        collecting_due_at=to_unix_milliseconds(collecting_due_at),
    )
    opened = Round.objects.create(
        id=round_id,
        training=training,
        number=number,
        kind=kind,
        quorum=plan.quorum,
        base_model=base,
        base_model_digest=base_digest,
        assignment=assignment.to_bytes(),
        recipient_key=recipient.encapsulation_key.raw,
        wrapped_decapsulation_seed=vault.wrap(
            recipient.export_seed(), purpose="round-decapsulation", row_id=str(round_id)
        ),
        metric_name=plan.metric,
        recruiting_due_at=recruiting_due_at,
        collecting_due_at=collecting_due_at,
    )
    Participant.objects.bulk_create([Participant(round=opened, device=device) for device in devices])
    apply_transition(
        opened,
        ROUND,
        "open",
        actor="worker:aggregate",
        feed=opened.feed,
        details={"training": str(training.id), "number": number, "kind": kind, "invited": len(devices)},
        opened_at=now,
        state_due_at=now + timedelta(seconds=stages.signing),
    )
    return opened


def attach_comparison(*, training: Training, comparison: dict[str, Any], actor: str) -> None:
    """Keep reference results that an operator's tool computed outside the server."""
    with transaction.atomic():
        Training.objects.filter(pk=training.pk).update(comparison=comparison)
        record(
            "training.compared",
            actor=actor,
            feed=training.federation.feed,
            subject=("training", training.id),
            details={"metric": training.metric},
        )
