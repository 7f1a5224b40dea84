"""How a series of rounds ends: by which rule, said where, and with the best version remembered."""

from typing import Any

import pytest

from controlplane.audit.models import AuditEntry
from latticeward.lifecycle import TrainingState
from latticeward.plan_parts import Budget, StopRule
from rounds.models import Training
from rounds.policy import NextStep, Series, best_of, next_step
from rounds.serializers import training_as_json
from rounds.services import trainings
from tests.latticeward.agent.fakes import heart_plan
from tests.rounds.cohort import Cohort


def step(values: list[float], *, evaluated: bool = False, seconds: float = 0, sent: int = 0, **plan: Any) -> NextStep:
    series = Series(
        published=len(values),
        evaluated=evaluated,
        values=tuple(enumerate(values)),
        seconds=seconds,
        sent_bytes=sent,
    )
    return next_step(heart_plan(**plan), series)


def test_a_training_goes_on_until_its_rounds_are_run_and_then_measures() -> None:
    assert step([0.5] * 14) == NextStep("training")
    assert step([0.5] * 15) == NextStep("evaluation")
    assert step([0.5] * 15, evaluated=True) == NextStep("complete", "rounds")
    assert step([0.5] * 15, evaluate_last=False) == NextStep("complete", "rounds")


def test_a_version_at_the_target_ends_the_training() -> None:
    target = StopRule(target=0.8)
    assert step([0.5, 0.79], stop=target) == NextStep("training")
    assert step([0.5, 0.8, 0.7], stop=target) == NextStep("evaluation")
    assert step([0.5, 0.8], evaluated=True, stop=target) == NextStep("complete", "target")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, 0.6, 0.6], "training"),
        ([0.5, 0.6, 0.6, 0.605], "evaluation"),
        ([0.5, 0.6, 0.6, 0.62], "training"),
        ([0.5, 0.6, 0.55, 0.62, 0.6], "training"),
    ],
)
def test_patience_counts_versions_that_are_no_new_best_by_the_least_improvement(values: list[float], kind: str) -> None:
    assert step(values, stop=StopRule(patience=2, min_delta=0.01)).kind == kind


def test_a_small_gain_each_time_does_not_move_the_mark_away() -> None:
    # Each step is below the least improvement, their sum is not: the mark stays where the last best was.
    assert step([0.5, 0.506, 0.512], stop=StopRule(patience=2, min_delta=0.01)).kind == "training"


def test_versions_below_k_have_no_value_and_cost_no_patience() -> None:
    series = Series(published=9, evaluated=False, values=((0, 0.5),), seconds=0, sent_bytes=0)
    assert next_step(heart_plan(stop=StopRule(patience=1)), series).kind == "training"


def test_a_spent_budget_ends_the_training_without_another_round() -> None:
    budget = Budget(seconds=60, sent_bytes=1000)
    assert step([0.5], seconds=59, sent=999, budget=budget).kind == "training"
    assert step([0.5], seconds=60, budget=budget) == NextStep("complete", "budget_seconds")
    assert step([0.5], sent=1000, budget=budget) == NextStep("complete", "budget_bytes")


def test_the_best_of_equals_is_the_first() -> None:
    assert best_of([(0, 0.5), (1, 0.9), (2, 0.9)]) == (1, 0.9)
    assert best_of([]) is None


@pytest.mark.django_db
def test_a_training_that_reaches_its_target_ends_early_and_says_so_everywhere(cohort: Cohort) -> None:
    training = cohort.train(stop={"target": 0.8})
    base = None
    for _ in range(3):
        published = cohort.whole_round(training, base)
        base = cohort.weights(published) if published.model else base
        if published.kind == "evaluation":
            break
    assert trainings.advance_training(training.id) is None
    training = Training.objects.get(pk=training.pk)
    assert (training.state, training.ended_by) == (TrainingState.COMPLETED, "target")
    shown = training_as_json(training)
    assert shown["ended_by"] == "target"
    assert shown["rounds_done"] < shown["rounds_max"]
    assert shown["best"]["value"] == max(row["value"] for row in shown["metrics"]) >= 0.8
    entry = AuditEntry.objects.get(event="training.completed")
    assert entry.details["rule"] == "target"
    assert entry.details["best"] == shown["best"]


@pytest.mark.django_db
def test_the_bytes_that_devices_sent_are_the_budget_s_bytes(cohort: Cohort) -> None:
    training = cohort.train(budget={"sent_bytes": 10_000})
    cohort.whole_round(training)
    assert trainings.advance_training(training.id) is None
    training.refresh_from_db()
    assert (training.state, training.ended_by) == (TrainingState.COMPLETED, "budget_bytes")


@pytest.mark.django_db
def test_the_cohort_rule_decides_who_is_invited(cohort: Cohort) -> None:
    sites = ["cleveland", "hungary", "switzerland"]
    opened = cohort.open_round(cohort.train(cohort={"rule": "sites", "sites": sites}))
    assert sorted(row.device.site.slug for row in opened.participants.select_related("device__site")) == sites
    drawn = cohort.open_round(cohort.train(cohort={"rule": "draw", "size": 3}))
    assert drawn.participants.count() == 3
