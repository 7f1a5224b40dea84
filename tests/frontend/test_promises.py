"""A plan's promises in words."""

import pytest

from frontend.promises import say_plan
from latticeward.plan_parts import Budget, CohortRule, MetricRelease, StopRule
from tests.latticeward.agent.fakes import heart_plan


def test_the_default_plan_says_what_a_clinician_asks_first() -> None:
    said = dict(say_plan(heart_plan()))
    assert said["Smallest group"] == "3 hospitals and 10 patients: nothing of fewer is shown"
    assert said["Hospitals' own metrics"] == "stay at the hospitals"
    assert said["Ends"] == "after 15 rounds"
    assert said["Invited"] == "every active device, at most 16"


@pytest.mark.parametrize(
    ("changes", "name", "sentence"),
    [
        (
            {"stop": StopRule(patience=3, min_delta=0.001, target=0.9), "budget": Budget(seconds=7200)},
            "Ends",
            "after 15 rounds, or at AUC 0.900, or after 3 versions in a row that are not better by more than 0.001, "
            "or after 2 h",
        ),
        ({"budget": Budget(sent_bytes=2_500_000)}, "Ends", "after 15 rounds, or after 2.5 MB of updates"),
        ({"cohort": CohortRule(rule="sites", sites=("a", "b", "c"))}, "Invited", "the devices of a, b, c"),
        (
            {"cohort": CohortRule(rule="draw", size=5)},
            "Invited",
            "5 devices a round, by a draw that everybody can check",
        ),
        (
            {"release": MetricRelease(hospital_metrics=True, patients_per_class=20)},
            "Hospitals' own metrics",
            "are shown to all, from 20 held-out patients of each class on",
        ),
        ({"weight_rule": "equal"}, "Weights", "every hospital the same"),
    ],
)
def test_each_promise_has_its_sentence(changes: dict[str, object], name: str, sentence: str) -> None:
    assert dict(say_plan(heart_plan(**changes).validate()))[name] == sentence
