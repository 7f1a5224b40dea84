"""Rotating devices' keys: who is due, a dry run, jobs with their progress, and the suites that are accepted."""

from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from controlplane.errors import problem_of
from controlplane.permissions import Role, roles_of
from devices import rotation, suites, tasks
from devices.due import BlastRadius, blast_radius, due_devices
from devices.models import Federation, Rotation
from frontend import board
from frontend.forms import RetireSuiteForm, RotationForm
from frontend.views.access import KEY_READERS, actor_of, for_roles
from frontend.words import word_of
from latticeward.errors import LatticewardError
from rounds.selectors import rounds_with

_MOVES = {
    "pause": rotation.pause_rotation,
    "resume": rotation.resume_rotation,
    "cancel": rotation.cancel_rotation,
}
_JOBS_SHOWN = 20


@require_safe
@for_roles(*KEY_READERS)
def rotation_list(request: HttpRequest) -> HttpResponse:
    """What is due, what runs, and the suites; ``?scope=`` shows the dry run of a rotation."""
    federation = Federation.objects.order_by("created_at").first()
    asked = "scope" in request.GET
    form = RotationForm(request.GET if asked else None)
    radius: BlastRadius | None = None
    rounds: list[dict[str, object]] = []
    if federation is not None and asked and form.is_valid():
        radius, devices = blast_radius(federation, form.cleaned_data["scope"], form.cleaned_data["value"])
        rounds = rounds_with(devices)
    jobs = Rotation.objects.order_by("-created_at")[:_JOBS_SHOWN]
    context = {
        "federation": federation,
        "form": form,
        "radius": radius,
        "rounds": rounds,
        "due": [(row, word_of("due", row.reason)) for row in due_devices(federation)] if federation else [],
        "jobs": [_shown(job) for job in jobs],
        "suites": [(row, word_of("suite", row.state)) for row in suites.standings(federation)] if federation else [],
        "may_change": Role.OPERATOR in roles_of(request.user),
    }
    return render(request, "frontend/rotations.html", context, status=422 if form.errors else 200)


@require_safe
@for_roles(*KEY_READERS)
def rotation_page(request: HttpRequest, rotation_id: UUID) -> HttpResponse:
    """One job: its progress, live, and who does not answer."""
    job = get_object_or_404(Rotation.objects.select_related("federation"), pk=rotation_id)
    context = {
        **_shown(job),
        "topics": board.topics_of([job.federation.feed]),
        "may_change": Role.OPERATOR in roles_of(request.user),
        "open": job.ended_at is None,
    }
    part = request.GET.get("part") == "now"
    return render(request, "frontend/_rotation_now.html" if part else "frontend/rotation.html", context)


@require_POST
@for_roles(Role.OPERATOR)
def rotation_start(request: HttpRequest) -> HttpResponse:
    """Start the rotation whose dry run was shown."""
    form = RotationForm(request.POST)
    federation = Federation.objects.order_by("created_at").first()
    if federation is None or not form.is_valid():
        return _refused(request, "Choose which devices are to renew their keys.")
    try:
        job = rotation.start_rotation(federation=federation, actor=actor_of(request), **form.cleaned_data)
    except LatticewardError as error:
        return _refused(request, _say(error))
    transaction.on_commit(tasks.advance_rotations.delay)
    messages.success(request, f"{job.total} devices are being asked for new keys.")
    return redirect("rotation", job.id)


@require_POST
@for_roles(Role.OPERATOR)
def rotation_move(request: HttpRequest, rotation_id: UUID, event: str) -> HttpResponse:
    """Pause, resume or cancel a job."""
    get_object_or_404(Rotation, pk=rotation_id)
    if event in _MOVES:
        try:
            _MOVES[event](rotation_id=rotation_id, actor=actor_of(request))
        except LatticewardError as error:
            messages.error(request, f"Nothing was changed. {_say(error)}")
        else:
            transaction.on_commit(tasks.advance_rotations.delay)
    return redirect("rotation", rotation_id)


@require_POST
@for_roles(Role.OPERATOR)
def suite_move(request: HttpRequest, suite: str, event: str) -> HttpResponse:
    """Accept a suite, retire it from a date, or keep it after all."""
    federation = Federation.objects.order_by("created_at").first()
    if federation is None:
        return redirect("rotations")
    actor, job = actor_of(request), None
    try:
        match event:
            case "accept":
                suites.accept_suite(federation=federation, suite=suite, actor=actor)
            case "keep":
                rotation.keep_suite(federation=federation, suite=suite, actor=actor)
            case "retire":
                form = RetireSuiteForm(request.POST)
                if not form.is_valid():
                    return _refused(request, next(str(error) for errors in form.errors.values() for error in errors))
                job = rotation.retire_suite(federation=federation, suite=suite, actor=actor, **form.cleaned_data)
            case _:
                raise Http404(event)
    except LatticewardError as error:
        return _refused(request, _say(error))
    transaction.on_commit(tasks.advance_rotations.delay)
    return redirect("rotation", job.id) if job is not None else redirect("rotations")


def _shown(job: Rotation) -> dict[str, object]:
    late = job.due_at is not None and job.ended_at is None and job.due_at <= timezone.now()
    return {"job": job, "progress": rotation.progress(job), "state": word_of("rotation", job.state), "late": late}


def _refused(request: HttpRequest, sentence: str) -> HttpResponse:
    messages.error(request, f"Nothing was changed. {sentence}")
    return redirect("rotations")


def _say(error: LatticewardError) -> str:
    sentence = str(problem_of(error)[1]["detail"])
    return str(error)[:1].upper() + str(error)[1:] + "." if error.code == "wrong_state" and str(error) else sentence
