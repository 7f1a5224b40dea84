"""Aliases and the proposals to move them as JSON, and what people may ask of them."""

from typing import Any

from rest_framework import serializers

from controlplane.serializers import ListQuery
from latticeward.lifecycle import AliasMoveState
from rounds.models import AliasMove, ModelAlias

ALIAS_NAME = r"^[a-z][a-z0-9-]{0,39}$"


class AliasMoveRequest(serializers.Serializer[Any]):
    """Which version an alias should point at, and why."""

    alias = serializers.RegexField(
        ALIAS_NAME, help_text="1 to 40 lower-case letters, digits and hyphens, a letter first"
    )
    model = serializers.UUIDField()
    reason = serializers.CharField(max_length=500)


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
    alias = serializers.RegexField(ALIAS_NAME, required=False)


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
