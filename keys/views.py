"""What anybody may fetch from the authority (trust, revocation lists, status; all is signed), and keys for people."""

import base64
import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.cache import get_conditional_response
from django.utils.http import http_date, quote_etag
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST, require_safe
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.addresses import client_address
from controlplane.errors import problem_response
from controlplane.permissions import KeyMaterialReaders
from controlplane.throttles import Limit, spend_by_address
from controlplane.views import Endpoint, ListEndpoint
from keys.models import Certificate, Key
from keys.selectors import (
    Published,
    certificate_chain,
    key_history,
    known_certificates,
    known_keys,
    newest_revocation_list,
    status_answer,
    trust_document,
)
from keys.serializers import (
    CertificateRow,
    CertificatesQuery,
    KeyAnswer,
    KeyCertificate,
    KeyEvent,
    KeyRow,
    KeysQuery,
)
from latticeward.crypto.encipherment_certificate import as_pem
from latticeward.crypto.revocation import malformed_answer, parse_status_question, unauthorized_answer
from latticeward.errors import (
    CertificateNotValidError,
    LatticewardError,
    MalformedMessageError,
    NotFoundError,
    ThrottledError,
)

_OCSP_TYPE: Final = "application/ocsp-response"
_LIST_TYPE: Final = "application/pkix-crl"
_CHAIN_TYPE: Final = "application/pem-certificate-chain"
# How long a proxy may go on telling what was true before a revocation.
_FRESH_SECONDS: Final = 300


def counted(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Count a request of somebody unknown by their network address; for views that anybody may call."""

    @wraps(view)
    def count(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        forwarded = request.headers.get("X-Forwarded-For", "")
        try:
            spend_by_address(Limit.PUBLIC, client_address(request.META.get("REMOTE_ADDR", ""), forwarded))
        except ThrottledError as error:
            return problem_response(error)
        return view(request, *args, **kwargs)

    return count


@require_GET
@counted
def trust(request: HttpRequest) -> HttpResponse:
    """Anchor, trust statement and receipt-key statements, as CBOR; signed, so it needs no authentication."""
    try:
        document = trust_document()
    except LatticewardError as error:
        return problem_response(error)
    return HttpResponse(document, content_type="application/cbor", headers={"Cache-Control": "no-cache"})


@require_safe
@counted
def revocation_list(request: HttpRequest, issuer: str | None = None) -> HttpResponse:
    """The newest X.509 revocation list of one issuing authority, or of the present one, DER."""
    try:
        published = newest_revocation_list(issuer)
    except LatticewardError as error:
        return problem_response(error)
    return _cacheable(request, published, _LIST_TYPE)


@csrf_exempt
@require_POST
@counted
def ocsp(request: HttpRequest) -> HttpResponse:
    """The status of one certificate (RFC 6960); the answer was signed ahead of the question."""
    return _status(request, request.body)


@require_safe
@counted
def ocsp_by_address(request: HttpRequest, question: str) -> HttpResponse:
    """The same with the question in the address, base64."""
    try:
        return _status(request, base64.b64decode(question, validate=True))
    except ValueError:  # of its alphabet too: binascii.Error is one
        return _refusal(malformed_answer())


def _status(request: HttpRequest, raw: bytes) -> HttpResponse:
    # RFC 6960 has its own refusals, with HTTP status 200.
    try:
        return _cacheable(request, status_answer(parse_status_question(raw)), _OCSP_TYPE)
    except MalformedMessageError:
        return _refusal(malformed_answer())
    except (NotFoundError, CertificateNotValidError):
        return _refusal(unauthorized_answer())


def _refusal(answer: bytes) -> HttpResponse:
    # RFC 5019, section 6: an answer without a status must not be kept, since the next question may have one.
    return HttpResponse(answer, content_type=_OCSP_TYPE, headers={"Cache-Control": "no-cache"})


def _cacheable(request: HttpRequest, published: Published, content_type: str) -> HttpResponse:
    """An answer with the caching headers of RFC 5019, section 6.2, or 304 when the asker has it already.

    ``Expires`` is the end of the signed content; ``max-age`` is what this server asks of caches, and much shorter, so
    that a revocation reaches those who ask through a proxy. Conditions are for GET and HEAD: a POST here selects no
    stored representation (RFC 9110, section 13.2.1).
    """
    made = int(published.made_at.timestamp())
    etag = quote_etag(hashlib.sha256(published.der).hexdigest())
    left = int((published.next_at - timezone.now()).total_seconds())
    response = HttpResponse(
        published.der,
        content_type=content_type,
        headers={
            "Cache-Control": f"max-age={max(0, min(_FRESH_SECONDS, left))}, public, no-transform, must-revalidate",
            "Last-Modified": http_date(made),
            "Expires": http_date(int(published.next_at.timestamp())),
            "ETag": etag,
        },
    )
    if request.method == "POST":
        return response
    answer = get_conditional_response(request, etag=etag, last_modified=made, response=response)
    assert isinstance(answer, HttpResponse)
    return answer


class KeysView(ListEndpoint):
    """Every key of the server and the devices, by its public part."""

    permission_classes = [KeyMaterialReaders]
    row = KeyRow
    query = KeysQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Key]:
        names = {"owner": "owner", "purpose": "purpose", "state": "state", "algorithm": "algorithm"}
        chosen = {names[name]: asked[name] for name in names if name in asked}
        if "subject" in asked:
            chosen["subject_id"] = asked["subject"]
        return known_keys().filter(**chosen)


class KeyView(Endpoint):
    """One key with its certificates and its history."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses=KeyAnswer)
    def get(self, request: Request, key_id: UUID) -> Response:
        key = known_keys().filter(pk=key_id).first()
        if key is None:
            raise NotFoundError(f"there is no key {key_id}")
        row = KeyRow(key).data
        return Response(
            {
                **row,
                "certificates": KeyCertificate(key.certificates.order_by("-created_at"), many=True).data,
                "history": KeyEvent(key_history(key), many=True).data,
            }
        )


class CertificatesView(ListEndpoint):
    """Every X.509 certificate of the server and the devices."""

    permission_classes = [KeyMaterialReaders]
    row = CertificateRow
    query = CertificatesQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Certificate]:
        names = {"purpose": "key__purpose", "subject": "key__subject_id"}
        return known_certificates().filter(**{names[name]: asked[name] for name in names if name in asked})


class CertificateFileView(Endpoint):
    """One certificate with its issuing authority, as the PEM file that standard tools read."""

    permission_classes = [KeyMaterialReaders]

    @extend_schema(responses={(200, _CHAIN_TYPE): OpenApiTypes.STR})
    def get(self, request: Request, serial: str) -> HttpResponse:
        headers = {"Content-Disposition": f'attachment; filename="{serial}.pem"'}
        return HttpResponse(as_pem(certificate_chain(serial)), content_type=_CHAIN_TYPE, headers=headers)
