"""Trainings and rounds as JSON for operators' tools; and what an operator may ask for."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from controlplane.serializers import ListQuery
from latticeward.jobs import JOB_SPECS
from latticeward.lifecycle import ParticipantState, RoundState, TrainingState
from rounds.models import Round, Training
from rounds.policy import best_of
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
    start_from = serializers.UUIDField(
        required=False, help_text="a version of an earlier training; without it the training starts as its job says"
    )


class StopRequest(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500)


class ComparisonReport(serializers.Serializer[Any]):
    """Reference results, computed outside the server by a tool that may see all data of a demonstration."""

    metric = serializers.CharField(max_length=40)
    pooled = serializers.FloatField()
    central = serializers.FloatField()
    single = serializers.DictField(child=serializers.FloatField())
    by_site = serializers.DictField(required=False)


class TrainingsQuery(ListQuery):
    """Filters and orders of the trainings."""

    orderings = {"created_at": "created_at", "title": "title"}

    state = serializers.ChoiceField(choices=sorted(TrainingState), required=False)
    job = serializers.CharField(max_length=40, required=False)
    suite = serializers.CharField(max_length=40, required=False)


class RoundsQuery(ListQuery):
    """Filters and orders of the rounds."""

    orderings = {"created_at": "created_at", "number": "number"}

    training = serializers.UUIDField(required=False)
    state = serializers.ChoiceField(choices=sorted(RoundState), required=False)
    kind = serializers.ChoiceField(choices=["training", "evaluation"], required=False)


@extend_schema_field({"type": "string", "pattern": "^([0-9a-f]{2})*$"})
class HexField(serializers.Field[bytes, str, str, Any]):
    """Bytes as lower-case hexadecimal; shown only."""

    def __init__(self, **named: Any) -> None:
        super().__init__(read_only=True, **named)

    def to_representation(self, value: bytes) -> str:
        return bytes(value).hex()


@extend_schema_field({"type": ["object", "null"], "description": "reference results, reported by an operator's tool"})
class Comparison(serializers.JSONField):
    """What a tool reported of the same data in one place."""


class TrainingRow(serializers.Serializer[Any]):
    """One training as it stands in the list."""

    id = serializers.UUIDField()
    federation = serializers.UUIDField(source="federation_id")
    title = serializers.CharField()
    job = serializers.CharField()
    state = serializers.ChoiceField(choices=sorted(TrainingState))
    suite = serializers.CharField()
    metric = serializers.CharField(help_text="name of what is measured")
    quorum = serializers.IntegerField()
    rounds_max = serializers.IntegerField()
    rounds_done = serializers.IntegerField()
    plan_digest = HexField(help_text="SHA-256, hexadecimal")
    start_from = serializers.UUIDField(
        source="start_model_id", allow_null=True, help_text="the version of another training that it starts from"
    )
    comparison = Comparison(allow_null=True)
    created_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    ended_by = serializers.CharField(help_text="the stop rule, the failure's code, or operator; empty before the end")


class MetricOfRound(serializers.Serializer[Any]):
    """The pooled metric of the model that a round started from."""

    round = serializers.IntegerField()
    model_number = serializers.IntegerField()
    name = serializers.CharField()
    value = serializers.FloatField()


class BestVersion(serializers.Serializer[Any]):
    """The version with the best pooled metric so far."""

    model_number = serializers.IntegerField()
    value = serializers.FloatField()


class TrainingAnswer(TrainingRow):
    """One training with its metric by round."""

    metrics = MetricOfRound(many=True)
    best = BestVersion(allow_null=True)


class ParticipantMetric(serializers.Serializer[Any]):
    """What the model that a round began with is worth at one hospital."""

    name = serializers.CharField()
    value = serializers.FloatField()
    patients = serializers.IntegerField()


class RoundParticipant(serializers.Serializer[Any]):
    """One device in a round."""

    device = serializers.UUIDField()
    site = serializers.CharField()
    state = serializers.ChoiceField(choices=sorted(ParticipantState))
    code = serializers.CharField(allow_null=True, help_text="why it was refused, dropped or excluded")
    metric = ParticipantMetric(allow_null=True, help_text="the hospital's own, if the plan releases it")
    stage_seconds = serializers.DictField(child=serializers.FloatField())


class RoundMetric(serializers.Serializer[Any]):
    """What a published round measured."""

    name = serializers.CharField()
    value = serializers.FloatField(allow_null=True)


class RoundAnswer(serializers.Serializer[Any]):
    """One round with its participants and how long its parts took."""

    id = serializers.UUIDField()
    training = serializers.UUIDField()
    number = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=["training", "evaluation"])
    state = serializers.ChoiceField(choices=sorted(RoundState))
    quorum = serializers.IntegerField()
    invited = serializers.IntegerField()
    accepted = serializers.IntegerField()
    participants = RoundParticipant(many=True)
    base_model = serializers.UUIDField(allow_null=True)
    model = serializers.UUIDField(allow_null=True)
    metric = RoundMetric()
    failure_code = serializers.CharField(allow_null=True)
    stage_seconds = serializers.JSONField()
    opened_at = serializers.DateTimeField(allow_null=True)
    closed_at = serializers.DateTimeField(allow_null=True)
    published_at = serializers.DateTimeField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)
    seconds_last_update_to_published = serializers.FloatField(allow_null=True)


def training_as_json(training: Training) -> dict[str, Any]:
    """One training with its metric by round."""
    if not hasattr(training, "rounds_done"):
        training.rounds_done = training.rounds.filter(  # type: ignore[attr-defined]
            state=RoundState.PUBLISHED, kind="training"
        ).count()
    metrics = metric_by_round(training)
    best = best_of([(row["model_number"], row["value"]) for row in metrics])
    return {
        **TrainingRow(training).data,
        "metrics": metrics,
        "best": {"model_number": best[0], "value": best[1]} if best else None,
    }


def round_as_json(current: Round) -> dict[str, Any]:
    """One round with its participants and how long its parts took."""
    participants: list[dict[str, Any]] = [
        {
            "device": str(participant.device_id),
            "site": participant.device.site.slug,
            "state": participant.state,
            "code": participant.code or None,
            # As with the pooled value below: what was worked out and never published is not told.
            "metric": participant.metric if current.state == RoundState.PUBLISHED else None,
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
