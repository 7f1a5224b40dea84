"""The ledger: the newest entries in plain words, and the newest checkpoint."""

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from controlplane.audit.models import AuditEntry, Checkpoint, LedgerState
from devices.models import Federation
from frontend import board, ledger
from frontend.views.access import KEY_READERS, for_roles

_PAGE = 50


@require_safe
@for_roles(*KEY_READERS)
def ledger_page(request: HttpRequest) -> HttpResponse:
    """Entries, newest first; ``?kind=`` narrows them to one noun, ``?part=now`` is the part that moves."""
    federation = Federation.objects.order_by("created_at").first()
    kinds = ledger.kinds()
    kind = request.GET.get("kind", "")
    entries = AuditEntry.objects.order_by("-recorded_at", "-feed_seq")
    if kind in kinds:
        entries = entries.filter(event__startswith=f"{kind}.")
    page = Paginator(entries, _PAGE).get_page(request.GET.get("page"))
    state = LedgerState.objects.first()
    context = {
        "topics": board.topics_of([federation.feed]) if federation else "",
        "page": page,
        "rows": ledger.read_rows(list(page.object_list)),
        "kinds": kinds,
        "kind": kind if kind in kinds else "",
        "checkpoint": Checkpoint.objects.order_by("-size").first(),
        "sequenced": state.size if state else 0,
    }
    part = request.GET.get("part") == "now"
    return render(request, "frontend/_ledger_now.html" if part else "frontend/ledger.html", context)
