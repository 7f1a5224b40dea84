"""Trainings and their rounds, live; and the signed record of a round."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from controlplane.errors import problem_of
from controlplane.permissions import Role, roles_of
from devices.models import Federation
from frontend import board, registry
from frontend.forms import TrainingForm
from frontend.views.access import EVERY_ROLE, KEY_READERS, actor_of, for_roles
from frontend.words import word_of
from latticeward.errors import LatticewardError, NotFoundError, StateError
from latticeward.messages import RoundRecord
from latticeward.record_words import say_record
from rounds import tasks
from rounds.models import Round, Training
from rounds.registry.selectors import UNLISTED
from rounds.services.plans import plan_for
from rounds.services.records import record_file
from rounds.services.trainings import open_training

_LISTED = 50
# Sealed and signed bytes are large, and the page shows none.
_UNSHOWN = ("signed_plan", *(f"start_model__{name}" for name in ("signed_manifest", *UNLISTED)))


@require_safe
@for_roles(*EVERY_ROLE)
def training_list(request: HttpRequest) -> HttpResponse:
    """The newest trainings."""
    trainings = Training.objects.select_related("federation").defer("plan", "signed_plan")[:_LISTED]
    rows = [{"training": row, "word": word_of("training", row.state)} for row in trainings]
    may_start = Role.OPERATOR in roles_of(request.user)
    return render(request, "frontend/trainings.html", {"rows": rows, "may_start": may_start})


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles(Role.OPERATOR)
def training_new(request: HttpRequest) -> HttpResponse:
    """Start a training, from what its job describes or from a version (``?start=`` chooses it)."""
    federation = Federation.objects.order_by("created_at").first()
    rows = registry.start_rows(federation) if federation else []
    starts = [(str(row.model.id), row.label) for row in rows if not row.refusal]
    chosen = next((row for row in rows if str(row.model.id) == request.GET.get("start")), None)
    initial = {"start_from": str(chosen.model.id), "job": chosen.model.training.job} if chosen else {}
    form = TrainingForm(starts, initial=initial)
    if request.method == "POST":
        form = TrainingForm(starts, request.POST)
        if federation is not None and form.is_valid():
            try:
                plan = plan_for(form.request, federation)
                made = open_training(federation=federation, plan=plan, actor=actor_of(request))
            except LatticewardError as error:
                form.add_error(None, str(problem_of(error)[1]["detail"]))
            else:
                transaction.on_commit(lambda: tasks.sign_training.delay(str(made.id)))
                messages.success(request, f"{made.title} is planned. It begins when the authority has signed the plan.")
                return redirect("training", made.id)
    context = {"form": form, "rows": rows, "chosen": chosen, "federation": federation}
    return render(request, "frontend/training_new.html", context, status=422 if form.errors else 200)


@require_safe
@for_roles(*EVERY_ROLE)
def training(request: HttpRequest, training_id: UUID) -> HttpResponse:
    """One training with its newest round, or (``?part=now``) the part of it that moves."""
    trainings = Training.objects.select_related("federation", "start_model__training").defer(*_UNSHOWN)
    row = get_object_or_404(trainings, pk=training_id)
    topics = board.topics_of([row.federation.feed], [row.id])
    context = {"board": board.read_training(row, now=timezone.now()), "topics": topics, **_rights(request)}
    part = request.GET.get("part") == "now"
    return render(request, "frontend/_training_now.html" if part else "frontend/training.html", context)


@require_safe
@for_roles(*EVERY_ROLE)
def round_page(request: HttpRequest, round_id: UUID) -> HttpResponse:
    """One round of its own, for as long as it is of interest."""
    row = get_object_or_404(Round.objects.select_related("training__federation"), pk=round_id)
    context = {
        "topics": board.topics_of([row.feed]),
        "round_board": board.read_round(row, now=timezone.now()),
        "refusals": board.refusals_of(row),
        "comparison": board.comparison_of(row.training),
        "training": row.training,
        **_rights(request),
    }
    part = request.GET.get("part") == "now"
    return render(request, "frontend/_round_now.html" if part else "frontend/round.html", context)


@require_safe
@for_roles(*KEY_READERS)
def round_record(request: HttpRequest, round_id: UUID) -> HttpResponse:
    """The signed account of a round, as the bytes that were signed."""
    row = get_object_or_404(Round.objects.only("number", "signed_record"), pk=round_id)
    if row.signed_record is None:
        raise Http404
    return HttpResponse(
        bytes(row.signed_record),
        content_type="application/cbor",
        headers={"Content-Disposition": f'attachment; filename="round-{row.number}-{row.id}.cbor"'},
    )


@require_safe
@for_roles(*EVERY_ROLE)
def round_account(request: HttpRequest, round_id: UUID) -> HttpResponse:
    """The signed account of a round, in words."""
    row = get_object_or_404(
        Round.objects.select_related("training").only("record", "signed_record", "training__title", "training__plan"),
        pk=round_id,
    )
    if row.signed_record is None or row.record is None:
        raise Http404
    account = RoundRecord.from_bytes(bytes(row.record))
    context = {
        "round": row,
        "training": row.training,
        "account": account,
        "words": say_record(account, row.training.round_plan),
        **_rights(request),
    }
    return render(request, "frontend/round_account.html", context)


@require_safe
@for_roles(*KEY_READERS)
def round_proof(request: HttpRequest, round_id: UUID) -> HttpResponse:
    """The record with plan, trust statement and ledger proof, to be checked without this server."""
    try:
        raw = record_file(round_id)
    except NotFoundError as error:
        raise Http404 from error
    except StateError:
        said = "The ledger numbers its entries every few seconds, and this one has no number yet. Try again."
        return HttpResponse(said, status=409, content_type="text/plain; charset=utf-8")
    name = f"round-{round_id}.record"
    return HttpResponse(
        raw,
        content_type="application/cbor",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _rights(request: HttpRequest) -> dict[str, Any]:
    return {"sees_keys": bool(roles_of(request.user) & set(KEY_READERS))}
