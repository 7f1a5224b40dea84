"""Rotations and suites over REST: what is due, the jobs, and what the federation says of each suite."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.permissions import KeyMaterialReaders, OperatorWrites
from controlplane.views import Endpoint, ListEndpoint
from devices import rotation, suites, tasks
from devices.due import due_devices
from devices.models import Federation, Rotation
from devices.rotations.serializers import (
    DueSerializer,
    RetirementSerializer,
    RotationOrderSerializer,
    RotationSerializer,
    RotationsQuery,
    SuiteSerializer,
    due_as_json,
    rotation_as_json,
    suite_as_json,
)
from latticeward.errors import InvalidValueError, NotFoundError


class DueView(Endpoint):
    """Devices whose keys are due by their class's policy, or that are late with their own renewal."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses=DueSerializer(many=True))
    def get(self, request: Request) -> Response:
        return Response([due_as_json(row) for row in due_devices(_federation())])


class RotationsView(ListEndpoint):
    """Jobs that rotate many devices' keys."""

    permission_classes = [KeyMaterialReaders]
    row = RotationSerializer
    query = RotationsQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Rotation]:
        return Rotation.objects.filter(**{name: asked[name] for name in ("state",) if name in asked})

    def show(self, rows: list[Rotation]) -> Sequence[Any]:
        return [rotation_as_json(job, rotation.progress(job)) for job in rows]

    @extend_schema(request=RotationOrderSerializer, responses={201: RotationSerializer})
    def post(self, request: Request) -> Response:
        body = self.read(RotationOrderSerializer, request)
        job = rotation.start_rotation(federation=_federation(), actor=self.actor(request), **body)
        _enqueue()
        return Response(_shown(job), status=status.HTTP_201_CREATED)


class RotationView(Endpoint):
    """One job with its progress and its stragglers."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses=RotationSerializer)
    def get(self, request: Request, rotation_id: UUID) -> Response:
        return Response(_shown(rotation.get_rotation(rotation_id)))


class RotationPauseView(Endpoint):
    """Ask nobody further; who was asked may still renew."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=None, responses=RotationSerializer)
    def post(self, request: Request, rotation_id: UUID) -> Response:
        return Response(_shown(rotation.pause_rotation(rotation_id=rotation_id, actor=self.actor(request))))


class RotationResumeView(Endpoint):
    """Go on asking."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=None, responses=RotationSerializer)
    def post(self, request: Request, rotation_id: UUID) -> Response:
        job = rotation.resume_rotation(rotation_id=rotation_id, actor=self.actor(request))
        _enqueue()
        return Response(_shown(job))


class RotationCancelView(Endpoint):
    """End a job; who has not renewed is no longer asked."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=None, responses=RotationSerializer)
    def post(self, request: Request, rotation_id: UUID) -> Response:
        return Response(_shown(rotation.cancel_rotation(rotation_id=rotation_id, actor=self.actor(request))))


class SuitesView(Endpoint):
    """The suites, what the federation says of each, and how many devices use it."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses=SuiteSerializer(many=True))
    def get(self, request: Request) -> Response:
        return Response([suite_as_json(row) for row in suites.standings(_federation())])


class SuiteAcceptView(Endpoint):
    """Let a suite of the table make new keys and plans."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=None, responses=SuiteSerializer)
    def post(self, request: Request, suite: str) -> Response:
        suites.accept_suite(federation=_federation(), suite=suite, actor=self.actor(request))
        return _suite_response(suite)


class SuiteRetireView(Endpoint):
    """Retire a suite from a date; every device that uses it is migrated."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=RetirementSerializer, responses=SuiteSerializer)
    def post(self, request: Request, suite: str) -> Response:
        body = self.read(RetirementSerializer, request)
        if body.pop("now") == ("retire_at" in body):
            raise InvalidValueError("Name either the date from which it makes nothing new, or now.")
        order = {"retire_at": None, **body}
        rotation.retire_suite(federation=_federation(), suite=suite, actor=self.actor(request), **order)
        _enqueue()
        return _suite_response(suite)


class SuiteKeepView(Endpoint):
    """Take a retirement back before its date."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=None, responses=SuiteSerializer)
    def post(self, request: Request, suite: str) -> Response:
        rotation.keep_suite(federation=_federation(), suite=suite, actor=self.actor(request))
        return _suite_response(suite)


def _suite_response(suite: str) -> Response:
    for row in suites.standings(_federation()):
        if row.suite.id == suite:
            return Response(suite_as_json(row))
    raise NotFoundError(f"there is no suite {suite}")


def _shown(job: Rotation) -> dict[str, Any]:
    return rotation_as_json(job, rotation.progress(job))


def _federation() -> Federation:
    federation = Federation.objects.first()
    if federation is None:
        raise NotFoundError("this installation has no federation yet")
    return federation


def _enqueue() -> None:
    transaction.on_commit(tasks.advance_rotations.delay)
