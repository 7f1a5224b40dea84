"""The ledger over REST, read only."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.audit.models import AuditEntry, Checkpoint
from controlplane.permissions import OperatorWrites
from controlplane.views import Endpoint


class LedgerHead(serializers.Serializer[Any]):
    """The newest signed tree head."""

    size = serializers.IntegerField()
    root = serializers.CharField(  # type: ignore[assignment]
        allow_null=True, help_text="hexadecimal, 32 bytes"
    )
    checkpoint = serializers.CharField(allow_null=True, help_text="the signed note, text")
    signed_at = serializers.DateTimeField(allow_null=True)
    waiting = serializers.IntegerField(help_text="entries without a number yet")


class LedgerView(Endpoint):
    """The newest signed tree head, and how many entries still wait for their number."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]

    @extend_schema(responses=LedgerHead)
    def get(self, request: Request) -> Response:
        head = Checkpoint.objects.order_by("-size").first()
        answer: dict[str, Any] = {
            "size": head.size if head else 0,
            "root": bytes(head.root).hex() if head else None,
            "checkpoint": head.note if head else None,
            "signed_at": head.signed_at if head else None,
            "waiting": AuditEntry.objects.filter(leaf_index__isnull=True).count(),
        }
        return Response(answer)
