"""A plan that somebody changed in the database: said in a sentence with a code, told to the ledger, and no fault of
other trainings."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import AuditEntry
from rounds.models import Round, Training
from rounds.services.integrity import report_changed_plans
from rounds.tasks import keep_house
from tests.frontend import scene
from tests.rounds.cohort import Cohort
from tests.rounds.conftest import cohort

__all__ = ["cohort"]
pytestmark = pytest.mark.django_db

SAID = "no longer the one that was signed"


def tamper(training: Training) -> None:
    raw = bytes(training.plan)
    Training.objects.filter(pk=training.pk).update(plan=raw[:-1] + bytes([raw[-1] ^ 1]))


@pytest.fixture
def published(cohort: Cohort) -> tuple[Round, Round]:
    """A published round of a training whose plan is changed, and one of a training that nobody touched."""
    rounds = cohort.whole_round(cohort.train()), cohort.whole_round(cohort.train())
    tamper(rounds[0].training)
    return rounds


def test_pages_that_speak_by_the_plan_say_that_it_was_changed(
    client: Client, operator: User, published: tuple[Round, Round]
) -> None:
    client.force_login(operator)
    changed, untouched = published
    for name, one, other in (
        ("round-account", changed.pk, untouched.pk),
        ("model", changed.model_id, untouched.model_id),
    ):
        page = client.get(reverse(name, args=[one]))
        assert page.status_code == 409, name
        assert SAID in page.content.decode() and "<code>plan_changed</code>" in page.content.decode()
        assert page.headers["Cache-Control"] == "private, no-store"
        assert client.get(reverse(name, args=[other])).status_code == 200, name


@pytest.mark.parametrize("part", ["", "?part=now"])
def test_the_training_s_own_page_goes_on_without_promises(client: Client, operator: User, part: str) -> None:
    federation = scene.make_federation()
    training, other = scene.make_training(federation), scene.make_training(federation)
    scene.run_round(training, 0.886)
    tamper(training)
    client.force_login(operator)
    page = client.get(reverse("training", args=[training.pk]) + part).content.decode()
    assert SAID in page and "<code>plan_changed</code>" in page and "0.886" in page
    assert "Smallest group" not in page
    assert SAID not in client.get(reverse("training", args=[other.pk]) + part).content.decode()
    for name in ("trainings", "models", "overview"):
        assert client.get(reverse(name)).status_code == 200


def test_answers_carry_the_code_and_lists_go_on(client: Client, operator: User, published: tuple[Round, Round]) -> None:
    client.force_login(operator)
    changed, untouched = published
    answer = client.get(f"/api/v1/models/{changed.model_id}")
    assert (answer.status_code, answer.json()["type"]) == (409, "plan_changed")
    assert SAID in answer.json()["detail"]
    assert client.get(f"/api/v1/models/{untouched.model_id}").status_code == 200
    for path in ("trainings", "rounds", "models", f"trainings/{changed.training_id}", f"rounds/{changed.pk}"):
        assert client.get(f"/api/v1/{path}").status_code == 200, path


def test_the_ledger_is_told_once_of_each_changed_plan(published: tuple[Round, Round]) -> None:
    keep_house()
    assert report_changed_plans() == 0
    entry = AuditEntry.objects.get(event="training.plan_changed")
    assert entry.subject_id == str(published[0].training_id)
    assert entry.feed == published[0].training.federation.feed
    assert entry.details["state"] == "running"
