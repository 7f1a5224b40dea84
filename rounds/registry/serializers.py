"""The model registry as JSON, and what people may ask of it."""

from typing import Any

from rest_framework import serializers

from rounds.models import AliasMove, ModelAlias, ModelVersion
from rounds.registry.selectors import Ancestor, Measured, Version

_NAME = r"^[a-z][a-z0-9-]{0,39}$"


class AliasMoveRequest(serializers.Serializer[Any]):
    """Which version an alias should point at, and why."""

    alias = serializers.RegexField(_NAME, help_text="1 to 40 lower-case letters, digits and hyphens, a letter first")
    model = serializers.UUIDField()
    reason = serializers.CharField(max_length=500)


class ReasonRequest(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500)


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
