"""The doors of enrolment, and what operators do with sites, devices and claim codes over REST."""

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

from controlplane.permissions import KeyMaterialReaders, OperatorWrites, RevokersWrite
from controlplane.throttles import Limit
from controlplane.views import Endpoint, ListEndpoint
from devices import claims, enrolment, selectors, services, sites, tasks
from devices.models import Claim, Device, Federation, Site
from devices.serializers import (
    BeginSerializer,
    BegunSerializer,
    ClaimBulkSerializer,
    ClaimOrderSerializer,
    ClaimSerializer,
    ClaimsQuery,
    DecisionSerializer,
    DeviceSerializer,
    DevicesQuery,
    FinishedSerializer,
    FinishSerializer,
    NewClaimSerializer,
    RevokeSerializer,
    SiteSerializer,
    SitesQuery,
)
from keys.models import Reason
from latticeward.claim_code import ClaimCode, format_code, format_uri
from latticeward.enrolment import FinishProofs
from latticeward.errors import NotFoundError, UnknownSiteError
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


class SitesView(ListEndpoint):
    """The hospitals of the federation."""

    permission_classes = [OperatorWrites]
    row = SiteSerializer
    query = SitesQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Site]:
        return Site.objects.all()

    @extend_schema(request=SiteSerializer, responses={201: SiteSerializer})
    def post(self, request: Request) -> Response:
        body = self.read(SiteSerializer, request)
        site = sites.create_site(
            federation=_federation(), slug=body["slug"], name=body["name"], actor=self.actor(request)
        )
        return Response(SiteSerializer(site).data, status=status.HTTP_201_CREATED)


class DevicesView(ListEndpoint):
    """The fleet."""

    permission_classes = [KeyMaterialReaders]
    row = DeviceSerializer
    query = DevicesQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Device]:
        names = {"state": "state", "suite": "suite", "site": "site__slug", "device_class": "device_class__slug"}
        return selectors.fleet(_federation()).filter(**{names[name]: asked[name] for name in names if name in asked})

    def show(self, rows: list[Device]) -> Sequence[Any]:
        return super().show(selectors.fleet_rows(rows))


class DeviceView(Endpoint):
    """One device."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses=DeviceSerializer)
    def get(self, request: Request, device_id: UUID) -> Response:
        return _device_response(device_id)


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


class ClaimsView(ListEndpoint):
    """Claim codes: listed without their secrets, made with them, once."""

    shown_once = ("code", "uri")
    permission_classes = [KeyMaterialReaders]
    row = ClaimSerializer
    query = ClaimsQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Claim]:
        rows = Claim.objects.select_related("site", "device_class")
        if "site" in asked:
            rows = rows.filter(site__slug=asked["site"])
        return rows.filter(consumed_at__isnull=not asked["consumed"]) if "consumed" in asked else rows

    @extend_schema(request=ClaimOrderSerializer, responses={201: NewClaimSerializer})
    def post(self, request: Request) -> Response:
        body = self.read(ClaimOrderSerializer, request)
        site = Site.objects.select_related("federation").filter(slug=body["site"]).first()
        if site is None:
            raise UnknownSiteError(f"There is no hospital {body['site']!r}.")
        claim, code = claims.create_claim(
            site=site,
            device_class=body["device_class"],
            auto_approve=body["auto_approve"],
            actor=self.actor(request),
        )
        return Response(_new_claim(claim, code), status=status.HTTP_201_CREATED)


class ClaimBulkView(Endpoint):
    """Many claim codes from one order in CSV: all of them, or none."""

    shown_once = ("code", "uri")
    permission_classes = [OperatorWrites]

    @extend_schema(request=ClaimBulkSerializer, responses={201: NewClaimSerializer(many=True)})
    def post(self, request: Request) -> Response:
        body = self.read(ClaimBulkSerializer, request)
        made = claims.create_claims(
            federation=_federation(),
            rows=claims.parse_rows(body["csv"]),
            actor=self.actor(request),
            auto_approve=body["auto_approve"],
        )
        return Response([_new_claim(*pair) for pair in made], status=status.HTTP_201_CREATED)


class ClaimView(Endpoint):
    """One claim code; deleting it makes it worthless."""

    permission_classes = [OperatorWrites]

    @extend_schema(responses={204: None})
    def delete(self, request: Request, claim_id: UUID) -> Response:
        claims.cancel_claim(claim_id=claim_id, actor=self.actor(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _federation() -> Federation:
    federation = Federation.objects.first()
    if federation is None:
        raise NotFoundError("this installation has no federation yet")
    return federation


def _device_response(device_id: UUID) -> Response:
    device = selectors.fleet(_federation()).filter(pk=device_id).first()
    if device is None:
        raise NotFoundError(f"there is no device {device_id}")
    return Response(DeviceSerializer(selectors.fleet_rows([device])[0]).data)


def _new_claim(claim: Claim, code: ClaimCode) -> dict[str, Any]:
    return {**ClaimSerializer(claim).data, "code": format_code(code), "uri": format_uri(code)}


def _enqueue_issue(device: Device) -> None:
    if device.state == DeviceState.APPROVED:
        transaction.on_commit(lambda: tasks.issue_device.delay(str(device.id)))
