"""Taking a model version out of use: retired (superseded) or revoked (must not be used any more).

One person is enough for either, because neither lets a hospital rely on anything new.
"""

from uuid import UUID

from django.db import transaction

from controlplane.transitions import apply_transition
from latticeward.errors import ModelUnusableError, NotFoundError
from latticeward.lifecycle import MODEL, ROUND, TRAINING
from rounds.models import ModelVersion, Round
from rounds.services.aliases import drop_aliases


def retire_model(*, model_id: UUID, actor: str, reason: str) -> ModelVersion:
    """Say that a version is superseded: hospitals keep it, and no alias or training may begin with it.

    Raises:
        NotFoundError: there is no such published version.
        ModelUnusableError: an alias points at it, or a training goes on from it.
        InvalidTransitionError: it is retired or revoked.
    """
    with transaction.atomic():
        model = _locked(model_id)
        if names := sorted(model.aliases.values_list("name", flat=True)):
            raise ModelUnusableError(f"The alias {names[0]} points at this version: move it first.")
        _end(model, "retire", actor=actor, reason=reason)
    return model


def revoke_model(*, model_id: UUID, actor: str, reason: str) -> ModelVersion:
    """Take trust in a version away for ever: it is not handed out any more, and every alias is taken off it.

    Raises:
        NotFoundError: there is no such published version.
        ModelUnusableError: a training goes on from it.
        InvalidTransitionError: it is revoked.
    """
    with transaction.atomic():
        model = _locked(model_id)
        _end(model, "revoke", actor=actor, reason=reason)
        drop_aliases(model, actor=actor, reason=reason)
    return model


def _end(model: ModelVersion, event: str, *, actor: str, reason: str) -> None:
    training = model.training
    # One that was prepared and never published is none: the training goes on from the version before it.
    published = training.models.filter(signed_manifest__isnull=False).order_by("-number")
    newest = published.values_list("id", flat=True).first()
    # Agents never go back to an older version, so a running training cannot step around its newest one.
    if training.state not in TRAINING.terminal and newest == model.id:
        raise ModelUnusableError("Its training is running and goes on from this version: stop the training first.")
    # Before that round a training that starts from it has nothing to lose: its plan then fails with the reason.
    begun = Round.objects.filter(base_model=model).exclude(state__in=ROUND.terminal).select_related("training")
    if (open_round := begun.exclude(training=training).first()) is not None:
        raise ModelUnusableError(
            f"A round of “{open_round.training.title}” has begun with this version: stop that training first."
        )
    apply_transition(
        model,
        MODEL,
        event,
        actor=actor,
        feed=training.federation.feed,
        details={"number": model.number, "weights_digest": bytes(model.weights_digest).hex(), "reason": reason},
    )


def _locked(model_id: UUID) -> ModelVersion:
    rows = ModelVersion.objects.select_for_update(of=("self",)).select_related("training__federation")
    model = rows.filter(pk=model_id, signed_manifest__isnull=False).first()
    if model is None:
        raise NotFoundError(f"no published model {model_id}")
    return model
