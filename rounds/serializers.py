"""Trainings and rounds as JSON for operators' tools; and what an operator may ask for."""

from typing import Any

from rest_framework import serializers

from latticeward.jobs import JOB_SPECS
from latticeward.lifecycle import ParticipantState, RoundState
from rounds.models import Round, Training
from rounds.selectors import metric_by_round, seconds_of


class TrainingRequest(serializers.Serializer[Any]):
    """What an operator asks for: a job, and what should differ from its defaults."""

    job = serializers.ChoiceField(choices=sorted(JOB_SPECS))
    title = serializers.CharField(max_length=200, required=False)
    suite = serializers.CharField(max_length=40, required=False)
    plan = serializers.DictField(
        required=False, help_text="fields of the plan that differ from the job's defaults, for example quorum"
    )
    rounds = serializers.IntegerField(min_value=1, max_value=10_000, required=False)


class StopRequest(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500)


class ComparisonReport(serializers.Serializer[Any]):
    """Reference results, computed outside the server by a tool that may see all data of a demonstration."""

    metric = serializers.CharField(max_length=40)
    pooled = serializers.FloatField()
    central = serializers.FloatField()
    single = serializers.DictField(child=serializers.FloatField())
    by_site = serializers.DictField(required=False)


def training_as_json(training: Training) -> dict[str, Any]:
    """One training with its metric by round."""
    rounds = training.rounds
    return {
        "id": str(training.id),
        "federation": str(training.federation_id),
        "title": training.title,
        "job": training.job,
        "state": training.state,
        "suite": training.suite,
        "metric": training.metric,
        "quorum": training.quorum,
        "rounds_max": training.rounds_max,
        "rounds_done": rounds.filter(state="published", kind="training").count(),
        "plan_digest": bytes(training.plan_digest).hex(),
        "metrics": metric_by_round(training),
        "comparison": training.comparison,
        "created_at": training.created_at,
        "ended_at": training.ended_at,
    }


def round_as_json(current: Round) -> dict[str, Any]:
    """One round with its participants and how long its parts took."""
    participants: list[dict[str, Any]] = [
        {
            "device": str(participant.device_id),
            "site": participant.device.site.slug,
            "state": participant.state,
            "code": participant.code or None,
            "stage_seconds": next((s.stage_seconds for s in participant.submissions.all() if s.stage_seconds), {}),
        }
        for participant in current.participants.all()
    ]
    return {
        "id": str(current.id),
        "training": str(current.training_id),
        "number": current.number,
        "kind": current.kind,
        "state": current.state,
        "quorum": current.quorum,
        "invited": len(participants),
        "accepted": sum(p["state"] == ParticipantState.ACCEPTED for p in participants),
        "participants": participants,
        "base_model": str(current.base_model_id) if current.base_model_id else None,
        "model": str(current.model_id) if current.model_id else None,
        # A value that was worked out and never published could be subtracted from a later one.
        "metric": {
            "name": current.metric_name,
            "value": current.metric_value if current.state == RoundState.PUBLISHED else None,
        },
        "failure_code": current.failure_code or None,
        "stage_seconds": current.stage_seconds,
        "opened_at": current.opened_at,
        "closed_at": current.closed_at,
        "published_at": current.published_at,
        **seconds_of(current),
    }
