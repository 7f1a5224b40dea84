"""An alias moves when two people want it, and for no other reason."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from latticeward.errors import (
    InvalidTransitionError,
    InvalidValueError,
    ModelUnusableError,
    NotFoundError,
    NotPermittedError,
    SecondPersonError,
    StaleStateError,
)
from latticeward.lifecycle import AliasMoveState
from rounds.models import AliasMove, ModelAlias, ModelVersion, Training
from rounds.services.aliases import confirm_move, decline_move, expire_moves, propose_move, withdraw_move
from rounds.services.standing import retire_model, revoke_model
from tests.frontend import scene

pytestmark = pytest.mark.django_db

OLIVE, CONRAD = "user:1", "user:2"


def propose(model: ModelVersion, name: str = "production", actor: str = OLIVE) -> AliasMove:
    return propose_move(model=model, name=name, reason="better at every hospital", actor=actor)


def point(model: ModelVersion, name: str = "production") -> AliasMove:
    return confirm_move(move_id=propose(model, name).id, actor=CONRAD)


def pointed_at(name: str = "production") -> ModelVersion | None:
    return ModelAlias.objects.get(name=name).model


def test_a_proposal_alone_moves_nothing(older: ModelVersion) -> None:
    propose(older)
    assert pointed_at() is None


def test_a_second_person_moves_the_alias_and_the_ledger_names_both(older: ModelVersion) -> None:
    move = point(older)
    assert pointed_at() == older
    entry = AuditEntry.objects.get(event="alias.moved", subject_id=str(move.id))
    assert (entry.details["proposed_by"], entry.actor) == (OLIVE, CONRAD)
    assert entry.details["weights_digest"] == bytes(older.weights_digest).hex()
    assert AuditEntry.objects.filter(event="alias.proposed", subject_id=str(move.id)).count() == 1


def test_the_same_person_cannot_confirm_or_decline(older: ModelVersion) -> None:
    move = propose(older)
    with pytest.raises(SecondPersonError):
        confirm_move(move_id=move.id, actor=OLIVE)
    with pytest.raises(SecondPersonError):
        decline_move(move_id=move.id, actor=OLIVE, reason="no")
    assert pointed_at() is None


def test_the_database_itself_refuses_one_person_twice(older: ModelVersion) -> None:
    move = propose(older)
    with pytest.raises(IntegrityError), transaction.atomic():
        AliasMove.objects.filter(pk=move.pk).update(state=AliasMoveState.CONFIRMED, decided_by=OLIVE)


def test_a_roll_back_is_a_move_by_the_same_rule_and_is_called_so(older: ModelVersion, newer: ModelVersion) -> None:
    point(older)
    assert not point(newer).is_rollback
    back = propose(older)
    assert back.is_rollback and pointed_at() == newer
    confirm_move(move_id=back.id, actor=CONRAD)
    assert pointed_at() == older
    assert AuditEntry.objects.filter(event="alias.moved", details__rollback=True).count() == 1


def test_only_one_proposal_of_an_alias_waits_at_a_time(older: ModelVersion, newer: ModelVersion) -> None:
    move = propose(older)
    with pytest.raises(StaleStateError):
        propose(newer, actor=CONRAD)
    withdraw_move(move_id=move.id, actor=OLIVE, reason="the wrong one")
    assert propose(newer, actor=CONRAD).state == AliasMoveState.PROPOSED


def test_two_aliases_and_two_jobs_do_not_meet(older: ModelVersion, newer: ModelVersion, training: Training) -> None:
    point(older)
    point(newer, "candidate")
    other = scene.make_training(training.federation)
    Training.objects.filter(pk=other.pk).update(job="thyroid")
    scene.run_round(other, 0.6)
    other.refresh_from_db()
    point(ModelVersion.objects.select_related("training__federation").get(training=other))
    assert pointed_at("candidate") == newer
    assert ModelAlias.objects.get(name="production", job="heart").model == older


def test_after_the_time_the_proposal_is_over_even_if_nobody_swept(older: ModelVersion) -> None:
    move = propose(older)
    AliasMove.objects.filter(pk=move.pk).update(due_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(InvalidTransitionError):
        confirm_move(move_id=move.id, actor=CONRAD)
    move.refresh_from_db()
    assert move.state == AliasMoveState.EXPIRED and pointed_at() is None
    assert AuditEntry.objects.filter(event="alias.expired").count() == 1


def test_the_sweep_ends_what_is_overdue_and_nothing_else(older: ModelVersion, newer: ModelVersion) -> None:
    overdue, waiting = propose(older), propose(newer, "candidate")
    AliasMove.objects.filter(pk=overdue.pk).update(due_at=timezone.now())
    assert expire_moves() == 1 and expire_moves() == 0
    waiting.refresh_from_db()
    assert waiting.state == AliasMoveState.PROPOSED


def test_a_proposal_is_stale_once_the_alias_was_cleared(older: ModelVersion, newer: ModelVersion) -> None:
    point(older)
    move = propose(newer)
    ModelAlias.objects.filter(name="production").update(model=None)
    with pytest.raises(StaleStateError):
        confirm_move(move_id=move.id, actor=CONRAD)
    move.refresh_from_db()
    assert move.state == AliasMoveState.PROPOSED and pointed_at() is None


def test_a_decided_proposal_is_decided(older: ModelVersion) -> None:
    move = decline_move(move_id=propose(older).id, actor=CONRAD, reason="not yet measured")
    assert move.decision == "not yet measured"
    for decide in (confirm_move, lambda **given: withdraw_move(**{**given, "actor": OLIVE}, reason="late")):
        with pytest.raises(InvalidTransitionError):
            decide(move_id=move.id, actor=CONRAD)


def test_only_the_person_who_proposed_withdraws(older: ModelVersion) -> None:
    with pytest.raises(NotPermittedError):
        withdraw_move(move_id=propose(older).id, actor=CONRAD, reason="no")


@pytest.mark.parametrize("name", ["", "Production", "9lives", "a" * 41, "pro duction", "a/b", "production\n"])
def test_what_is_no_name_is_refused(older: ModelVersion, name: str) -> None:
    with pytest.raises(InvalidValueError):
        propose(older, name)
    assert not ModelAlias.objects.exists()


def test_an_unknown_proposal_is_not_found(older: ModelVersion) -> None:
    with pytest.raises(NotFoundError):
        confirm_move(move_id=older.id, actor=CONRAD)


def test_a_version_without_standing_gets_no_alias(older: ModelVersion, newer: ModelVersion) -> None:
    retire_model(model_id=older.id, actor=OLIVE, reason="superseded")
    with pytest.raises(ModelUnusableError, match="retired"):
        propose(older)
    ModelVersion.objects.filter(pk=newer.pk).update(signed_manifest=None)
    with pytest.raises(ModelUnusableError, match="not published"):
        propose(newer)


def test_a_version_that_is_retired_after_the_proposal_gets_no_alias(older: ModelVersion) -> None:
    move = propose(older)
    retire_model(model_id=older.id, actor=OLIVE, reason="superseded")
    with pytest.raises(ModelUnusableError):
        confirm_move(move_id=move.id, actor=CONRAD)


def test_an_aliased_version_is_not_retired(older: ModelVersion) -> None:
    point(older)
    with pytest.raises(ModelUnusableError, match="production"):
        retire_model(model_id=older.id, actor=OLIVE, reason="superseded")


def test_a_revocation_takes_every_alias_off_and_declines_what_waits(older: ModelVersion) -> None:
    point(older)
    waiting = propose(older, "candidate")
    revoke_model(model_id=older.id, actor=CONRAD, reason="wrong at one hospital")
    waiting.refresh_from_db()
    assert pointed_at() is None and waiting.state == AliasMoveState.DECLINED
    assert AuditEntry.objects.get(event="alias.cleared").details["reason"] == "wrong at one hospital"
    with pytest.raises(InvalidTransitionError):
        revoke_model(model_id=older.id, actor=CONRAD, reason="again")


def test_the_version_that_a_running_training_goes_on_from_stays(training: Training) -> None:
    running = scene.make_training(training.federation)
    scene.run_round(running, 0.6)
    model = running.models.get()
    for end in (retire_model, revoke_model):
        with pytest.raises(ModelUnusableError, match="stop the training"):
            end(model_id=model.id, actor=OLIVE, reason="no")


def test_a_version_that_was_never_published_does_not_stand_in_for_the_one_that_a_training_goes_on_from(
    training: Training,
) -> None:
    running = scene.make_training(training.federation)
    scene.run_round(running, 0.6)
    model = running.models.get()
    running.models.create(  # of a round that failed after its result was prepared
        number=2,
        weights_digest=bytes(32),
        base_model_digest=bytes(32),
        manifest=b"manifest",
        header=b"header",
        body_blob="00",
        body_bytes=1,
        wrapped_content_key=b"key",
    )
    with pytest.raises(ModelUnusableError, match="stop the training"):
        revoke_model(model_id=model.id, actor=OLIVE, reason="no")
