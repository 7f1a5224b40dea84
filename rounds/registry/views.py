"""The model registry over REST."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiTypes, extend_schema
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.permissions import AnyRole, KeyMaterialReaders, OperatorWrites, RevokersWrite
from controlplane.views import Endpoint, ListEndpoint
from devices.models import Federation
from latticeward.errors import NotFoundError
from rounds import tasks
from rounds.models import AliasMove, ModelAlias, ModelExport, ModelVersion
from rounds.registry import selectors
from rounds.registry.serializers.aliases import (
    AliasesQuery,
    AliasMoveRequest,
    AliasRow,
    MoveRow,
    MovesQuery,
    alias_as_json,
    move_as_json,
)
from rounds.registry.serializers.exports import ExportRow, ExportsQuery, ModelExportRequest, export_as_json
from rounds.registry.serializers.versions import (
    DifferenceAnswer,
    DifferenceRequest,
    ModelAnswer,
    ModelLineage,
    ModelRow,
    ModelsQuery,
    ReasonRequest,
    ancestor_as_json,
    difference_as_json,
    model_as_json,
    version_as_json,
)
from rounds.services import aliases, differences, exports, standing


class ModelsView(ListEndpoint):
    """Published versions."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]
    row = ModelRow
    query = ModelsQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[ModelVersion]:
        names = {"training": "training", "job": "training__job", "state": "state", "alias": "aliases__name"}
        return selectors.published_models().filter(**{names[name]: asked[name] for name in names if name in asked})

    def show(self, rows: list[ModelVersion]) -> Sequence[Any]:
        return [model_as_json(row) for row in rows]


class ModelView(Endpoint):
    """One version with its evidence and metric."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]

    @extend_schema(responses=ModelAnswer)
    def get(self, request: Request, id: UUID) -> Response:
        return Response(version_as_json(selectors.read_version(selectors.published_model(id))))


class ModelLineageView(Endpoint):
    """A version and what it came from, back to the start of its plan."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]

    @extend_schema(responses=ModelLineage)
    def get(self, request: Request, id: UUID) -> Response:
        line = selectors.lineage_of(selectors.published_model(id))
        return Response({"results": [ancestor_as_json(row) for row in line]})


class ModelRetireView(Endpoint):
    """Say that a version is no longer recommended; it stays."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]

    @extend_schema(request=ReasonRequest, responses=ModelRow)
    def post(self, request: Request, id: UUID) -> Response:
        standing.retire_model(
            model_id=id, actor=self.actor(request), reason=self.read(ReasonRequest, request)["reason"]
        )
        return Response(model_as_json(selectors.published_model(id)))


class ModelRevokeView(Endpoint):
    """End a version's standing: it is handed out no more."""

    permission_classes = [RevokersWrite]

    @extend_schema(request=ReasonRequest, responses=ModelRow)
    def post(self, request: Request, id: UUID) -> Response:
        standing.revoke_model(
            model_id=id, actor=self.actor(request), reason=self.read(ReasonRequest, request)["reason"]
        )
        return Response(model_as_json(selectors.published_model(id)))


class ModelExportsView(ListEndpoint):
    """Files of versions; an operator asks for one, and the aggregation worker makes it."""

    permission_classes: list[type[BasePermission]] = [KeyMaterialReaders]
    row = ExportRow
    query = ExportsQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[ModelExport]:
        return selectors.exports(model_id=asked.get("model"))

    def show(self, rows: list[ModelExport]) -> Sequence[Any]:
        return [export_as_json(row) for row in rows]

    @extend_schema(request=ModelExportRequest, responses={202: ExportRow})
    def post(self, request: Request) -> Response:
        values: dict[str, Any] = self.read(ModelExportRequest, request)
        export = exports.request_export(
            model=selectors.published_model(values["model"]),
            form=values["format"],
            licence=values["licence"],
            reason=values["reason"],
            actor=self.actor(request),
        )
        transaction.on_commit(lambda: tasks.make_export.delay(str(export.id)))
        return Response(export_as_json(export), status=202)


class ModelExportView(Endpoint):
    """One export and how far it is."""

    permission_classes: list[type[BasePermission]] = [KeyMaterialReaders]

    @extend_schema(responses=ExportRow)
    def get(self, request: Request, id: UUID) -> Response:
        return Response(export_as_json(selectors.export(id)))


class ModelExportFileView(Endpoint):
    """The file, once, for the person who asked for it."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]
    repeats_safely = "a file is handed out once: a repetition is refused by the export's state"

    @extend_schema(request=None, responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    def post(self, request: Request, id: UUID) -> HttpResponse:
        file = exports.take_export(export_id=id, actor=self.actor(request))
        headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "private, no-store"}
        return HttpResponse(file.content, content_type=file.media_type, headers=headers)


class ModelDifferencesView(Endpoint):
    """How two versions differ; any role may ask, and the aggregation worker answers."""

    permission_classes: list[type[BasePermission]] = [AnyRole]

    @extend_schema(request=DifferenceRequest, responses={202: DifferenceAnswer})
    def post(self, request: Request) -> Response:
        values: dict[str, Any] = self.read(DifferenceRequest, request)
        before, after = (selectors.published_model(values[name]) for name in ("before", "after"))
        row = differences.request_difference(before=before, after=after, actor=self.actor(request))
        if row.computed_at is None:
            transaction.on_commit(lambda: tasks.compute_difference.delay(str(row.id)))
        return Response(difference_as_json(selectors.read_difference(row.id)), status=202)


class ModelDifferenceView(Endpoint):
    """One difference and what was found."""

    permission_classes: list[type[BasePermission]] = [AnyRole]

    @extend_schema(responses=DifferenceAnswer)
    def get(self, request: Request, id: UUID) -> Response:
        return Response(difference_as_json(selectors.read_difference(id)))


class AliasesView(ListEndpoint):
    """Aliases and where they point."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]
    row = AliasRow
    query = AliasesQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[ModelAlias]:
        rows = selectors.aliases_of(_federation())
        return rows.filter(job=asked["job"]) if "job" in asked else rows

    def show(self, rows: list[ModelAlias]) -> Sequence[Any]:
        return [alias_as_json(row) for row in rows]


class AliasMovesView(ListEndpoint):
    """Proposals to move an alias; an operator makes a new one."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]
    row = MoveRow
    query = MovesQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[AliasMove]:
        names = {"state": "state", "alias": "alias__name"}
        rows = selectors.moves(federation=_federation())
        return rows.filter(**{names[name]: asked[name] for name in names if name in asked})

    def show(self, rows: list[AliasMove]) -> Sequence[Any]:
        return [move_as_json(row) for row in rows]

    @extend_schema(request=AliasMoveRequest, responses={201: MoveRow})
    def post(self, request: Request) -> Response:
        values: dict[str, Any] = self.read(AliasMoveRequest, request)
        move = aliases.propose_move(
            model=selectors.published_model(values["model"]),
            name=values["alias"],
            reason=values["reason"],
            actor=self.actor(request),
        )
        return Response(move_as_json(move), status=201)


class AliasMoveConfirmView(Endpoint):
    """The second person's yes to a proposal."""

    permission_classes = [RevokersWrite]

    @extend_schema(request=None, responses=MoveRow)
    def post(self, request: Request, id: UUID) -> Response:
        return Response(move_as_json(aliases.confirm_move(move_id=id, actor=self.actor(request))))


class AliasMoveDeclineView(Endpoint):
    """The second person's no to a proposal."""

    permission_classes = [RevokersWrite]

    @extend_schema(request=ReasonRequest, responses=MoveRow)
    def post(self, request: Request, id: UUID) -> Response:
        return Response(
            move_as_json(
                aliases.decline_move(
                    move_id=id, actor=self.actor(request), reason=self.read(ReasonRequest, request)["reason"]
                )
            )
        )


class AliasMoveWithdrawView(Endpoint):
    """Take back a proposal of one's own."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]

    @extend_schema(request=ReasonRequest, responses=MoveRow)
    def post(self, request: Request, id: UUID) -> Response:
        return Response(
            move_as_json(
                aliases.withdraw_move(
                    move_id=id, actor=self.actor(request), reason=self.read(ReasonRequest, request)["reason"]
                )
            )
        )


def _federation() -> Federation:
    federation = Federation.objects.order_by("created_at").first()
    if federation is None:
        raise NotFoundError("no federation yet")
    return federation
