"""The model registry: versions and aliases, one version, two versions side by side, and what people decide there."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from controlplane.errors import problem_of
from controlplane.permissions import Role, roles_of
from devices.models import Federation
from frontend import board, registry
from frontend.forms import CompareForm, ExportForm, ProposeForm, ReasonForm
from frontend.views.access import EVERY_ROLE, KEY_READERS, for_roles
from latticeward.errors import LatticewardError, NotFoundError
from rounds import tasks
from rounds.models import ModelVersion
from rounds.registry import selectors
from rounds.services import aliases, differences, exports, standing

_LISTED = 100


@require_safe
@for_roles(*EVERY_ROLE)
def model_list(request: HttpRequest) -> HttpResponse:
    """Aliases, what waits for a second person, and the newest versions."""
    federation = Federation.objects.order_by("created_at").first()
    context: dict[str, Any] = {"topics": "", **_rights(request)}
    if federation is not None:
        context |= {
            "topics": board.topics_of([federation.feed]),
            "aliases": registry.alias_rows(federation),
            "waiting": registry.proposals(
                selectors.moves(federation=federation, waiting=True), viewer=_person(request)
            ),
            "rows": registry.version_rows(selectors.published_models()[:_LISTED]),
        }
    part = request.GET.get("part") == "now"
    return render(request, "frontend/_models_now.html" if part else "frontend/models.html", context)


@require_safe
@for_roles(*EVERY_ROLE)
def model_page(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """One version: metric, lineage, hospitals, aliases, evidence and files."""
    model = get_object_or_404(_published(), pk=model_id)
    rights = _rights(request)
    context = {
        "topics": board.topics_of([model.training.federation.feed]),
        "board": registry.read_board(model, viewer=_person(request), with_files=rights["sees_keys"]),
        **rights,
    }
    part = request.GET.get("part") == "now"
    return render(request, "frontend/_model_now.html" if part else "frontend/model.html", context)


@require_safe
@for_roles(*KEY_READERS)
def model_manifest(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """The signed manifest, as the bytes that were signed."""
    model = get_object_or_404(_published(), pk=model_id)
    return HttpResponse(
        bytes(model.signed_manifest or b""),
        content_type="application/cbor",
        headers={"Content-Disposition": f'attachment; filename="model-{model.number}-{model.id}.cbor"'},
    )


@require_safe
@for_roles(*EVERY_ROLE)
def model_difference(request: HttpRequest, difference_id: UUID) -> HttpResponse:
    """Two versions side by side, or that the worker is at it."""
    try:
        found = selectors.read_difference(difference_id)
    except NotFoundError as error:
        raise Http404 from error
    part = request.GET.get("part") == "now"
    template = "frontend/_model_difference_now.html" if part else "frontend/model_difference.html"
    return render(request, template, {"found": found})


@require_POST
@for_roles(*EVERY_ROLE)
def compare(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Ask how another version differs from this one."""
    model = get_object_or_404(_published(), pk=model_id)
    form = CompareForm(request.POST)
    other = _published().filter(pk=form.cleaned_data["other"]).first() if form.is_valid() else None
    if other is None:
        return _refused(request, model, "Choose the other version.")
    try:
        row = differences.request_difference(before=other, after=model, actor=_actor(request))
    except LatticewardError as error:
        return _refused(request, model, str(problem_of(error)[1]["detail"]))
    if row.computed_at is None:
        transaction.on_commit(lambda: tasks.compute_difference.delay(str(row.id)))
    return redirect("model-difference", row.id)


@require_POST
@for_roles(Role.OPERATOR)
def propose(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Propose that an alias points here."""

    def act(model: ModelVersion, given: dict[str, Any]) -> str:
        aliases.propose_move(model=model, name=given["alias"], reason=given["reason"], actor=_actor(request))
        return f"Proposed: {given['alias']} is to point at version {model.number}. A second person confirms it."

    return _act(request, model_id, ProposeForm, act)


@require_POST
@for_roles(Role.OPERATOR)
def retire(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Say that the version is superseded."""

    def act(model: ModelVersion, given: dict[str, Any]) -> str:
        standing.retire_model(model_id=model.id, actor=_actor(request), reason=given["reason"])
        return f"Version {model.number} is retired."

    return _act(request, model_id, ReasonForm, act)


@require_POST
@for_roles(Role.OPERATOR, Role.COMPLIANCE)
def revoke(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Take trust in the version away."""

    def act(model: ModelVersion, given: dict[str, Any]) -> str:
        standing.revoke_model(model_id=model.id, actor=_actor(request), reason=given["reason"])
        return f"Version {model.number} is revoked. It is handed out no more, and no alias points at it."

    return _act(request, model_id, ReasonForm, act)


@require_POST
@for_roles(Role.OPERATOR)
def export(request: HttpRequest, model_id: UUID) -> HttpResponse:
    """Ask for the version as a file."""

    def act(model: ModelVersion, given: dict[str, Any]) -> str:
        row = exports.request_export(
            model=model,
            form=given["format"],
            licence=given["licence"],
            reason=given["reason"],
            actor=_actor(request),
        )
        transaction.on_commit(lambda: tasks.make_export.delay(str(row.id)))
        return "The file is being made. It appears below, and you can fetch it once within 15 minutes."

    return _act(request, model_id, ExportForm, act)


@require_POST
@for_roles(Role.OPERATOR)
def export_file(request: HttpRequest, export_id: UUID) -> HttpResponse:
    """The file, once, for the person who asked for it."""
    row = get_object_or_404(selectors.exports(), pk=export_id)
    try:
        file = exports.take_export(export_id=export_id, actor=_actor(request))
    except LatticewardError as error:
        messages.error(request, f"The file was not handed out. {problem_of(error)[1]['detail']}")
        return redirect("model", row.model_id)
    headers = {"Content-Disposition": f'attachment; filename="{file.name}"'}
    return HttpResponse(file.content, content_type=file.media_type, headers=headers)


@require_POST
@for_roles(Role.OPERATOR, Role.COMPLIANCE)
def confirm_move(request: HttpRequest, move_id: UUID) -> HttpResponse:
    """The second person's yes."""
    return _decide(
        request, "The alias was moved.", lambda _: aliases.confirm_move(move_id=move_id, actor=_actor(request))
    )


@require_POST
@for_roles(Role.OPERATOR, Role.COMPLIANCE)
def decline_move(request: HttpRequest, move_id: UUID) -> HttpResponse:
    """The second person's no."""
    return _decide(
        request,
        "The proposal was declined.",
        lambda reason: aliases.decline_move(move_id=move_id, actor=_actor(request), reason=reason),
        form=ReasonForm(request.POST),
    )


@require_POST
@for_roles(Role.OPERATOR)
def withdraw_move(request: HttpRequest, move_id: UUID) -> HttpResponse:
    """Taking back one's own proposal."""
    return _decide(
        request,
        "The proposal was withdrawn.",
        lambda reason: aliases.withdraw_move(move_id=move_id, actor=_actor(request), reason=reason),
        form=ReasonForm(request.POST),
    )


def _decide(
    request: HttpRequest, done: str, act: Callable[[str], object], *, form: ReasonForm | None = None
) -> HttpResponse:
    if form is not None and not form.is_valid():
        messages.error(request, f"Nothing was changed. {_first(form)}")
        return redirect("models")
    try:
        act(form.cleaned_data["reason"] if form else "")
    except LatticewardError as error:
        messages.error(request, f"Nothing was changed. {problem_of(error)[1]['detail']}")
    else:
        messages.success(request, done)
    return redirect("models")


def _act(
    request: HttpRequest, model_id: UUID, form_class: type[Form], act: Callable[[ModelVersion, dict[str, Any]], str]
) -> HttpResponse:
    model = get_object_or_404(_published(), pk=model_id)
    form = form_class(request.POST)
    if not form.is_valid():
        return _refused(request, model, _first(form))
    try:
        messages.success(request, act(model, form.cleaned_data))
    except LatticewardError as error:
        return _refused(request, model, str(problem_of(error)[1]["detail"]))
    return redirect("model", model.id)


def _refused(request: HttpRequest, model: ModelVersion, sentence: str) -> HttpResponse:
    messages.error(request, f"Nothing was changed. {sentence}")
    return redirect("model", model.id)


def _published() -> Any:
    rows = ModelVersion.objects.filter(signed_manifest__isnull=False)
    return rows.select_related("training__federation").prefetch_related("aliases")


def _first(form: Form) -> str:
    return str(next(iter(next(iter(form.errors.values())))))


def _actor(request: HttpRequest) -> str:
    return f"user:{request.user.pk}"


def _person(request: HttpRequest) -> User:
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user


def _rights(request: HttpRequest) -> dict[str, Any]:
    roles = roles_of(request.user)
    return {
        "sees_keys": bool(roles & set(KEY_READERS)),
        "may_operate": Role.OPERATOR in roles,
        "may_decide": bool(roles & {Role.OPERATOR, Role.COMPLIANCE}),
    }
