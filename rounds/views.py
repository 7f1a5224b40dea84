"""Trainings, rounds and models over REST, for operators' tools and for readers."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Q, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.permissions import KeyMaterialReaders, OperatorWrites
from controlplane.views import Endpoint, ListEndpoint
from devices.due import blast_radius
from devices.models import Federation
from devices.rotations.serializers import BlastRadiusSerializer, ScopeSerializer, radius_as_json
from latticeward.errors import NotFoundError
from latticeward.lifecycle import RoundState
from rounds import selectors, tasks
from rounds.models import Round, Training
from rounds.serializers import (
    ComparisonReport,
    RoundAnswer,
    RoundsQuery,
    StopRequest,
    TrainingAnswer,
    TrainingRequest,
    TrainingRow,
    TrainingsQuery,
    round_as_json,
    training_as_json,
)
from rounds.services.plans import plan_for
from rounds.services.trainings import attach_comparison, open_training, stop_training


class TrainingsView(ListEndpoint):
    """All trainings; an operator opens a new one."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]
    row = TrainingRow
    query = TrainingsQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Training]:
        done = Count("rounds", filter=Q(rounds__state=RoundState.PUBLISHED, rounds__kind="training"))
        rows = Training.objects.annotate(rounds_done=done).defer("plan", "signed_plan")
        return rows.filter(**{name: asked[name] for name in ("state", "job", "suite") if name in asked})

    @extend_schema(request=TrainingRequest, responses={201: TrainingAnswer})
    def post(self, request: Request) -> Response:
        asked = self.read(TrainingRequest, request)
        federation = Federation.objects.order_by("created_at").first()
        if federation is None:
            raise NotFoundError("no federation yet")
        plan = plan_for(asked, federation)
        training = open_training(federation=federation, plan=plan, actor=self.actor(request))
        transaction.on_commit(lambda: tasks.sign_training.delay(str(training.id)))
        return Response(training_as_json(training), status=201)


class TrainingView(Endpoint):
    """One training with its metric by round."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]

    @extend_schema(responses=TrainingAnswer)
    def get(self, request: Request, id: UUID) -> Response:
        return Response(training_as_json(_training(id)))


class TrainingStopView(Endpoint):
    """Stop a training for good; what it has published stays."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]

    @extend_schema(request=StopRequest, responses=TrainingAnswer)
    def post(self, request: Request, id: UUID) -> Response:
        reason = self.read(StopRequest, request)["reason"]
        training = _training(id)
        stop_training(training=training, actor=self.actor(request), reason=reason)
        return Response(training_as_json(training))


class TrainingComparisonView(Endpoint):
    """Reference results of a tool that may see all data of a demonstration, to show beside the metric."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]

    @extend_schema(request=ComparisonReport, responses=TrainingAnswer)
    def put(self, request: Request, id: UUID) -> Response:
        report = self.read(ComparisonReport, request)
        training = _training(id)
        attach_comparison(training=training, comparison=report, actor=self.actor(request))
        return Response(training_as_json(_training(id)))


class RoundsView(ListEndpoint):
    """Rounds with their participants."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]
    row = RoundAnswer
    query = RoundsQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Round]:
        wanted = {name: asked[name] for name in ("training", "state", "kind") if name in asked}
        return _shown_rounds().filter(**wanted)

    def show(self, rows: list[Round]) -> Sequence[Any]:
        return [round_as_json(row) for row in rows]


class RoundView(Endpoint):
    """One round with its participants and how long its parts took."""

    permission_classes: list[type[BasePermission]] = [OperatorWrites]

    @extend_schema(responses=RoundAnswer)
    def get(self, request: Request, id: UUID) -> Response:
        if (row := _shown_rounds().filter(pk=id).first()) is None:
            raise NotFoundError(f"round {id}")
        return Response(round_as_json(row))


def _training(identity: UUID) -> Training:
    try:
        return Training.objects.select_related("federation").get(pk=identity)
    except Training.DoesNotExist as error:
        raise NotFoundError(f"training {identity}") from error


def _shown_rounds() -> QuerySet[Round]:
    return Round.objects.prefetch_related("participants__device__site", "participants__submissions")


class RotationPreviewView(Endpoint):
    """A dry run: what rotating these devices' keys would touch, the rounds that run with them included.

    Here, and not beside the other addresses of rotations, because it knows rounds.
    """

    permission_classes: list[type[BasePermission]] = [KeyMaterialReaders]
    query = ScopeSerializer

    @extend_schema(parameters=[ScopeSerializer], responses=BlastRadiusSerializer)
    def get(self, request: Request) -> Response:
        federation = Federation.objects.first()
        if federation is None:
            raise NotFoundError("this installation has no federation yet")
        asked = self.asked(self.query, request)
        radius, devices = blast_radius(federation, asked["scope"], asked["value"])
        return Response(radius_as_json(radius, selectors.rounds_with(devices)))
