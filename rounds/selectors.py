"""Reads: what a device is told to do, what it may fetch, and the figures of a round for people."""

import hashlib
import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Case, Count, F, QuerySet, When

from controlplane.audit.models import AuditEntry
from devices.models import Device
from devices.selectors import renewal_asked
from latticeward.errors import NotFoundError
from latticeward.lifecycle import ROUND, ModelState, ParticipantState, RoundState
from rounds.models import ModelAlias, ModelStanza, Participant, Round, Submission, Training

# Of the version that a round begins with, in its own training: what the training starts from is 0 there.
BASE_NUMBER: Final = Case(When(base_model__training=F("training"), then=F("base_model__number")), default=0)
_RECENT_ROUNDS: Final = 3
_IN: Final = "in"
_OWN_STEPS: Final = (
    ParticipantState.INVITED,
    ParticipantState.JOINED,
    ParticipantState.SUBMITTED,
    ParticipantState.ACCEPTED,
)
# Before its assignment is signed a round does not exist for devices.
_UNSEEN: Final = (RoundState.DRAFT, RoundState.SIGNING)


def work_for(device: Device) -> dict[str, Any]:
    """Everything that this device should act on now, and a token that names this answer.

    State, not events: a device that was away for an hour reads the same as one that was not.
    """
    rows = (
        Participant.objects.filter(device=device)
        .exclude(round__state__in=_UNSEEN)
        .exclude(round__signed_assignment__isnull=True)
        .order_by("-round__created_at")
        .values_list(
            "round_id",
            "round__training_id",
            "round__number",
            "round__kind",
            "round__state",
            "state",
            "round__base_model_id",
            "code",
        )[:20]
    )
    rounds = []
    ended = 0
    for round_id, training_id, number, kind, state, participant, base_model, code in rows:
        if state in ROUND.terminal:
            ended += 1
            if ended > _RECENT_ROUNDS:
                continue
        rounds.append(
            {
                "round": str(round_id),
                "training": str(training_id),
                "number": number,
                "kind": kind,
                "state": state,
                "participant": participant,
                "base_model": str(base_model) if base_model else None,
                "code": code or None,
            }
        )
    models = [
        {"model": str(model_id), "training": str(training_id), "number": number, "weights_digest": digest.hex()}
        for model_id, training_id, number, digest in _newest_models(device)
    ]
    # What the device brought about itself (it joined, it submitted) is no news to it, and a token that changed with
    # it would bring the device back at once, in the very moment in which the workers need the machine.
    told = [{**row, "participant": _IN if row["participant"] in _OWN_STEPS else row["participant"]} for row in rounds]
    renewal = renewal_asked(device)
    token = hashlib.sha256(json.dumps([told, models, renewal], sort_keys=True).encode()).hexdigest()[:32]
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {"token": token, "server_time": now, "rounds": rounds, "models": models, "renewal": renewal}


def _newest_models(device: Device) -> list[tuple[UUID, UUID, int, bytes]]:
    """The newest published model of each of the last trainings that this device holds a stanza for."""
    sealed = (
        _handed_out(device)
        .order_by("-model__created_at")
        .values_list("model_id", "model__training_id", "model__number", "model__weights_digest")[:5]
    )
    newest: dict[UUID, tuple[UUID, UUID, int, bytes]] = {}
    for model_id, training_id, number, digest in sealed:
        newest.setdefault(training_id, (model_id, training_id, number, bytes(digest)))
    return list(newest.values())


def assignment_for(round_id: UUID, device: Device) -> tuple[bytes, bytes] | None:
    """Signed plan and signed assignment of a round that this device was invited to."""
    row = (
        Round.objects.filter(pk=round_id, participants__device=device, signed_assignment__isnull=False)
        .values_list("training__signed_plan", "signed_assignment")
        .first()
    )
    return (bytes(row[0]), bytes(row[1])) if row and row[0] and row[1] else None


def outcome_of(submission_id: UUID, device: Device) -> dict[str, Any]:
    """What became of a submission.

    Raises:
        NotFoundError: it is not this device's.
    """
    try:
        submission = Submission.objects.select_related("participant__round").get(
            pk=submission_id, participant__device=device
        )
    except Submission.DoesNotExist as error:
        raise NotFoundError(f"submission {submission_id} is not of device {device.id}") from error
    state = {"": "received", "refused": "rejected"}.get(submission.outcome, submission.outcome)
    return {
        "submission": str(submission.id),
        "state": state,
        "code": submission.code or None,
        "round_state": submission.participant.round.state,
        "participant": submission.participant.state,
    }


def receipt_entry_of(submission_id: UUID, device: Device) -> UUID | None:
    """The ledger entry that a submission's receipt promised."""
    submission = (
        Submission.objects.filter(pk=submission_id, participant__device=device)
        .values_list("participant_id", flat=True)
        .first()
    )
    if submission is None:
        return None
    entries = AuditEntry.objects.filter(
        event="update.received", subject_kind="participant", subject_id=str(submission)
    ).values_list("id", "details")
    return next((identity for identity, details in entries if details.get("submission") == str(submission_id)), None)


def manifest_for(model_id: UUID, device: Device) -> tuple[bytes, bytes] | None:
    """Signed manifest of a model and this device's stanza."""
    row = _handed_out(device).filter(model_id=model_id).values_list("model__signed_manifest", "stanza").first()
    return (bytes(row[0]), bytes(row[1])) if row and row[0] else None


def model_blob_for(model_id: UUID, device: Device) -> str | None:
    """The name of a model's sealed body, for a device that holds a stanza for it."""
    return _handed_out(device).filter(model_id=model_id).values_list("model__body_blob", flat=True).first()


def _handed_out(device: Device) -> QuerySet[ModelStanza]:
    """What this device may fetch: published, sealed to it, and not revoked."""
    rows = ModelStanza.objects.filter(device=device, model__signed_manifest__isnull=False)
    return rows.exclude(model__state=ModelState.REVOKED)


def aliases_for(device: Device) -> list[dict[str, Any]]:
    """The aliases of the device's federation that point at a version now, by job and name."""
    rows = ModelAlias.objects.filter(federation=device.site.federation_id, model__isnull=False)
    names = ("name", "job", "model_id", "model__number", "model__weights_digest", "moved_at")
    return [
        {
            "alias": name,
            "job": job,
            "model": str(model_id),
            "number": number,
            "weights_digest": bytes(digest).hex(),
            "moved_at": moved_at.isoformat().replace("+00:00", "Z"),
        }
        for name, job, model_id, number, digest, moved_at in rows.values_list(*names)
    ]


def record_for(round_id: UUID, device: Device) -> bytes | None:
    """The signed record of a round that this device was invited to."""
    row = (
        Round.objects.filter(pk=round_id, participants__device=device, signed_record__isnull=False)
        .values_list("signed_record", flat=True)
        .first()
    )
    return bytes(row) if row is not None else None


def seconds_of(current: Round) -> dict[str, float | None]:
    """How long a published round took, and how long of it after its last update arrived."""
    if current.published_at is None or current.opened_at is None:
        return {"seconds": None, "seconds_last_update_to_published": None}
    after = (current.published_at - current.last_update_at).total_seconds() if current.last_update_at else None
    return {
        "seconds": (current.published_at - current.opened_at).total_seconds(),
        "seconds_last_update_to_published": after,
    }


def metric_by_round(training: Training) -> list[dict[str, Any]]:
    """The pooled metric of each model version, in order.

    Round r measures the model that it starts from, so its value belongs to version r - 1. 0 is the start of the plan,
    a version of another training too: that training's own series has its own value of it.
    """
    measured = training.rounds.filter(state=RoundState.PUBLISHED, metric_value__isnull=False).order_by("number")
    return [
        {
            "round": number,
            "model_number": model_number,
            "name": name,
            "value": value,
            **(support or {}),
        }
        for number, model_number, name, value, support in measured.values_list(
            "number", BASE_NUMBER, "metric_name", "metric_value", "metric_support"
        )
    ]


def rounds_with(devices: Collection[Device]) -> list[dict[str, Any]]:
    """The rounds that run now with some of these devices: what a rotation of them meets; one query."""
    open_states = [str(state) for state in RoundState if state not in ROUND.terminal]
    rows = (
        Participant.objects.filter(device__in=devices, round__state__in=open_states)
        .values("round_id", "round__training__title", "round__number", "round__state", "round__training__suite")
        .annotate(devices=Count("id"))
        .order_by("round__training__title", "round__number")
    )
    return [
        {
            "round": row["round_id"],
            "training": row["round__training__title"],
            "number": row["round__number"],
            "state": row["round__state"],
            "suite": row["round__training__suite"],
            "devices": row["devices"],
        }
        for row in rows
    ]
