"""The doors of enrolment, and what people do with devices over REST; what comes before stands in ``admission``."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.permissions import ForDevices, KeyMaterialReaders, OperatorWrites, RevokersWrite
from controlplane.throttles import Limit, spend
from controlplane.views import Endpoint, ListEndpoint
from devices import enrolment, selectors, services, tasks
from devices.authentication import SignedRequestAuthentication
from devices.models import Device
from devices.serializers import (
    BeginSerializer,
    BegunSerializer,
    DecisionSerializer,
    DeviceSerializer,
    DevicesQuery,
    FinishedSerializer,
    FinishSerializer,
    MeSerializer,
    RevokeSerializer,
)
from keys.models import Reason
from latticeward.enrolment import FinishProofs
from latticeward.errors import NotFoundError
from latticeward.lifecycle import DeviceState


class EnrolmentsView(Endpoint):
    """The first message of a machine that holds a claim code; the MAC inside is its only authentication."""

    repeats_safely = "the same transcript gets the stored answer again"
    limit = Limit.ENROLMENT
    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]

    @extend_schema(request=BeginSerializer, responses={201: BegunSerializer})
    def post(self, request: Request) -> Response:
        body = self.read(BeginSerializer, request)
        begun = enrolment.begin_enrolment(transcript=body["transcript"], mac=body["mac"], source=self.source(request))
        answer = {"enrolment": begun.enrolment_id, "answer": begun.answer, "mac": begun.mac}
        return Response(BegunSerializer(answer).data, status=status.HTTP_201_CREATED)


class FinishEnrolmentView(Endpoint):
    """The proofs of all four keys; what comes out is a device, waiting for approval or its certificate."""

    repeats_safely = "the same proofs get the same device again"
    limit = Limit.ENROLMENT
    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]

    @extend_schema(request=FinishSerializer, responses={202: FinishedSerializer})
    def post(self, request: Request, enrolment_id: UUID) -> Response:
        body = self.read(FinishSerializer, request)
        proofs = FinishProofs(challenge_mac=body["challenge_mac"], **body["signatures"])
        device = enrolment.finish_enrolment(enrolment_id=enrolment_id, proofs=proofs)
        _enqueue_issue(device)
        answer = {"device": device.id, "state": device.state}
        return Response(FinishedSerializer(answer).data, status=status.HTTP_202_ACCEPTED)


class DevicesView(ListEndpoint):
    """The fleet."""

    permission_classes = [KeyMaterialReaders]
    row = DeviceSerializer
    query = DevicesQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Device]:
        names = {"state": "state", "suite": "suite", "site": "site__slug", "device_class": "device_class__slug"}
        return selectors.fleet(selectors.the_federation()).filter(
            **{names[name]: asked[name] for name in names if name in asked}
        )

    def show(self, rows: list[Device]) -> Sequence[Any]:
        return super().show(selectors.fleet_rows(rows))


class DeviceView(Endpoint):
    """One device."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses=DeviceSerializer)
    def get(self, request: Request, device_id: UUID) -> Response:
        return _device_response(device_id)


class MeView(Endpoint):
    """What the server knows of the device that asks: state, keys, certificate, and from when it may renew."""

    authentication_classes = [SignedRequestAuthentication]
    permission_classes = [ForDevices]

    def actor(self, request: Request) -> str:
        return f"device:{_asking(request).id}"

    def check_throttles(self, request: Request) -> None:
        spend(Limit.DEVICE, str(_asking(request).id))

    @extend_schema(responses=MeSerializer)
    def get(self, request: Request) -> Response:
        # Not through the serializer, which describes this answer and would be a third of its cost.
        return Response(selectors.read_self(_asking(request)))


class ApproveDeviceView(Endpoint):
    """Let a machine take part, after its fingerprint was compared."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=DecisionSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        why = self.read(DecisionSerializer, request)["why"]
        _enqueue_issue(services.approve_device(device_id=device_id, actor=self.actor(request), why=why))
        return _device_response(device_id)


class DeclineDeviceView(Endpoint):
    """Refuse a machine that asked."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=DecisionSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        why = self.read(DecisionSerializer, request)["why"]
        services.decline_device(device_id=device_id, actor=self.actor(request), why=why)
        return _device_response(device_id)


class SuspendDeviceView(Endpoint):
    """Take a device out until it is reinstated."""

    permission_classes = [RevokersWrite]

    @extend_schema(request=DecisionSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        why = self.read(DecisionSerializer, request)["why"]
        services.suspend_device(device_id=device_id, actor=self.actor(request), why=why)
        return _device_response(device_id)


class ReinstateDeviceView(Endpoint):
    """Let a suspended device take part again."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=DecisionSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        why = self.read(DecisionSerializer, request)["why"]
        services.reinstate_device(device_id=device_id, actor=self.actor(request), why=why)
        return _device_response(device_id)


class RevokeDeviceView(Endpoint):
    """Take trust away from a device, for good and with a reason."""

    permission_classes = [RevokersWrite]

    @extend_schema(request=RevokeSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        body = self.read(RevokeSerializer, request)
        services.revoke_device(
            device_id=device_id,
            actor=self.actor(request),
            reason=Reason(body["reason"]),
            invalid_from=body["invalid_from"],
        )
        return _device_response(device_id)


def _device_response(device_id: UUID) -> Response:
    device = selectors.fleet(selectors.the_federation()).filter(pk=device_id).first()
    if device is None:
        raise NotFoundError(f"there is no device {device_id}")
    return Response(DeviceSerializer(selectors.fleet_rows([device])[0]).data)


def _asking(request: Request) -> Device:
    authenticated: Any = request.auth
    device: Device = authenticated.device
    return device


def _enqueue_issue(device: Device) -> None:
    if device.state == DeviceState.APPROVED:
        transaction.on_commit(tasks.ask_to_issue)
