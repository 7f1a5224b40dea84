"""Trainings, rounds and models over REST, for operators' tools and for readers."""

import time
from dataclasses import fields
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiTypes, extend_schema
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.permissions import OperatorWrites
from devices.models import Federation
from latticeward.errors import IncompatiblePlanError, NotFoundError
from latticeward.jobs import JOB_SPECS
from latticeward.plan import RoundPlan, StageSeconds
from latticeward.updates.metrics import METRICS
from rounds import tasks
from rounds.models import Round, Training
from rounds.serializers import (
    ComparisonReport,
    StopRequest,
    TrainingRequest,
    round_as_json,
    training_as_json,
)
from rounds.services.trainings import attach_comparison, open_training, stop_training

_FIXED = {"training_id", "federation_id", "layout", "initial", "metric", "metric_size", "created_at", "job"}


def plan_for(request: dict[str, Any], federation: Federation) -> RoundPlan:
    """A plan from a job's defaults and what the operator wants otherwise.

    Raises:
        IncompatiblePlanError: an override names no field that an operator may choose.
    """
    job = JOB_SPECS[request["job"]]
    overrides = dict(request.get("plan") or {})
    if "rounds" in request:
        overrides["rounds"] = request["rounds"]
    known = {field.name for field in fields(RoundPlan)} - _FIXED
    if unknown := set(overrides) - known:
        raise IncompatiblePlanError(f"the plan has no field {sorted(unknown)[0]!r} that you could choose")
    metric = METRICS[job.metric]
    values: dict[str, Any] = {
        **job.default_plan,
        "suite": request.get("suite", settings.ACCEPTED_SUITES[0]),
        "title": request.get("title") or job.title,
        **overrides,
    }
    try:
        if "stage_seconds" in overrides:
            values["stage_seconds"] = StageSeconds(**overrides["stage_seconds"])
        return RoundPlan(
            training_id=str(uuid4()),
            federation_id=str(federation.id),
            job=job.name,
            layout=job.layout,
            initial=job.initial,
            metric=job.metric,
            metric_size=metric.size,
            created_at=int(time.time() * 1000),
            **values,
        ).validate()
    except (TypeError, ValueError) as error:
        raise IncompatiblePlanError("a field of the plan has a value of the wrong kind") from error


class _View(APIView):
    permission_classes: list[type[BasePermission]] = [OperatorWrites]


def _training(identity: UUID) -> Training:
    try:
        return Training.objects.select_related("federation").get(pk=identity)
    except Training.DoesNotExist as error:
        raise NotFoundError(f"training {identity}") from error


class TrainingsView(_View):
    """All trainings, newest first; an operator opens a new one."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        return Response({"results": [training_as_json(row) for row in Training.objects.all()[:100]]})

    @extend_schema(request=TrainingRequest, responses={201: OpenApiTypes.OBJECT})
    def post(self, request: Request) -> Response:
        asked = TrainingRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        federation = Federation.objects.order_by("created_at").first()
        if federation is None:
            raise NotFoundError("no federation yet")
        plan = plan_for(asked.validated_data, federation)
        training = open_training(federation=federation, plan=plan, actor=f"user:{request.user.pk}")
        transaction.on_commit(lambda: tasks.sign_training.delay(str(training.id)))
        return Response(training_as_json(training), status=201)


class TrainingView(_View):
    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, id: UUID) -> Response:
        return Response(training_as_json(_training(id)))


class TrainingStopView(_View):
    @extend_schema(request=StopRequest, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, id: UUID) -> Response:
        asked = StopRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        training = _training(id)
        stop_training(training=training, actor=f"user:{request.user.pk}", reason=asked.validated_data["reason"])
        return Response(training_as_json(training))


class TrainingComparisonView(_View):
    @extend_schema(request=ComparisonReport, responses=OpenApiTypes.OBJECT)
    def put(self, request: Request, id: UUID) -> Response:
        report = ComparisonReport(data=request.data)
        report.is_valid(raise_exception=True)
        training = _training(id)
        attach_comparison(training=training, comparison=report.validated_data, actor=f"user:{request.user.pk}")
        return Response(training_as_json(_training(id)))


class RoundsView(_View):
    """Rounds, newest first; ``?training=`` narrows."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        rows: QuerySet[Round] = Round.objects.order_by("-created_at").prefetch_related(
            "participants__device__site", "participants__submissions"
        )
        if training := request.query_params.get("training"):
            try:
                rows = rows.filter(training_id=UUID(training))
            except ValueError as error:
                raise NotFoundError("not a training's id") from error
        return Response({"results": [round_as_json(row) for row in rows[:200]]})


class RoundView(_View):
    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, id: UUID) -> Response:
        found = Round.objects.filter(pk=id).prefetch_related("participants__device__site", "participants__submissions")
        if (row := found.first()) is None:
            raise NotFoundError(f"round {id}")
        return Response(round_as_json(row))
