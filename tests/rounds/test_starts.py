"""A training that starts from a version of an earlier one: which versions may be a start, and what follows from it."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices.suites import accept_suite
from latticeward.errors import (
    IncompatiblePlanError,
    LatticewardError,
    ModelUnusableError,
    NotFoundError,
)
from latticeward.lifecycle import RoundState, TrainingState
from latticeward.starts import NamedVersion
from rounds.models import ModelVersion, Round, Training
from rounds.registry.selectors import lineage_of, metrics_of
from rounds.selectors import metric_by_round
from rounds.serializers import training_as_json
from rounds.services import coordination, publication, starts, trainings
from rounds.services.plans import plan_for
from rounds.services.recomputation import recompute_round
from rounds.services.standing import retire_model, revoke_model
from tests.rounds.cohort import Cohort

pytestmark = pytest.mark.django_db


@pytest.fixture
def start(cohort: Cohort) -> ModelVersion:
    """The last version of a training that has ended."""
    return finished(cohort)


def finished(cohort: Cohort, **plan: Any) -> ModelVersion:
    training = cohort.train(**{"rounds": 1, "evaluate_last": False, **plan})
    made = cohort.whole_round(training)
    if training.round_plan.evaluate_last:
        cohort.whole_round(training, cohort.weights(made))
    assert trainings.advance_training(training.id) is None
    assert made.model is not None
    return ModelVersion.objects.select_related("training").get(pk=made.model.pk)


def go_on(cohort: Cohort, start: ModelVersion, **plan: Any) -> Training:
    """A signed training that starts from a version."""
    made = plan_for({"job": "heart", "start_from": start.id, "plan": {"rounds": 1, **plan}}, cohort.federation)
    training = trainings.open_training(federation=cohort.federation, plan=made, actor="user:1")
    trainings.sign_training(training.id)
    return Training.objects.select_related("start_model").get(pk=training.pk)


def test_a_training_goes_on_from_the_last_version_of_another(cohort: Cohort, start: ModelVersion) -> None:
    training = go_on(cohort, start)
    assert training.round_plan.start == starts.named(start)
    assert training_as_json(training)["start_from"] == str(start.id)
    assert AuditEntry.objects.get(event="training.drafted", subject_id=str(training.id)).details["start"] == str(
        start.id
    )
    first = cohort.whole_round(training, publication.open_model(start))
    assert (first.state, first.base_model, first.number) == (RoundState.PUBLISHED, start, 1)
    assert first.model is not None
    assert recompute_round(first.id).weights_digest == bytes(first.model.weights_digest)
    second = cohort.whole_round(training, cohort.weights(first))
    assert (second.kind, second.base_model) == ("evaluation", first.model)


def test_the_optimiser_begins_anew(cohort: Cohort) -> None:
    adam = {"name": "fedadam", "learning_rate": 0.05}
    start = finished(cohort, server_optimiser=adam)
    assert start.optimiser_blob
    went_on = cohort.whole_round(go_on(cohort, start, server_optimiser=adam), publication.open_model(start))
    assert recompute_round(went_on.id).updates == 4
    plan, base = went_on.training.round_plan, publication.open_model(start)
    # The first step of FedAdam moves each weight by about the learning rate, whatever went before.
    moved = cohort.weights(went_on) - base
    assert plan.server_optimiser["name"] == "fedadam"
    assert abs(moved).max() <= 0.05 * 1.01


def test_each_training_keeps_its_own_value_of_the_start(cohort: Cohort) -> None:
    start = finished(cohort, evaluate_last=True)
    measured = metrics_of([start.id])
    training = go_on(cohort, start)
    first = cohort.whole_round(training, publication.open_model(start))
    assert metrics_of([start.id]) == measured
    Round.objects.filter(pk=first.pk).update(metric_value=0.25)
    assert metrics_of([start.id]) == measured
    assert [(row["round"], row["model_number"], row["value"]) for row in metric_by_round(training)] == [(1, 0, 0.25)]
    assert [row["model_number"] for row in metric_by_round(start.training)] == [0, 1]


def test_lineage_goes_on_over_trainings(cohort: Cohort, start: ModelVersion, client: Client, operator: Any) -> None:
    first = cohort.whole_round(go_on(cohort, start), publication.open_model(start))
    assert first.model is not None
    line = lineage_of(first.model)
    assert [(row.model_id, row.training_id, row.number) for row in line] == [
        (first.model.id, first.training_id, 1),
        (start.id, start.training_id, 1),
        (None, start.training_id, 0),
    ]
    client.force_login(operator)
    told = client.get(f"/api/v1/models/{first.model.id}/lineage").json()["results"]
    assert [row["model"] for row in told] == [str(first.model.id), str(start.id), None]
    assert client.get(f"/api/v1/models/{first.model.id}").json()["base_model"] == str(start.id)


def test_only_the_last_version_may_be_a_start_and_only_once(cohort: Cohort) -> None:
    training = cohort.train(rounds=2, evaluate_last=False)
    first = cohort.whole_round(training)
    last = cohort.whole_round(training, cohort.weights(first))
    assert refusal(cohort, last.model) == "Its training is running and goes on from it by itself."
    assert trainings.advance_training(training.id) is None
    assert "A training round has begun with it" in refusal(cohort, first.model)
    assert last.model is not None
    went_on = go_on(cohort, last.model)
    assert "starts from it already" in refusal(cohort, last.model)
    current = cohort.collecting(went_on)
    trainings.stop_training(training=went_on, actor="user:1", reason="the wrong settings")
    assert cohort.look(current).state == RoundState.ABORTED
    # Devices that joined may have sent, and give to no other plan on this base.
    assert "A training round has begun with it" in refusal(cohort, last.model)
    assert [row.id for row in starts.candidates(cohort.federation)] == [last.model.id]


def test_a_start_that_nobody_joined_is_free_again(cohort: Cohort, start: ModelVersion) -> None:
    training = go_on(cohort, start)
    cohort.open_round(training)
    trainings.stop_training(training=training, actor="user:1", reason="the wrong settings")
    assert refusal(cohort, start) == ""


def test_a_measurement_uses_no_version_up(cohort: Cohort) -> None:
    start = finished(cohort, evaluate_last=True)
    assert refusal(cohort, start) == ""


@pytest.mark.parametrize("take", [retire_model, revoke_model])
def test_a_version_out_of_use_is_no_start(cohort: Cohort, start: ModelVersion, take: Any) -> None:
    take(model_id=start.id, actor="user:1", reason="worse than it looked")
    assert "nothing new may begin with it" in refusal(cohort, start)


def test_a_version_withdrawn_before_the_first_round_ends_the_training(cohort: Cohort, start: ModelVersion) -> None:
    training = go_on(cohort, start)
    revoke_model(model_id=start.id, actor="user:1", reason="poisoned")
    assert trainings.advance_training(training.id) is None
    training.refresh_from_db()
    assert (training.state, training.ended_by) == (TrainingState.FAILED, "start_unusable")
    assert not training.rounds.exists()


def test_a_version_is_not_withdrawn_under_an_open_round(cohort: Cohort, start: ModelVersion) -> None:
    training = go_on(cohort, start)
    current = cohort.collecting(training)
    with pytest.raises(ModelUnusableError, match="stop that training first"):
        revoke_model(model_id=start.id, actor="user:1", reason="poisoned")
    for hospital in cohort.hospitals:
        hospital.contribute(current, publication.open_model(start))
    cohort.publish(current)
    revoke_model(model_id=start.id, actor="user:1", reason="poisoned")
    assert lineage_of(training.models.get())[1].state == "revoked"


def test_after_a_failed_round_the_same_training_begins_with_its_start_again(
    cohort: Cohort, start: ModelVersion
) -> None:
    training = go_on(cohort, start)
    failed = cohort.collecting(training)
    Round.objects.filter(pk=failed.pk).update(state_due_at=timezone.now() - timedelta(hours=1))
    assert coordination.advance_round(failed.id) == "fail"
    again = cohort.whole_round(training, publication.open_model(start))
    assert (again.number, again.base_model, again.state) == (2, start, RoundState.PUBLISHED)


def test_a_plan_goes_on_where_its_start_s_training_ended(cohort: Cohort) -> None:
    start = finished(cohort, k_patients=20, quorum=4)
    accept_suite(federation=cohort.federation, suite="high", actor="user:1")
    plan = plan_for({"job": "heart", "start_from": start.id}, cohort.federation)
    assert (plan.k_patients, plan.quorum, plan.suite) == (20, 4, "hybrid")
    refused: dict[str, dict[str, Any]] = {
        "k-minimum of 3 hospitals and 20 patients, and the plan's is lower": {"k_patients": 19},
        "made of sensitive data, and the plan is for routine": {"sensitivity": "routine"},
        "sealed with the suite 'hybrid', and the plan's is 'high'": {"suite": "high"},
    }
    for words, changes in refused.items():
        with pytest.raises(IncompatiblePlanError, match=words):
            go_on(cohort, start, **changes)
    assert not Training.objects.exclude(pk=start.training_id).exists()


def test_a_start_of_another_job_or_that_is_not_there_is_refused(cohort: Cohort, start: ModelVersion) -> None:
    plan = plan_for({"job": "thyroid", "start_from": start.id}, cohort.federation)
    with pytest.raises(IncompatiblePlanError, match="of the job 'heart', and the plan of 'thyroid'"):
        trainings.open_training(federation=cohort.federation, plan=plan, actor="user:1")
    with pytest.raises(NotFoundError):
        plan_for({"job": "heart", "start_from": uuid4()}, cohort.federation)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"weights_digest": bytes(32)}, IncompatiblePlanError),
        ({"training_id": str(uuid4())}, IncompatiblePlanError),
        ({"model_id": str(uuid4())}, NotFoundError),
    ],
)
def test_a_plan_that_names_its_start_wrongly_is_not_signed(
    cohort: Cohort, start: ModelVersion, changes: dict[str, Any], error: type[LatticewardError]
) -> None:
    named = starts.named(start)
    wrong = NamedVersion(**{name: changes.get(name, getattr(named, name)) for name in NamedVersion.__slots__})
    plan = plan_for({"job": "heart", "start_from": start.id}, cohort.federation)
    object.__setattr__(plan, "initial", wrong.to_initial())
    with pytest.raises(error):
        trainings.open_training(federation=cohort.federation, plan=plan, actor="user:1")


def refusal(cohort: Cohort, model: ModelVersion | None) -> str:
    """Why a training may not start there now, in words; empty if it may."""
    assert model is not None
    try:
        starts.require_start(plan_for({"job": "heart", "start_from": model.id}, cohort.federation))
    except ModelUnusableError as error:
        return str(error)
    return ""
