"""Claim codes: ordered one by one or from a file, shown once, cancelled."""

import base64
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from controlplane.errors import problem_of
from controlplane.permissions import Role, roles_of
from devices.claims import cancel_claim, create_claim, create_claims, parse_rows
from devices.enrolment import refusals_of_unknown
from devices.handout import code_row, codes_csv
from devices.models import Claim, Federation
from frontend.claims import DRAWN, hand_out, read_claims
from frontend.forms import ClaimBulkForm, ClaimForm
from frontend.views.access import KEY_READERS, actor_of, for_roles
from latticeward.claim_code import ClaimCode
from latticeward.errors import LatticewardError


@require_safe
@for_roles(*KEY_READERS)
def claim_list(request: HttpRequest) -> HttpResponse:
    """The newest codes without their secrets, and the two ways to order new ones."""
    return _page(request)


@require_POST
@for_roles(Role.OPERATOR)
def order(request: HttpRequest) -> HttpResponse:
    """Make one code and show it, once."""
    federation = _federation()
    form = ClaimForm(federation, request.POST)
    if federation is None or not form.is_valid():
        return _page(request, one=form)
    values = form.cleaned_data
    try:
        made = create_claim(
            site=values["site"],
            device_class=values["device_class"].slug,
            actor=actor_of(request),
            auto_approve=form.auto_approve,
            lifetime=timedelta(hours=values["hours"]),
            bound_to=values["bound_to"],
        )
    except LatticewardError as error:
        return _page(request, one=_refused(form, error))
    return _show(request, [made])


@require_POST
@for_roles(Role.OPERATOR)
def bulk(request: HttpRequest) -> HttpResponse:
    """Make the codes of a CSV file, all or none, and show them, once."""
    federation = _federation()
    form = ClaimBulkForm(request.POST, request.FILES)
    if federation is None or not form.is_valid():
        return _page(request, many=form)
    try:
        made = create_claims(
            federation=federation,
            rows=parse_rows(form.cleaned_data["order"]),
            actor=actor_of(request),
            lifetime=timedelta(hours=form.cleaned_data["hours"]),
        )
    except LatticewardError as error:
        return _page(request, many=_refused(form, error))
    return _show(request, made)


@require_POST
@for_roles(Role.OPERATOR)
def cancel(request: HttpRequest, claim_id: UUID) -> HttpResponse:
    """Make an unused code worthless."""
    try:
        cancel_claim(claim_id=claim_id, actor=actor_of(request))
        messages.success(request, "The code was cancelled. Nobody can use it any more.")
    except LatticewardError as error:
        messages.error(request, f"Nothing was changed. {problem_of(error)[1]['detail']}")
    return redirect("claims")


def _show(request: HttpRequest, made: list[tuple[Claim, ClaimCode]]) -> HttpResponse:
    sheet = base64.b64encode(codes_csv(code_row(*pair) for pair in made).encode()).decode("ascii")
    context = {"handouts": hand_out(made), "csv": f"data:text/csv;base64,{sheet}", "drawn": DRAWN}
    return render(request, "frontend/claim_handout.html", context)


def _page(request: HttpRequest, *, one: Form | None = None, many: Form | None = None) -> HttpResponse:
    federation = _federation()
    context: dict[str, Any] = {
        "rows": read_claims(federation, now=timezone.now()),
        "strangers": refusals_of_unknown(),
        "may_order": federation is not None and Role.OPERATOR in roles_of(request.user),
    }
    if context["may_order"]:
        context |= {"one": one or ClaimForm(federation), "many": many or ClaimBulkForm()}
    refused = one is not None or many is not None
    return render(request, "frontend/claims.html", context, status=422 if refused else 200)


def _refused(form: Form, error: LatticewardError) -> Form:
    form.add_error(None, str(problem_of(error)[1]["detail"]))
    return form


def _federation() -> Federation | None:
    return Federation.objects.order_by("created_at").first()
