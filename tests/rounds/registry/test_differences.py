"""What differs between two versions is worked out by the worker that may open them, once, and told to whoever asks."""

import json
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from devices.models import Federation
from latticeward.errors import InvalidValueError, NotFoundError, TooManyRequestsError
from rounds import tasks
from rounds.models import ModelDifference, ModelVersion, Round
from rounds.registry.selectors import published_model, read_difference
from rounds.services import differences
from rounds.services.differences import compute_difference, request_difference
from rounds.storage import delete_blob
from tests.frontend import scene
from tests.rounds.cohort import Cohort

pytestmark = pytest.mark.django_db


@pytest.fixture
def rounds(cohort: Cohort) -> tuple[Round, Round]:
    training = cohort.train(quorum=3)
    first = cohort.whole_round(training)
    current = cohort.collecting(training)
    for hospital in cohort.hospitals[:3]:
        hospital.contribute(current, cohort.weights(first))
    Round.objects.filter(pk=current.pk).update(state_due_at="2020-01-01T00:00Z")
    return first, cohort.publish(current)


def versions(rounds: tuple[Round, Round]) -> tuple[ModelVersion, ModelVersion]:
    first, second = (published_model(made.model.id) for made in rounds if made.model)
    return first, second


def test_readers_cannot_fill_the_queue_of_the_worker_that_ends_rounds(
    older: ModelVersion, newer: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(differences, "WAITING_AT_MOST", 1)
    waiting = request_difference(before=older, after=newer, actor="user:1")
    with pytest.raises(TooManyRequestsError):
        request_difference(before=newer, after=older, actor="user:1")
    assert ModelDifference.objects.get() == waiting  # nothing half-done remains, and asking again is no new question
    assert request_difference(before=older, after=newer, actor="user:2") == waiting
    ModelDifference.objects.update(computed_at=timezone.now())
    request_difference(before=newer, after=older, actor="user:1")


def test_the_numbers_are_those_of_the_weights(rounds: tuple[Round, Round]) -> None:
    first, second = versions(rounds)
    row = request_difference(before=first, after=second, actor="user:1")
    assert read_difference(row.id).row.result is None
    compute_difference(row.id)
    found = read_difference(row.id)
    change = Cohort.weights(rounds[1]).astype(np.float64) - Cohort.weights(rounds[0])
    assert found.row.result is not None
    assert [tensor["name"] for tensor in found.row.result["tensors"]] == ["weight", "bias"]
    assert found.row.result["total"]["l2"] == pytest.approx(float(np.linalg.norm(change)))
    assert found.row.result["total"]["largest"] == pytest.approx(float(np.abs(change).max()))


def test_hospitals_and_plan_fields_that_differ_are_named(rounds: tuple[Round, Round], cohort: Cohort) -> None:
    first, second = versions(rounds)
    found = read_difference(request_difference(before=first, after=second, actor="user:1").id)
    assert (found.joined, found.left) == ((), (cohort.hospitals[3].device.site.name,))
    assert found.plan == ()
    other = cohort.train(clip_norm=2.0)
    third = cohort.whole_round(other).model
    assert third is not None
    across = read_difference(request_difference(before=first, after=published_model(third.id), actor="user:1").id)
    assert [(field.field, field.before, field.after) for field in across.plan if field.field == "clip_norm"] == [
        ("clip_norm", 4.0, 2.0)
    ]


def test_the_same_question_is_asked_and_answered_once(rounds: tuple[Round, Round]) -> None:
    first, second = versions(rounds)
    row = request_difference(before=first, after=second, actor="user:1")
    compute_difference(row.id)
    at = ModelDifference.objects.get().computed_at
    assert request_difference(before=first, after=second, actor="user:2").id == row.id
    compute_difference(row.id)
    assert ModelDifference.objects.get().computed_at == at


def test_the_web_tier_cannot_answer_it_itself(rounds: tuple[Round, Round], settings: Settings) -> None:
    first, second = versions(rounds)
    settings.ROLE = "web"
    row = request_difference(before=first, after=second, actor="user:1")
    compute_difference(row.id)
    row.refresh_from_db()
    assert row.result is None and row.failure_code == "custody_failed"


def test_a_lost_body_is_said(rounds: tuple[Round, Round]) -> None:
    first, second = versions(rounds)
    delete_blob(first.body_blob)
    row = request_difference(before=first, after=second, actor="user:1")
    compute_difference(row.id)
    row.refresh_from_db()
    assert (row.result, row.failure_code) == (None, "not_found")


def test_one_version_twice_and_two_federations_are_refused(older: ModelVersion, newer: ModelVersion) -> None:
    with pytest.raises(InvalidValueError):
        request_difference(before=older, after=older, actor="user:1")
    elsewhere = Federation.objects.create(slug="other", name="Other", created_at=older.created_at)
    training = scene.make_training(elsewhere)
    scene.run_round(training, 0.5)
    with pytest.raises(NotFoundError):
        request_difference(before=older, after=training.models.get(), actor="user:1")


def test_a_clinician_may_ask_over_rest(
    client: Client,
    clinician: User,
    stranger: User,
    rounds: tuple[Round, Round],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    monkeypatch.setattr(tasks.compute_difference, "delay", tasks.compute_difference)
    first, second = versions(rounds)
    body = json.dumps({"before": str(first.id), "after": str(second.id)})
    client.force_login(stranger)
    assert client.post("/api/v1/model-differences", body, content_type="application/json").status_code == 403
    client.force_login(clinician)
    with django_capture_on_commit_callbacks(execute=True):
        asked = client.post("/api/v1/model-differences", body, content_type="application/json")
    assert asked.status_code == 202 and asked.json()["state"] == "waiting"
    told = client.get(f"/api/v1/model-differences/{asked.json()['id']}").json()
    assert told["state"] == "ready" and told["tensors"][0]["change"] == "changed"
    assert told["metric_before"]["name"] == "auc" and told["metric_after"] is None
    assert client.get(f"/api/v1/model-differences/{first.id}").status_code == 404
