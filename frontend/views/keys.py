"""Every key, and the life of one."""

import re
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from devices.models import Federation
from frontend import board, ledger
from frontend.key_rows import ending_rows, key_rows
from frontend.views.access import KEY_READERS, for_roles
from frontend.words import KEY
from keys.endings import endings
from keys.models import Owner
from keys.selectors import key_history, known_keys

_PAGE = 50
_PLAIN = re.compile(r"[a-z_]+|[0-9a-f-]{36}")
_ENDINGS = 20


@require_safe
@for_roles(*KEY_READERS)
def key_list(request: HttpRequest) -> HttpResponse:
    """The keys, newest first; the query narrows them by owner, state, subject, ``?part=now`` is what moves."""
    federation = Federation.objects.order_by("created_at").first()
    chosen = {name: request.GET.get(name, "") for name in ("owner", "state", "subject_id")}
    rows = known_keys().filter(**{name: value for name, value in chosen.items() if value})
    page = Paginator(rows, _PAGE).get_page(request.GET.get("page"))
    now = timezone.now()
    context = {
        "topics": board.topics_of([federation.feed]) if federation else "",
        "page": page,
        "rows": key_rows(page.object_list),
        "endings": ending_rows(endings(now=now, limit=_ENDINGS), now=now),
        "owners": Owner.choices,
        "states": [(str(state), word.text) for state, word in KEY.items()],
        "chosen": chosen,
        "query": "&".join(f"{name}={value}" for name, value in chosen.items() if _PLAIN.fullmatch(value)),
    }
    part = request.GET.get("part") == "now"
    return render(request, "frontend/_keys_now.html" if part else "frontend/keys.html", context)


@require_safe
@for_roles(*KEY_READERS)
def key_page(request: HttpRequest, key_id: UUID) -> HttpResponse:
    """One key: its state, its dates, its certificates, and what became of it."""
    key = get_object_or_404(known_keys(), pk=key_id)
    (row,) = key_rows([key])
    context = {
        "row": row,
        "key": key,
        "certificates": key.certificates.order_by("-created_at"),
        "history": ledger.read_rows(key_history(key)),
    }
    return render(request, "frontend/key.html", context)
