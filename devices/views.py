"""The doors of enrolment, and what operators do with sites, devices and claim codes over REST."""

from typing import Any
from uuid import UUID

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from controlplane.permissions import KeyMaterialReaders, OperatorWrites, RevokersWrite
from devices import claims, enrolment, selectors, services, sites, tasks
from devices.models import Claim, Device, Federation, Site
from devices.serializers import (
    BeginSerializer,
    BegunSerializer,
    ClaimBulkSerializer,
    ClaimOrderSerializer,
    ClaimSerializer,
    DecisionSerializer,
    DeviceSerializer,
    FinishedSerializer,
    FinishSerializer,
    NewClaimSerializer,
    RevokeSerializer,
    SiteSerializer,
)
from keys.models import Reason
from latticeward.claim_code import ClaimCode, format_code, format_uri
from latticeward.enrolment import FinishProofs
from latticeward.errors import NotFoundError, UnknownSiteError
from latticeward.lifecycle import DeviceState


class EnrolmentsView(APIView):
    """The first message of a machine that holds a claim code; the MAC inside is its only authentication."""

    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]

    @extend_schema(request=BeginSerializer, responses={201: BegunSerializer})
    def post(self, request: Request) -> Response:
        body = _read(BeginSerializer, request)
        begun = enrolment.begin_enrolment(transcript=body["transcript"], mac=body["mac"], source=_source(request))
        answer = {"enrolment": begun.enrolment_id, "answer": begun.answer, "mac": begun.mac}
        return Response(BegunSerializer(answer).data, status=status.HTTP_201_CREATED)


class FinishEnrolmentView(APIView):
    """The proofs of all four keys; what comes out is a device, waiting for approval or its certificate."""

    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]

    @extend_schema(request=FinishSerializer, responses={202: FinishedSerializer})
    def post(self, request: Request, enrolment_id: UUID) -> Response:
        body = _read(FinishSerializer, request)
        proofs = FinishProofs(challenge_mac=body["challenge_mac"], **body["signatures"])
        device = enrolment.finish_enrolment(enrolment_id=enrolment_id, proofs=proofs)
        _enqueue_issue(device)
        answer = {"device": device.id, "state": device.state}
        return Response(FinishedSerializer(answer).data, status=status.HTTP_202_ACCEPTED)


class SitesView(APIView):
    """The hospitals of the federation."""

    permission_classes = [OperatorWrites]

    @extend_schema(responses=SiteSerializer(many=True))
    def get(self, request: Request) -> Response:
        return Response(SiteSerializer(Site.objects.order_by("name"), many=True).data)

    @extend_schema(request=SiteSerializer, responses={201: SiteSerializer})
    def post(self, request: Request) -> Response:
        body = _read(SiteSerializer, request)
        site = sites.create_site(federation=_federation(), slug=body["slug"], name=body["name"], actor=_actor(request))
        return Response(SiteSerializer(site).data, status=status.HTTP_201_CREATED)


class DevicesView(APIView):
    """The fleet."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses=DeviceSerializer(many=True))
    def get(self, request: Request) -> Response:
        return Response(DeviceSerializer(selectors.fleet(_federation()), many=True).data)


class DeviceView(APIView):
    """One device."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses=DeviceSerializer)
    def get(self, request: Request, device_id: UUID) -> Response:
        return _device_response(device_id)


class ApproveDeviceView(APIView):
    """Let a machine take part, after its fingerprint was compared."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=DecisionSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        why = _read(DecisionSerializer, request)["why"]
        _enqueue_issue(services.approve_device(device_id=device_id, actor=_actor(request), why=why))
        return _device_response(device_id)


class DeclineDeviceView(APIView):
    """Refuse a machine that asked."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=DecisionSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        why = _read(DecisionSerializer, request)["why"]
        services.decline_device(device_id=device_id, actor=_actor(request), why=why)
        return _device_response(device_id)


class SuspendDeviceView(APIView):
    """Take a device out until it is reinstated."""

    permission_classes = [RevokersWrite]

    @extend_schema(request=DecisionSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        why = _read(DecisionSerializer, request)["why"]
        services.suspend_device(device_id=device_id, actor=_actor(request), why=why)
        return _device_response(device_id)


class ReinstateDeviceView(APIView):
    """Let a suspended device take part again."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=DecisionSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        why = _read(DecisionSerializer, request)["why"]
        services.reinstate_device(device_id=device_id, actor=_actor(request), why=why)
        return _device_response(device_id)


class RevokeDeviceView(APIView):
    """Take trust away from a device, for good and with a reason."""

    permission_classes = [RevokersWrite]

    @extend_schema(request=RevokeSerializer, responses=DeviceSerializer)
    def post(self, request: Request, device_id: UUID) -> Response:
        body = _read(RevokeSerializer, request)
        services.revoke_device(
            device_id=device_id,
            actor=_actor(request),
            reason=Reason(body["reason"]),
            invalid_from=body["invalid_from"],
        )
        return _device_response(device_id)


class ClaimsView(APIView):
    """Claim codes: listed without their secrets, made with them, once."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses=ClaimSerializer(many=True))
    def get(self, request: Request) -> Response:
        rows = Claim.objects.select_related("site", "device_class").order_by("-created_at")[:500]
        return Response(ClaimSerializer(rows, many=True).data)

    @extend_schema(request=ClaimOrderSerializer, responses={201: NewClaimSerializer})
    def post(self, request: Request) -> Response:
        body = _read(ClaimOrderSerializer, request)
        site = Site.objects.select_related("federation").filter(slug=body["site"]).first()
        if site is None:
            raise UnknownSiteError(f"There is no hospital {body['site']!r}.")
        claim, code = claims.create_claim(
            site=site,
            device_class=body["device_class"],
            auto_approve=body["auto_approve"],
            actor=_actor(request),
        )
        return Response(_new_claim(claim, code), status=status.HTTP_201_CREATED)


class ClaimBulkView(APIView):
    """Many claim codes from one order in CSV: all of them, or none."""

    permission_classes = [OperatorWrites]

    @extend_schema(request=ClaimBulkSerializer, responses={201: NewClaimSerializer(many=True)})
    def post(self, request: Request) -> Response:
        body = _read(ClaimBulkSerializer, request)
        made = claims.create_claims(
            federation=_federation(),
            rows=claims.parse_rows(body["csv"]),
            actor=_actor(request),
            auto_approve=body["auto_approve"],
        )
        return Response([_new_claim(*pair) for pair in made], status=status.HTTP_201_CREATED)


class ClaimView(APIView):
    """One claim code; deleting it makes it worthless."""

    permission_classes = [OperatorWrites]

    @extend_schema(responses={204: None})
    def delete(self, request: Request, claim_id: UUID) -> Response:
        claims.cancel_claim(claim_id=claim_id, actor=_actor(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _read(serializer: type[Any], request: Request) -> Any:
    parsed = serializer(data=request.data)
    parsed.is_valid(raise_exception=True)
    return parsed.validated_data


def _source(request: Request) -> str:
    # Behind our own TLS front the last entry is the one that the front wrote; what stands before it anybody may write.
    forwarded = request.headers.get("X-Forwarded-For", "") if settings.SECURE_PROXY_SSL_HEADER else ""
    return forwarded.rpartition(",")[2].strip() or str(request.META.get("REMOTE_ADDR", ""))


def _actor(request: Request) -> str:
    return f"user:{request.user.pk}"


def _federation() -> Federation:
    federation = Federation.objects.first()
    if federation is None:
        raise NotFoundError("this installation has no federation yet")
    return federation


def _device_response(device_id: UUID) -> Response:
    rows = [row for row in selectors.fleet(_federation()) if row.id == str(device_id)]
    if not rows:
        raise NotFoundError(f"there is no device {device_id}")
    return Response(DeviceSerializer(rows[0]).data)


def _new_claim(claim: Claim, code: ClaimCode) -> dict[str, Any]:
    return {**ClaimSerializer(claim).data, "code": format_code(code), "uri": format_uri(code)}


def _enqueue_issue(device: Device) -> None:
    # The service's transaction has been committed when it returns, so the worker finds what it looks for.
    if device.state == DeviceState.APPROVED:
        tasks.issue_device.delay(str(device.id))
