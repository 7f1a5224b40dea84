"""Files of model versions as JSON, and what people may ask of them."""

from typing import Any

from rest_framework import serializers

from controlplane.serializers import ListQuery
from latticeward.lifecycle import ModelExportState
from latticeward.model_files import MODEL_FORMATS
from rounds.models import ModelExport


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
