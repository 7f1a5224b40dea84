"""Starting a training from a page: from what its job describes, or from a version that may be a start."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from devices.models import Federation
from rounds import tasks
from rounds.models import ModelVersion, Training
from rounds.services import starts
from rounds.services.standing import retire_model
from tests.frontend import scene

pytestmark = pytest.mark.django_db

PAGE = "/trainings/new/"


@pytest.fixture
def federation() -> Federation:
    return scene.make_federation()


@pytest.fixture
def start(federation: Federation) -> ModelVersion:
    training = scene.make_training(federation)
    scene.run_round(training, 0.5)
    scene.run_round(training, 0.71)
    scene.run_round(training, 0.83, kind="evaluation")
    scene.complete(training)
    return training.models.select_related("training").get(number=2)


@pytest.fixture
def person(client: Client, operator: User) -> Client:
    client.force_login(operator)
    return client


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr(tasks.sign_training, "delay", calls.append)
    return calls


def text(client: Client, address: str = PAGE) -> str:
    return client.get(address).content.decode()


def test_a_version_that_may_be_a_start_is_offered_and_chosen(
    person: Client, start: ModelVersion, signed: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    page = text(person, f"{PAGE}?start={start.id}")
    assert f'<option value="{start.id}" selected>Version 2 of Heart disease (heart, AUC 0.830)</option>' in page
    with django_capture_on_commit_callbacks(execute=True):
        answer = person.post(PAGE, {"job": "heart", "start_from": str(start.id), "title": "Second year", "rounds": "3"})
    made = Training.objects.get(title="Second year")
    assert answer["Location"] == reverse("training", args=[made.id])
    assert (made.start_model, made.round_plan.start, made.rounds_max) == (start, starts.named(start), 3)
    assert signed == [str(made.id)]
    shown = text(person, answer["Location"])
    assert "version 2</a> of Heart disease" in shown
    assert "starts from it already" in text(person)


def test_without_a_start_the_job_describes_it(person: Client, federation: Federation, signed: list[str]) -> None:
    assert "No version was published yet" in text(person)
    answer = person.post(PAGE, {"job": "thyroid", "start_from": "", "title": "", "rounds": ""})
    made = Training.objects.get()
    assert (made.start_model, made.job, made.title) == (None, "thyroid", "Thyroid conditions, four referral sites")
    assert "what the job describes" in text(person, answer["Location"])


def test_a_version_that_may_be_none_is_shown_with_the_reason_and_not_offered(
    person: Client, start: ModelVersion
) -> None:
    retire_model(model_id=start.id, actor="user:1", reason="superseded")
    page = text(person, f"{PAGE}?start={start.id}")
    assert "cannot be a start. It is retired: nothing new may begin with it." in page
    assert f'<option value="{start.id}"' not in page
    refused = person.post(PAGE, {"job": "heart", "start_from": str(start.id)})
    assert refused.status_code == 422
    assert Training.objects.count() == 1


def test_a_running_training_s_version_is_no_start(person: Client, federation: Federation) -> None:
    scene.run_round(scene.make_training(federation), 0.5)
    assert "Its training is running and goes on from it by itself." in text(person)


def test_a_plan_that_does_not_fit_its_start_is_refused_in_words(person: Client, start: ModelVersion) -> None:
    refused = person.post(PAGE, {"job": "thyroid", "start_from": str(start.id)})
    assert refused.status_code == 422
    assert "the start is of the job &#x27;heart&#x27;, and the plan of &#x27;thyroid&#x27;" in refused.content.decode()
    assert Training.objects.count() == 1


def test_only_operators_start_trainings(client: Client, clinician: User, start: ModelVersion) -> None:
    client.force_login(clinician)
    assert client.get(PAGE).status_code == client.post(PAGE, {"job": "heart"}).status_code == 403
    assert "Start a training" not in text(client, reverse("trainings"))
    assert "Start a training" not in text(client, reverse("model", args=[start.id]))


def test_the_way_there_leads_from_the_lists_and_from_a_version(person: Client, start: ModelVersion) -> None:
    assert f'href="{PAGE}"' in text(person, reverse("trainings"))
    assert f'href="{PAGE}?start={start.id}"' in text(person, reverse("model", args=[start.id]))


def test_before_there_is_a_federation_nothing_can_be_started(person: Client) -> None:
    assert "No federation yet" in text(person)
    assert person.post(PAGE, {"job": "heart"}).status_code == 200
    assert not Training.objects.exists()
