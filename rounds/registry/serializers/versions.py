"""Model versions as JSON: their standing, lineage and differences, and what people may ask of them."""

from dataclasses import asdict
from typing import Any

from rest_framework import serializers

from controlplane.serializers import ListQuery
from latticeward.lifecycle import ModelState
from latticeward.updates.differences import TensorChange
from rounds.models import ModelVersion
from rounds.registry.selectors import Ancestor, Comparison, Measured, Version
from rounds.registry.serializers.aliases import ALIAS_NAME


class ReasonRequest(serializers.Serializer[Any]):
    """Why a person decided so; kept in the ledger."""

    reason = serializers.CharField(max_length=500)


class ModelsQuery(ListQuery):
    """Filters and orders of the model versions."""

    orderings = {"created_at": "created_at", "number": "number"}

    training = serializers.UUIDField(required=False)
    job = serializers.CharField(max_length=40, required=False)
    state = serializers.ChoiceField(choices=sorted(ModelState), required=False)
    alias = serializers.RegexField(ALIAS_NAME, required=False)


class MetricAnswer(serializers.Serializer[Any]):
    """A pooled metric."""

    name = serializers.CharField()
    value = serializers.FloatField()
    hospitals = serializers.IntegerField()
    patients = serializers.IntegerField()


class HospitalMetric(serializers.Serializer[Any]):
    """One hospital's own metric, where the plan releases it."""

    hospital = serializers.CharField()
    value = serializers.FloatField()
    patients = serializers.IntegerField()


class ModelRow(serializers.Serializer[Any]):
    """One version as a row of a list."""

    id = serializers.UUIDField()
    training = serializers.UUIDField()
    job = serializers.CharField()
    number = serializers.IntegerField()
    state = serializers.ChoiceField(choices=sorted(ModelState))
    aliases = serializers.ListField(child=serializers.CharField())
    weights_digest = serializers.CharField(help_text="SHA-256, hexadecimal")
    base_model_digest = serializers.CharField(help_text="SHA-256, hexadecimal")
    body_bytes = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class ModelAnswer(ModelRow):
    """One version with its evidence and metric."""

    title = serializers.CharField()
    base_model = serializers.UUIDField(allow_null=True)
    plan_digest = serializers.CharField(help_text="SHA-256, hexadecimal")
    round = serializers.UUIDField()
    round_published_at = serializers.DateTimeField(allow_null=True)
    suite = serializers.CharField()
    protection = serializers.CharField()
    aggregator = serializers.CharField()
    server_optimiser = serializers.JSONField()
    tensors = serializers.JSONField()
    parameters = serializers.IntegerField()
    plaintext_bytes = serializers.IntegerField()
    invited = serializers.IntegerField()
    devices = serializers.IntegerField(allow_null=True)
    hospitals = serializers.ListField(child=serializers.CharField(), allow_null=True)
    metric = MetricAnswer(allow_null=True)
    metric_by_hospital = HospitalMetric(many=True, allow_null=True, help_text="null: the plan keeps them there")
    ledger_index = serializers.IntegerField(allow_null=True)


class AncestorRow(serializers.Serializer[Any]):
    """One step of a lineage."""

    model = serializers.UUIDField(allow_null=True)
    training = serializers.UUIDField()
    title = serializers.CharField()
    number = serializers.IntegerField()
    state = serializers.CharField(allow_null=True)
    weights_digest = serializers.CharField(help_text="SHA-256, hexadecimal")
    plan_digest = serializers.CharField(help_text="SHA-256, hexadecimal")
    round = serializers.UUIDField(allow_null=True)
    metric = MetricAnswer(allow_null=True)
    created_at = serializers.DateTimeField(allow_null=True)


class ModelLineage(serializers.Serializer[Any]):
    """A version and what it came from, the newest first, at most 200 steps."""

    results = AncestorRow(many=True)


class DifferenceRequest(serializers.Serializer[Any]):
    """Two versions."""

    before = serializers.UUIDField()
    after = serializers.UUIDField()


class TensorRow(serializers.Serializer[Any]):
    """One tensor before and after; null where nothing can be compared."""

    name = serializers.CharField()
    change = serializers.ChoiceField(choices=sorted(TensorChange))
    before_shape = serializers.ListField(child=serializers.IntegerField(), allow_null=True)
    after_shape = serializers.ListField(child=serializers.IntegerField(), allow_null=True)
    l2 = serializers.FloatField(allow_null=True)
    largest = serializers.FloatField(allow_null=True)
    relative = serializers.FloatField(allow_null=True)
    cosine = serializers.FloatField(allow_null=True)


class PlanField(serializers.Serializer[Any]):
    """One field of the plan that differs; its values may be any, and null where a plan has none."""

    field = serializers.CharField()  # type: ignore[assignment]
    before = serializers.JSONField()  # type: ignore[var-annotated]
    after = serializers.JSONField()  # type: ignore[var-annotated]


class DifferenceAnswer(serializers.Serializer[Any]):
    """Two versions side by side."""

    id = serializers.UUIDField()
    before = serializers.UUIDField()
    after = serializers.UUIDField()
    state = serializers.ChoiceField(choices=["waiting", "ready", "failed"])
    failure_code = serializers.CharField(allow_null=True)
    tensors = TensorRow(many=True, allow_null=True)
    total = TensorRow(allow_null=True)
    metric_before = MetricAnswer(allow_null=True)
    metric_after = MetricAnswer(allow_null=True)
    hospitals_joined = serializers.ListField(child=serializers.CharField(), allow_null=True)
    hospitals_left = serializers.ListField(child=serializers.CharField(), allow_null=True)
    plan = PlanField(many=True)


def model_as_json(model: ModelVersion) -> dict[str, Any]:
    """One version as a row of a list."""
    return {
        "id": str(model.id),
        "training": str(model.training_id),
        "job": model.training.job,
        "number": model.number,
        "state": model.state,
        "aliases": sorted(alias.name for alias in model.aliases.all()),
        "weights_digest": bytes(model.weights_digest).hex(),
        "base_model_digest": bytes(model.base_model_digest).hex(),
        "body_bytes": model.body_bytes,
        "created_at": model.created_at,
    }


def version_as_json(version: Version) -> dict[str, Any]:
    """One version with its lineage, evidence and metric."""
    model, plan = version.model, version.plan
    return {
        **model_as_json(model),
        "title": model.training.title,
        "base_model": str(version.base.id) if version.base else None,
        "plan_digest": bytes(model.training.plan_digest).hex(),
        "round": str(version.round.id),
        "round_published_at": version.round.published_at,
        "suite": plan.suite,
        "protection": plan.protection,
        "aggregator": plan.aggregator,
        "server_optimiser": dict(plan.server_optimiser),
        "tensors": plan.layout.to_wire(),
        "parameters": plan.layout.size,
        "plaintext_bytes": 4 * plan.layout.size,
        "invited": version.invited,
        "devices": version.devices,
        "hospitals": list(version.hospitals) if version.hospitals is not None else None,
        "metric": metric_as_json(version.metric),
        "metric_by_hospital": [asdict(row) for row in version.by_hospital] if version.by_hospital is not None else None,
        "ledger_index": version.ledger_index,
    }


def metric_as_json(metric: Measured | None) -> dict[str, Any] | None:
    """A pooled metric; None where none was published."""
    if metric is None:
        return None
    return {"name": metric.name, "value": metric.value, "hospitals": metric.hospitals, "patients": metric.patients}


def ancestor_as_json(row: Ancestor) -> dict[str, Any]:
    """One step of a lineage."""
    return {
        "model": str(row.model_id) if row.model_id else None,
        "training": str(row.training_id),
        "title": row.training_title,
        "number": row.number,
        "state": row.state or None,
        "weights_digest": row.weights_digest.hex(),
        "plan_digest": row.plan_digest.hex(),
        "round": str(row.round_id) if row.round_id else None,
        "metric": metric_as_json(row.metric),
        "created_at": row.created_at,
    }


def difference_as_json(found: Comparison) -> dict[str, Any]:
    """Two versions side by side."""
    row, result = found.row, found.row.result or {}
    state = "failed" if row.failure_code else "ready" if row.computed_at else "waiting"
    return {
        "id": str(row.id),
        "before": str(row.before_id),
        "after": str(row.after_id),
        "state": state,
        "failure_code": row.failure_code or None,
        "tensors": result.get("tensors"),
        "total": result.get("total"),
        "metric_before": metric_as_json(found.before.metric),
        "metric_after": metric_as_json(found.after.metric),
        "hospitals_joined": list(found.joined) if found.joined is not None else None,
        "hospitals_left": list(found.left) if found.left is not None else None,
        "plan": [asdict(field) for field in found.plan],
    }
