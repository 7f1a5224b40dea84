"""What anybody may fetch from the authority: trust, the revocation list, the status of a certificate. All is signed."""

import base64
import binascii
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from controlplane.addresses import client_address
from controlplane.errors import problem_response
from controlplane.throttles import Limit, spend_by_address
from keys.selectors import newest_revocation_list, status_answer, trust_document
from latticeward.crypto.revocation import malformed_answer, parse_status_question, unauthorized_answer
from latticeward.errors import (
    CertificateNotValidError,
    LatticewardError,
    MalformedMessageError,
    NotFoundError,
    ThrottledError,
)

_OCSP_TYPE = "application/ocsp-response"


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


@require_GET
@counted
def revocation_list(request: HttpRequest) -> HttpResponse:
    """The newest X.509 revocation list, DER."""
    try:
        der = newest_revocation_list()
    except LatticewardError as error:
        return problem_response(error)
    return HttpResponse(der, content_type="application/pkix-crl", headers={"Cache-Control": "max-age=60"})


@csrf_exempt
@require_POST
@counted
def ocsp(request: HttpRequest) -> HttpResponse:
    """The status of one certificate (RFC 6960); the answer was signed ahead of the question."""
    return _status(request.body)


@require_GET
@counted
def ocsp_by_address(request: HttpRequest, question: str) -> HttpResponse:
    """The same with the question in the address, base64."""
    try:
        return _status(base64.b64decode(question, validate=True))
    except binascii.Error:
        return HttpResponse(malformed_answer(), content_type=_OCSP_TYPE)


def _status(raw: bytes) -> HttpResponse:
    # RFC 6960 has its own refusals, with HTTP status 200.
    try:
        answer = status_answer(parse_status_question(raw))
    except MalformedMessageError:
        answer = malformed_answer()
    except (NotFoundError, CertificateNotValidError):
        answer = unauthorized_answer()
    return HttpResponse(answer, content_type=_OCSP_TYPE)
