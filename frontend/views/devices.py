"""The fleet, and letting devices in or not."""

from collections.abc import Iterable
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from controlplane.errors import problem_of
from controlplane.permissions import Role, roles_of
from devices import tasks
from devices.models import Device, Federation
from devices.services import approve_device, decline_device
from frontend import board, fleet
from frontend.forms import ApproveForm, DeclineForm
from frontend.views.access import KEY_READERS, actor_of, for_roles
from frontend.words import CREDENTIAL
from latticeward.errors import LatticewardError


@require_safe
@for_roles(*KEY_READERS)
def device_list(request: HttpRequest) -> HttpResponse:
    """Every device on its three axes; ``?credential=`` and ``?connection=`` narrow it, ``?part=now`` is the table."""
    federation = Federation.objects.order_by("created_at").first()
    topics = board.topics_of([federation.feed]) if federation else ""
    rows = fleet.read_fleet(now=timezone.now())
    chosen = {name: request.GET.get(name, "") for name in ("credential", "connection")}
    shown = [
        row
        for row in rows
        if chosen["credential"] in ("", row.device.state) and chosen["connection"] in ("", row.connection.text)
    ]
    context = {
        "federation": federation,
        "topics": topics,
        "rows": shown,
        "total": len(rows),
        "chosen": chosen,
        "filters": _filters(rows, chosen),
        "may_decide": Role.OPERATOR in roles_of(request.user),
        "query": "&".join(f"{name}={value}" for name, value in chosen.items() if value.isalpha()),
    }
    part = request.GET.get("part") == "now"
    return render(request, "frontend/_devices_now.html" if part else "frontend/devices.html", context)


@require_POST
@for_roles(Role.OPERATOR)
def approve(request: HttpRequest, device_id: UUID) -> HttpResponse:
    """Let a pending device in, once its fingerprint was compared; the authority worker then makes the certificate."""
    device = get_object_or_404(Device.objects.select_related("site__federation"), pk=device_id)
    form = ApproveForm(request.POST)
    if not form.is_valid():
        return _refused(request, device, _first(form.errors["compared"]))
    try:
        approve_device(device_id=device.id, actor=actor_of(request))
    except LatticewardError as error:
        return _refused(request, device, str(problem_of(error)[1]["detail"]))
    transaction.on_commit(tasks.ask_to_issue)
    messages.success(request, f"{device.name} of {device.site.name} is approved. Its certificate is being made.")
    return redirect("devices")


@require_POST
@for_roles(Role.OPERATOR)
def decline(request: HttpRequest, device_id: UUID) -> HttpResponse:
    """Do not let a pending device in; the reason goes into the ledger."""
    device = get_object_or_404(Device.objects.select_related("site__federation"), pk=device_id)
    form = DeclineForm(request.POST)
    if not form.is_valid():
        return _refused(request, device, _first(form.errors["reason"]))
    try:
        decline_device(device_id=device.id, actor=actor_of(request), why=form.cleaned_data["reason"])
    except LatticewardError as error:
        return _refused(request, device, str(problem_of(error)[1]["detail"]))
    messages.success(request, f"{device.name} of {device.site.name} was declined.")
    return redirect("devices")


def _refused(request: HttpRequest, device: Device, sentence: str) -> HttpResponse:
    messages.error(request, f"{device.name} of {device.site.name}: nothing was changed. {sentence}")
    return redirect("devices")


def _first(errors: Iterable[object]) -> str:
    return str(next(iter(errors)))


def _filters(rows: list[fleet.DeviceRow], chosen: dict[str, str]) -> list[dict[str, object]]:
    """The states that occur, with their counts, as links that switch a filter on or (if it is on) off."""
    found = []
    for name, of in (("connection", lambda row: row.connection.text), ("credential", lambda row: row.device.state)):
        values = sorted({of(row) for row in rows})
        for value in values:
            on = chosen[name] == value
            others = {key: kept for key, kept in chosen.items() if kept and key != name}
            query = {**others, **({} if on else {name: value})}
            found.append(
                {
                    "name": name,
                    "text": CREDENTIAL[value].text if value in CREDENTIAL and name == "credential" else value,
                    "count": sum(of(row) == value for row in rows),
                    "on": on,
                    "query": "&".join(f"{key}={kept}" for key, kept in query.items()),
                }
            )
    return found
