"""What anybody may fetch from the authority."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from controlplane.errors import problem_response
from keys.selectors import trust_document
from latticeward.errors import LatticewardError


@require_GET
def trust(request: HttpRequest) -> HttpResponse:
    """Anchor, trust statement and receipt-key statements, as CBOR; signed, so it needs no authentication."""
    try:
        document = trust_document()
    except LatticewardError as error:
        return problem_response(error)
    return HttpResponse(document, content_type="application/cbor", headers={"Cache-Control": "no-cache"})
