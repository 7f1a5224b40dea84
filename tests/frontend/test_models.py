"""Deciding about models from their pages: two people and an alias, a file, a comparison, an end."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from keys import vault
from latticeward.lifecycle import AliasMoveState, ModelExportState
from rounds import tasks
from rounds.models import AliasMove, ModelAlias, ModelDifference, ModelExport, ModelVersion
from rounds.services.aliases import propose_move
from tests.frontend import scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(db: None) -> ModelVersion:
    vault.initialise()
    training = scene.make_training(scene.make_federation())
    scene.run_round(training, 0.5)
    scene.run_round(training, 0.71)
    scene.complete(training)
    return training.models.select_related("training__federation").get(number=1)


@pytest.fixture
def enqueued(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for task in (tasks.make_export, tasks.compute_difference):
        monkeypatch.setattr(task, "delay", calls.append)
    return calls


def post(client: Client, page: str, identity: object, **body: object) -> str:
    return client.post(reverse(page, args=[identity]), body, follow=True).content.decode()


def test_one_proposes_and_another_confirms(
    client: Client, operator: User, compliance: User, model: ModelVersion
) -> None:
    client.force_login(operator)
    text = post(client, "model-propose", model.id, alias="production", reason="better everywhere")
    assert "A second person confirms it" in text
    move = AliasMove.objects.get()
    own = client.get(reverse("models")).content.decode()
    assert "Withdraw" in own and "Confirm: move" not in own
    assert "Two people decide this" in post(client, "move-confirm", move.id)
    assert "Waits for another person" in client.get(reverse("overview")).content.decode()
    client.force_login(compliance)
    assert "Look and decide" in client.get(reverse("overview")).content.decode()
    assert "The alias was moved" in post(client, "move-confirm", move.id)
    assert ModelAlias.objects.get().model == model
    assert "olive" in client.get(reverse("model", args=[model.id])).content.decode()


def test_declining_and_withdrawing_need_reasons(
    client: Client, operator: User, compliance: User, model: ModelVersion
) -> None:
    move = propose_move(model=model, name="production", reason="good", actor=f"user:{operator.pk}")
    client.force_login(compliance)
    assert "Say in a few words why" in post(client, "move-decline", move.id)
    client.force_login(operator)
    assert "was withdrawn" in post(client, "move-withdraw", move.id, reason="the wrong one")
    assert AliasMove.objects.get().state == AliasMoveState.WITHDRAWN


@pytest.mark.parametrize("alias", ["", "Not A Name"])
def test_what_is_no_alias_changes_nothing(client: Client, operator: User, model: ModelVersion, alias: str) -> None:
    client.force_login(operator)
    assert "Nothing was changed" in post(client, "model-propose", model.id, alias=alias, reason="good")
    assert not AliasMove.objects.exists()


def test_clinicians_see_versions_and_decide_nothing(client: Client, clinician: User, model: ModelVersion) -> None:
    client.force_login(clinician)
    text = client.get(reverse("model", args=[model.id])).content.decode()
    assert "AUC 0.710" in text and "Propose an alias" not in text and "Download the signed" not in text
    for page in ("model-propose", "model-retire", "model-revoke", "model-export", "move-confirm", "model-export-file"):
        assert client.post(reverse(page, args=[model.id]), {"reason": "no"}).status_code == 403


def test_a_file_is_asked_for_and_its_absence_is_said(
    client: Client,
    operator: User,
    model: ModelVersion,
    enqueued: list[str],
    django_capture_on_commit_callbacks: Any,
) -> None:
    client.force_login(operator)
    with django_capture_on_commit_callbacks(execute=True):
        text = post(client, "model-export", model.id, format="npz", reason="validation")
    export = ModelExport.objects.get()
    assert "The file is being made" in text and "being made" in text and enqueued == [str(export.id)]
    assert "was not handed out" in post(client, "model-export-file", export.id)
    ModelExport.objects.update(state=ModelExportState.READY, file_bytes=100)
    assert "Fetch" in client.get(reverse("model", args=[model.id])).content.decode()
    assert "Choose a format" in post(client, "model-export", model.id, reason="validation")


def test_comparing_asks_the_worker_once_and_shows_its_answer(
    client: Client,
    clinician: User,
    model: ModelVersion,
    enqueued: list[str],
    django_capture_on_commit_callbacks: Any,
) -> None:
    client.force_login(clinician)
    other = model.training.models.get(number=2)
    with django_capture_on_commit_callbacks(execute=True):
        text = post(client, "model-compare", model.id, other=str(other.id))
    row = ModelDifference.objects.get()
    assert "The aggregation worker opens both" in text and enqueued == [str(row.id)]
    ModelDifference.objects.update(computed_at=row.requested_at, result=scene.DIFFERENCE)
    text = client.get(reverse("model-difference", args=[row.id])).content.decode()
    assert "<svg" in text and "12.5 %" in text and "from zero" in text and "0.9912" in text
    ModelDifference.objects.update(failure_code="not_found", result=None)
    assert "could not be compared" in client.get(reverse("model-difference", args=[row.id])).content.decode()
    assert "Choose the other version" in post(client, "model-compare", model.id, other="x")


def test_an_end_of_standing_needs_its_reason(client: Client, operator: User, model: ModelVersion) -> None:
    client.force_login(operator)
    assert "Say in a few words why" in post(client, "model-retire", model.id)
    assert "is retired" in post(client, "model-retire", model.id, reason="superseded")
    text = post(client, "model-revoke", model.id, reason="wrong labels")
    assert "is revoked" in text and "Propose an alias" not in text and "Export as a file" not in text
