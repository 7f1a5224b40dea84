"""What operators decide over REST before a machine can ask: hospitals, device classes, claim codes."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import IO, Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.errors import BoundedJSONParser
from controlplane.permissions import KeyMaterialReaders, OperatorWrites
from controlplane.views import Endpoint, ListEndpoint
from devices import claims, classes, sites
from devices.admission.serializers import (
    ClaimBulkSerializer,
    ClaimOrderSerializer,
    ClaimSerializer,
    ClaimsQuery,
    CodeSerializer,
    DeviceClassChangeSerializer,
    DeviceClassesQuery,
    DeviceClassSerializer,
    NewClaimSerializer,
    SiteChangeSerializer,
    SiteSerializer,
    SitesQuery,
    WatchedClaimSerializer,
)
from devices.classes import ClassTerms
from devices.enrolment import refusals_of
from devices.handout import codes_csv, qr_svg
from devices.models import Claim, DeviceClass, Site
from devices.selectors import the_federation
from latticeward.claim_code import ClaimCode, format_code, format_uri
from latticeward.errors import UnknownSiteError

_ORDER_LIMIT_BYTES = 100_000


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
        site = sites.create_site(federation=the_federation(), actor=self.actor(request), **body)
        return Response(SiteSerializer(site).data, status=status.HTTP_201_CREATED)


class SiteView(Endpoint):
    """One hospital."""

    permission_classes = [OperatorWrites]

    @extend_schema(responses=SiteSerializer)
    def get(self, request: Request, site_id: UUID) -> Response:
        return Response(SiteSerializer(sites.get_site(site_id)).data)

    @extend_schema(request=SiteChangeSerializer, responses=SiteSerializer)
    def patch(self, request: Request, site_id: UUID) -> Response:
        changes = self.read(SiteChangeSerializer, request)
        site = sites.change_site(site_id=site_id, changes=changes, actor=self.actor(request))
        return Response(SiteSerializer(site).data)


class DeviceClassesView(ListEndpoint):
    """What the federation asks of each kind of machine."""

    permission_classes = [OperatorWrites]
    row = DeviceClassSerializer
    query = DeviceClassesQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[DeviceClass]:
        return DeviceClass.objects.all()

    @extend_schema(request=DeviceClassSerializer, responses={201: DeviceClassSerializer})
    def post(self, request: Request) -> Response:
        body = self.read(DeviceClassSerializer, request)
        slug = body.pop("slug")
        made = classes.create_class(
            federation=the_federation(), slug=slug, terms=ClassTerms(**body), actor=self.actor(request)
        )
        return Response(DeviceClassSerializer(made).data, status=status.HTTP_201_CREATED)


class DeviceClassView(Endpoint):
    """One device class."""

    permission_classes = [OperatorWrites]

    @extend_schema(responses=DeviceClassSerializer)
    def get(self, request: Request, class_id: UUID) -> Response:
        return Response(DeviceClassSerializer(classes.class_of_id(class_id)).data)

    @extend_schema(request=DeviceClassChangeSerializer, responses=DeviceClassSerializer)
    def patch(self, request: Request, class_id: UUID) -> Response:
        changes = self.read(DeviceClassChangeSerializer, request)
        changed = classes.change_class(class_id=class_id, changes=changes, actor=self.actor(request))
        return Response(DeviceClassSerializer(changed).data)


class ClaimsView(ListEndpoint):
    """Claim codes: listed without their secrets, made with them, once."""

    shown_once = ("code", "uri", "qr")
    permission_classes = [KeyMaterialReaders]
    row = WatchedClaimSerializer
    query = ClaimsQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Claim]:
        names = {"site": "site__slug", "device_class": "device_class__slug"}
        rows = Claim.objects.select_related("site", "device_class")
        rows = rows.filter(**{names[name]: asked[name] for name in names if name in asked})
        return rows.filter(consumed_at__isnull=not asked["consumed"]) if "consumed" in asked else rows

    def show(self, rows: list[Any]) -> Sequence[Any]:
        shown: Any = WatchedClaimSerializer(rows, many=True, context={"refusals": refusals_of(rows)})
        return list(shown.data)

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
            lifetime=_lifetime(body),
            bound_to=body["bound_to"],
            actor=self.actor(request),
        )
        return Response({**_shown(claim, code), "qr": qr_svg(code)}, status=status.HTTP_201_CREATED)


class OrderParser(BaseParser):
    """An order as the file that it is."""

    media_type = "text/csv"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        raw = stream.read(_ORDER_LIMIT_BYTES + 1)
        try:
            return {"csv": raw.decode("utf-8-sig")}
        except UnicodeDecodeError as error:
            raise ParseError("The order is not text in UTF-8.") from error


class CodesRenderer(BaseRenderer):
    """The codes of an order as a file; a refusal stays a problem document."""

    media_type = "text/csv"
    format = "csv"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return codes_csv(data).encode() if isinstance(data, list) else JSONRenderer().render(data)


class ClaimBulkView(Endpoint):
    """Many claim codes from one order in CSV: all of them, or none. The codes come as JSON, or as CSV if asked for."""

    shown_once = ("code", "uri")
    permission_classes = [OperatorWrites]
    parser_classes = [BoundedJSONParser, OrderParser]
    renderer_classes = [JSONRenderer, CodesRenderer]

    @extend_schema(
        request={"application/json": ClaimBulkSerializer, "text/csv": OpenApiTypes.STR},
        responses={(201, "application/json"): CodeSerializer(many=True), (201, "text/csv"): OpenApiTypes.STR},
    )
    def post(self, request: Request) -> Response:
        body = self.read(ClaimBulkSerializer, request)
        made = claims.create_claims(
            federation=the_federation(),
            rows=claims.parse_rows(body["csv"]),
            actor=self.actor(request),
            auto_approve=body["auto_approve"],
            lifetime=_lifetime(body),
        )
        return Response([_shown(*pair) for pair in made], status=status.HTTP_201_CREATED)


class ClaimView(Endpoint):
    """One claim code; deleting it makes it worthless."""

    permission_classes = [OperatorWrites]

    @extend_schema(responses={204: None})
    def delete(self, request: Request, claim_id: UUID) -> Response:
        claims.cancel_claim(claim_id=claim_id, actor=self.actor(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _lifetime(body: Mapping[str, Any]) -> timedelta | None:
    return None if body["hours"] is None else timedelta(hours=body["hours"])


def _shown(claim: Claim, code: ClaimCode) -> dict[str, Any]:
    return {**ClaimSerializer(claim).data, "code": format_code(code), "uri": format_uri(code)}
