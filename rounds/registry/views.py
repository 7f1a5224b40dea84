"""The model registry over REST."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiTypes, extend_schema
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.permissions import OperatorWrites, RevokersWrite
from devices.models import Federation
from latticeward.errors import NotFoundError
from latticeward.lifecycle import AliasMoveState
from rounds.models import AliasMove
from rounds.registry import selectors
from rounds.registry.serializers import (
    AliasMoveRequest,
    ReasonRequest,
    alias_as_json,
    ancestor_as_json,
    model_as_json,
    move_as_json,
    version_as_json,
)
from rounds.services import aliases, standing


class _View(APIView):
    permission_classes: list[type[BasePermission]] = [OperatorWrites]


def _actor(request: Request) -> str:
    return f"user:{request.user.pk}"


def _federation() -> Federation:
    federation = Federation.objects.order_by("created_at").first()
    if federation is None:
        raise NotFoundError("no federation yet")
    return federation


def _reason(request: Request) -> str:
    asked = ReasonRequest(data=request.data)
    asked.is_valid(raise_exception=True)
    return str(asked.validated_data["reason"])


class ModelsView(_View):
    """Published versions, newest first."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        return Response({"results": [model_as_json(row) for row in selectors.published_models()[:200]]})


class ModelView(_View):
    """One version with its evidence and metric."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, id: UUID) -> Response:
        return Response(version_as_json(selectors.read_version(selectors.published_model(id))))


class ModelLineageView(_View):
    """A version and what it came from, across trainings."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, id: UUID) -> Response:
        line = selectors.lineage_of(selectors.published_model(id))
        return Response({"results": [ancestor_as_json(row) for row in line]})


class ModelRetireView(_View):
    @extend_schema(request=ReasonRequest, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, id: UUID) -> Response:
        standing.retire_model(model_id=id, actor=_actor(request), reason=_reason(request))
        return Response(model_as_json(selectors.published_model(id)))


class ModelRevokeView(_View):
    permission_classes = [RevokersWrite]

    @extend_schema(request=ReasonRequest, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, id: UUID) -> Response:
        standing.revoke_model(model_id=id, actor=_actor(request), reason=_reason(request))
        return Response(model_as_json(selectors.published_model(id)))


class AliasesView(_View):
    """Aliases and where they point."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        return Response({"results": [alias_as_json(row) for row in selectors.aliases_of(_federation())]})


class AliasMovesView(_View):
    """Proposals, newest first; ``?state=`` and ``?alias=`` narrow. An operator makes a new one."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        rows: QuerySet[AliasMove] = selectors.moves(federation=_federation())
        if state := request.query_params.get("state"):
            if state not in set(AliasMoveState):
                raise NotFoundError(f"no state {state[:40]!r}")
            rows = rows.filter(state=state)
        if alias := request.query_params.get("alias"):
            rows = rows.filter(alias__name=alias)
        return Response({"results": [move_as_json(row) for row in rows[:200]]})

    @extend_schema(request=AliasMoveRequest, responses={201: OpenApiTypes.OBJECT})
    def post(self, request: Request) -> Response:
        asked = AliasMoveRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        values: dict[str, Any] = asked.validated_data
        move = aliases.propose_move(
            model=selectors.published_model(values["model"]),
            name=values["alias"],
            reason=values["reason"],
            actor=_actor(request),
        )
        return Response(move_as_json(move), status=201)


class AliasMoveConfirmView(_View):
    permission_classes = [RevokersWrite]

    @extend_schema(request=None, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, id: UUID) -> Response:
        return Response(move_as_json(aliases.confirm_move(move_id=id, actor=_actor(request))))


class AliasMoveDeclineView(_View):
    permission_classes = [RevokersWrite]

    @extend_schema(request=ReasonRequest, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, id: UUID) -> Response:
        return Response(move_as_json(aliases.decline_move(move_id=id, actor=_actor(request), reason=_reason(request))))


class AliasMoveWithdrawView(_View):
    @extend_schema(request=ReasonRequest, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, id: UUID) -> Response:
        return Response(move_as_json(aliases.withdraw_move(move_id=id, actor=_actor(request), reason=_reason(request))))
