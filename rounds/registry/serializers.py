"""The model registry as JSON, and what people may ask of it."""

from dataclasses import asdict
from typing import Any

from rest_framework import serializers

from controlplane.serializers import ListQuery
from latticeward.lifecycle import AliasMoveState, ModelExportState, ModelState
from latticeward.model_files import MODEL_FORMATS
from latticeward.updates.differences import TensorChange
from rounds.models import AliasMove, ModelAlias, ModelExport, ModelVersion
from rounds.registry.selectors import Ancestor, Comparison, Measured, Version

_NAME = r"^[a-z][a-z0-9-]{0,39}$"


class AliasMoveRequest(serializers.Serializer[Any]):
    """Which version an alias should point at, and why."""

    alias = serializers.RegexField(_NAME, help_text="1 to 40 lower-case letters, digits and hyphens, a letter first")
    model = serializers.UUIDField()
    reason = serializers.CharField(max_length=500)


class ReasonRequest(serializers.Serializer[Any]):
    """Why a person decided so; kept in the ledger."""

    reason = serializers.CharField(max_length=500)


class ModelsQuery(ListQuery):
    """Filters and orders of the model versions."""

    orderings = {"created_at": "created_at", "number": "number"}

    training = serializers.UUIDField(required=False)
    job = serializers.CharField(max_length=40, required=False)
    state = serializers.ChoiceField(choices=sorted(ModelState), required=False)
    alias = serializers.RegexField(_NAME, required=False)


class AliasesQuery(ListQuery):
    """Filters and orders of the aliases."""

    orderings = {"name": "name", "job": "job"}
    default_ordering = "job"

    job = serializers.CharField(max_length=40, required=False)


class MovesQuery(ListQuery):
    """Filters and orders of the proposals."""

    orderings = {"proposed_at": "proposed_at", "due_at": "due_at"}
    default_ordering = "-proposed_at"

    state = serializers.ChoiceField(choices=sorted(AliasMoveState), required=False)
    alias = serializers.RegexField(_NAME, required=False)


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


class AliasRow(serializers.Serializer[Any]):
    """An alias and where it points."""

    alias = serializers.CharField()
    job = serializers.CharField()
    model = serializers.UUIDField(allow_null=True)
    number = serializers.IntegerField(allow_null=True)
    weights_digest = serializers.CharField(allow_null=True)
    moved_at = serializers.DateTimeField(allow_null=True)


class MoveRow(serializers.Serializer[Any]):
    """A proposal and what became of it."""

    id = serializers.UUIDField()
    alias = serializers.CharField()
    job = serializers.CharField()
    state = serializers.ChoiceField(choices=sorted(AliasMoveState))
    model = serializers.UUIDField()
    before = serializers.UUIDField(allow_null=True)
    rollback = serializers.BooleanField()
    reason = serializers.CharField()
    proposed_by = serializers.CharField()
    proposed_at = serializers.DateTimeField()
    due_at = serializers.DateTimeField()
    decided_by = serializers.CharField(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    decision = serializers.CharField(allow_null=True)


class ModelExportRequest(serializers.Serializer[Any]):
    """A version as a file: in which format, under which terms, and why."""

    model = serializers.UUIDField()
    format = serializers.ChoiceField(choices=sorted(MODEL_FORMATS))
    licence = serializers.CharField(max_length=200, required=False, default="", help_text="written into the file")
    reason = serializers.CharField(max_length=500)


class ExportsQuery(ListQuery):
    """Filters and orders of the files."""

    orderings = {"requested_at": "requested_at"}
    default_ordering = "-requested_at"

    model = serializers.UUIDField(required=False)


class ExportRow(serializers.Serializer[Any]):
    """An export and how far it is."""

    id = serializers.UUIDField()
    model = serializers.UUIDField()
    format = serializers.ChoiceField(choices=sorted(MODEL_FORMATS))
    state = serializers.ChoiceField(choices=sorted(ModelExportState))
    due_at = serializers.DateTimeField(allow_null=True)
    requested_by = serializers.CharField()
    requested_at = serializers.DateTimeField()
    reason = serializers.CharField()
    licence = serializers.CharField(allow_null=True)
    file_bytes = serializers.IntegerField(allow_null=True)
    file_digest = serializers.CharField(allow_null=True, help_text="SHA-256 of the file, hexadecimal")
    failure_code = serializers.CharField(allow_null=True)


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
    """One field of the plan that differs."""

    field = serializers.CharField()  # type: ignore[assignment]
    before = serializers.JSONField(allow_null=True)  # type: ignore[var-annotated]
    after = serializers.JSONField(allow_null=True)  # type: ignore[var-annotated]


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


def alias_as_json(alias: ModelAlias) -> dict[str, Any]:
    """An alias and where it points."""
    return {
        "alias": alias.name,
        "job": alias.job,
        "model": str(alias.model_id) if alias.model_id else None,
        "number": alias.model.number if alias.model else None,
        "weights_digest": bytes(alias.model.weights_digest).hex() if alias.model else None,
        "moved_at": alias.moved_at,
    }


def move_as_json(move: AliasMove) -> dict[str, Any]:
    """A proposal and what became of it."""
    return {
        "id": str(move.id),
        "alias": move.alias.name,
        "job": move.alias.job,
        "state": move.state,
        "model": str(move.target_id),
        "before": str(move.before_id) if move.before_id else None,
        "rollback": move.is_rollback,
        "reason": move.reason,
        "proposed_by": move.proposed_by,
        "proposed_at": move.proposed_at,
        "due_at": move.due_at,
        "decided_by": move.decided_by or None,
        "decided_at": move.decided_at,
        "decision": move.decision or None,
    }


def export_as_json(export: ModelExport) -> dict[str, Any]:
    """An export and how far it is; never what opens it."""
    return {
        "id": str(export.id),
        "model": str(export.model_id),
        "format": export.format,
        "state": export.state,
        "due_at": export.state_due_at,
        "requested_by": export.requested_by,
        "requested_at": export.requested_at,
        "reason": export.reason,
        "licence": export.licence or None,
        "file_bytes": export.file_bytes,
        "file_digest": export.file_digest or None,
        "failure_code": export.failure_code or None,
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
