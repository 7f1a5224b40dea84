"""Aliases of model versions, moved by two people: one proposes, another confirms within a day.

To give a version a name that hospitals rely on takes two people; to take it away (a revocation, ``standing.py``)
takes one. A roll-back is a move like any other. What an alias promises, and what not, is in ADR 0025.
"""

import re
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from latticeward.errors import (
    InvalidValueError,
    ModelUnusableError,
    NotFoundError,
    NotPermittedError,
    SecondPersonError,
    StaleStateError,
)
from latticeward.lifecycle import ALIAS_MOVE, AliasMoveState, ModelState
from rounds.models import AliasMove, ModelAlias, ModelVersion

CONFIRM_WITHIN: Final = timedelta(hours=24)
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")


def require_usable(model: ModelVersion) -> None:
    """Refuse a version that may not be relied on anew.

    Raises:
        ModelUnusableError: it is not published, or was retired or revoked.
    """
    if model.signed_manifest is None:
        raise ModelUnusableError("The model version is not published yet.")
    if model.state != ModelState.AVAILABLE:
        raise ModelUnusableError(f"The model version is {model.state}.")


def propose_move(*, model: ModelVersion, name: str, reason: str, actor: str) -> AliasMove:
    """Propose that the alias of this name, of the model's job, points at ``model``; a new name makes a new alias.

    Args:
        name: 1 to 40 lower-case letters, digits and hyphens, a letter first.

    Raises:
        InvalidValueError: the name is none.
        ModelUnusableError: the version may not be relied on, or the alias points at it already.
        StaleStateError: a proposal for this alias waits already.
    """
    if not _NAME.match(name):
        raise InvalidValueError("An alias has 1 to 40 lower-case letters, digits and hyphens, a letter first.")
    training = model.training
    now = timezone.now()
    try:
        with transaction.atomic():
            model = ModelVersion.objects.select_for_update(of=("self",)).get(pk=model.pk)
            require_usable(model)
            alias, _ = ModelAlias.objects.select_for_update().get_or_create(
                federation_id=training.federation_id, job=training.job, name=name
            )
            if alias.model_id == model.id:
                raise ModelUnusableError(f"The alias {name} points at this version already.")
            before = alias.model
            move = AliasMove.objects.create(
                alias=alias,
                target=model,
                before=before,
                is_rollback=before is not None and model.created_at < before.created_at,
                reason=reason,
                proposed_by=actor,
                proposed_at=now,
                due_at=now + CONFIRM_WITHIN,
            )
            record(
                "alias.proposed",
                actor=actor,
                feed=training.federation.feed,
                subject=(ALIAS_MOVE.name, move.id),
                details={**_details(move), "reason": reason},
            )
    except IntegrityError as error:
        raise StaleStateError(f"a proposal for the alias {name} of {training.job} waits already") from error
    return move


def confirm_move(*, move_id: UUID, actor: str) -> AliasMove:
    """Confirm a proposal of another person, and move the alias.

    1. The proposal still waits and is not overdue.
    2. The person is another one than who proposed it.
    3. The version may still be relied on.
    4. The alias points where it did when the move was proposed: the second person decides on what the first one saw.

    Raises:
        NotFoundError: there is no such proposal.
        InvalidTransitionError: it was decided, withdrawn, or has expired.
        SecondPersonError, ModelUnusableError
        StaleStateError: the alias was moved or cleared since.
    """
    with transaction.atomic():
        move = _locked(move_id)
        # 1
        if _is_overdue(move):
            _expire(move)
        else:
            # 2
            _require_another_person(move, actor)
            # 3
            if move.state == AliasMoveState.PROPOSED:
                require_usable(move.target)
            # 4
            _decide(move, "confirm", actor=actor)
            alias = ModelAlias.objects.filter(pk=move.alias_id, model_id=move.before_id)
            if alias.update(model=move.target, moved_at=move.decided_at) != 1:
                raise StaleStateError(f"the alias {move.alias.name} was moved since {move.id} was proposed")
    if move.state == AliasMoveState.EXPIRED:
        _decide(move, "confirm", actor=actor)  # refused by the table, after the expiry was kept
    return move


def decline_move(*, move_id: UUID, actor: str, reason: str) -> AliasMove:
    """Refuse a proposal of another person.

    Raises:
        NotFoundError, InvalidTransitionError
        SecondPersonError: it is the person's own; they withdraw it instead.
    """
    with transaction.atomic():
        move = _locked(move_id)
        _require_another_person(move, actor)
        _decide(move, "decline", actor=actor, reason=reason)
    return move


def withdraw_move(*, move_id: UUID, actor: str, reason: str) -> AliasMove:
    """Take back one's own proposal.

    Raises:
        NotFoundError, InvalidTransitionError
        NotPermittedError: it is another person's.
    """
    with transaction.atomic():
        move = _locked(move_id)
        if move.proposed_by != actor:
            raise NotPermittedError(f"proposal {move_id} is not of {actor}")
        _decide(move, "withdraw", actor=actor, reason=reason)
    return move


def expire_moves() -> int:
    """End the proposals that nobody decided on in time; returns how many."""
    ended = 0
    overdue = AliasMove.objects.filter(state=AliasMoveState.PROPOSED, due_at__lte=timezone.now())
    for move_id in overdue.values_list("id", flat=True):
        with transaction.atomic():
            move = _locked(move_id)
            if _is_overdue(move):
                _expire(move)
                ended += 1
    return ended


def drop_aliases(model: ModelVersion, *, actor: str, reason: str) -> None:
    """Take every alias off a version that lost its standing, and decline what would move one to it.

    Inside the transaction that changes the standing.
    """
    feed = model.training.federation.feed
    for alias in ModelAlias.objects.select_for_update().filter(model=model):
        ModelAlias.objects.filter(pk=alias.pk, model=model).update(model=None, moved_at=timezone.now())
        record(
            "alias.cleared",
            actor=actor,
            feed=feed,
            subject=("alias", alias.id),
            details={"alias": alias.name, "job": alias.job, "before": str(model.id), "reason": reason},
        )
    for move_id in AliasMove.objects.filter(target=model, state=AliasMoveState.PROPOSED).values_list("id", flat=True):
        _decide(_locked(move_id), "decline", actor=actor, reason=reason)


def _locked(move_id: UUID) -> AliasMove:
    """A proposal with its version and alias, locked in the one order that everybody takes: version, alias, proposal."""
    named = AliasMove.objects.filter(pk=move_id).values_list("target_id", "alias_id").first()
    if named is None:
        raise NotFoundError(f"proposal {move_id}")
    target = ModelVersion.objects.select_for_update(of=("self",)).get(pk=named[0])
    alias = ModelAlias.objects.select_for_update(of=("self",)).select_related("federation").get(pk=named[1])
    move = AliasMove.objects.select_for_update(of=("self",)).get(pk=move_id)
    move.target, move.alias = target, alias
    return move


def _is_overdue(move: AliasMove) -> bool:
    return move.state == AliasMoveState.PROPOSED and timezone.now() >= move.due_at


def _require_another_person(move: AliasMove, actor: str) -> None:
    if move.proposed_by == actor:
        raise SecondPersonError(f"{actor} proposed {move.id}")


def _expire(move: AliasMove) -> None:
    _decide(move, "expire", actor="system")


def _decide(move: AliasMove, event: str, *, actor: str, reason: str = "") -> None:
    apply_transition(
        move,
        ALIAS_MOVE,
        event,
        actor=actor,
        feed=move.alias.federation.feed,
        details={**_details(move), "proposed_by": move.proposed_by, "reason": reason or move.reason},
        decided_by=actor,
        decided_at=timezone.now(),
        decision=reason,
    )


def _details(move: AliasMove) -> dict[str, Any]:
    return {
        "alias": move.alias.name,
        "job": move.alias.job,
        "model": str(move.target_id),
        "weights_digest": bytes(move.target.weights_digest).hex(),
        "before": str(move.before_id) if move.before_id else None,
        "rollback": move.is_rollback,
    }
