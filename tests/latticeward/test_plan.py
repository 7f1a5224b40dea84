"""The plan: what it refuses, in which words, and that its bytes are all of it."""

from typing import Any

import pytest

from latticeward.agent.floor import Floor
from latticeward.errors import IncompatiblePlanError, MalformedMessageError, PlanBelowFloorError
from latticeward.plan import PARTS, RoundPlan
from latticeward.plan_parts import (
    SENSITIVITIES,
    Budget,
    CohortRule,
    MetricRelease,
    PrivacyBudget,
    StageSeconds,
    StopRule,
    StragglerRule,
)
from latticeward.starts import NamedVersion
from latticeward.updates.tensors import initial_vector
from tests.latticeward.agent.fakes import heart_plan

RELEASED = MetricRelease(hospital_metrics=True, patients_per_class=20)

NAMED = NamedVersion(
    model_id="a0000000-0000-4000-8000-000000000001",
    training_id="70000000-0000-4000-8000-000000000009",
    weights_digest=bytes(range(32)),
)

IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "is not known": {"protection": "hope"},
    "the aggregator 'median' is not known": {"aggregator": "median"},
    "the clip norm must be a positive": {"clip_norm": float("inf")},
    "the weight cap must be a positive": {"weight_cap": 0.0},
    "the weight rule 'loudest'": {"weight_rule": "loudest"},
    "a training has 1 to 10,000 rounds": {"rounds": 0},
    "the quorum must be at least 2": {"quorum": 1, "k_hospitals": 1},
    "the quorum cannot be larger than the cohort": {"quorum": 17},
    "cannot be larger than the quorum": {"k_hospitals": 4},
    "noise needs an aggregator": {"noise_multiplier": 1.0},
    "the metric 'f1' is not known": {"metric": "f1"},
    "every stage takes": {"stage_seconds": StageSeconds(collecting=0)},
    "the straggler rule 'carry'": {"stragglers": StragglerRule(rule="carry")},
    "waiting for stragglers takes": {"stragglers": StragglerRule(rule="wait")},
    "and refusing them none": {"stragglers": StragglerRule(seconds=5)},
    "the cohort rule 'friends'": {"cohort": CohortRule(rule="friends")},
    "names at least one hospital": {"cohort": CohortRule(rule="sites")},
    "no other rule names any": {"cohort": CohortRule(sites=("cleveland",))},
    "no other rule has one": {"cohort": CohortRule(size=3)},
    "the size of a draw": {"cohort": CohortRule(rule="draw", size=2)},
    "room for fewer patients than the k-minimum": {"weight_cap": 0.5},
    "fewer hospitals than the k-minimum": {"cohort": CohortRule(rule="sites", sites=("cleveland", "hungary"))},
    "a least improvement needs a patience": {"stop": StopRule(min_delta=0.01)},
    "the target lies above 0": {"stop": StopRule(target=1.5)},
    "the patience lies between": {"stop": StopRule(patience=-1)},
    "the budget of seconds": {"budget": Budget(seconds=0)},
    "the budget of bytes": {"budget": Budget(sent_bytes=0)},
    "an epsilon and a delta, or neither": {"privacy": PrivacyBudget(epsilon=1.0)},
    "a privacy budget needs noise": {"privacy": PrivacyBudget(epsilon=1.0, delta=1e-5)},
    "the unit of privacy 'planet'": {"privacy": PrivacyBudget(unit="planet")},
    "needs a minimum of patients": {"release": MetricRelease(hospital_metrics=True)},
    "the sensitivity 'boring' is not known": {"sensitivity": "boring"},
    "sensitive data need a k-minimum of 3 hospitals and 10 patients": {"k_patients": 9},
    "may not be sealed with the suite 'hybrid'": {"sensitivity": "highly-sensitive"},
    "at least 20 patients in each class": {"release": MetricRelease(hospital_metrics=True, patients_per_class=19)},
    "are never released": {
        "sensitivity": "highly-sensitive",
        "suite": "high",
        "release": RELEASED,
        "quorum": 4,
        "k_hospitals": 4,
        "k_patients": 20,
    },
    "does not start from a version of its own": {"initial": NAMED.to_initial(), "training_id": NAMED.training_id},
    "the fixed-point step would be too coarse": {"cohort_bound": 4096, "quorum": 3},
}


@pytest.mark.parametrize("reason", IMPOSSIBLE)
def test_an_impossible_mixture_is_refused_with_the_reason_in_words(reason: str) -> None:
    with pytest.raises(IncompatiblePlanError, match=reason):
        heart_plan(**IMPOSSIBLE[reason]).validate()


def _full() -> RoundPlan:
    return heart_plan(
        weight_rule="equal",
        sensitivity="routine",
        cohort=CohortRule(rule="sites", sites=("cleveland", "hungary", "switzerland")),
        stop=StopRule(patience=2, min_delta=0.001, target=0.9),
        budget=Budget(seconds=600, sent_bytes=10**9),
        release=RELEASED,
        stragglers=StragglerRule(rule="wait", seconds=60),
    ).validate()


def test_every_part_comes_back_from_the_bytes() -> None:
    plan = _full()
    again = RoundPlan.from_bytes(plan.to_bytes())
    for name in PARTS:
        assert getattr(again, name) == getattr(plan, name)
    assert again.to_bytes() == plan.to_bytes()
    assert again.digest == plan.digest != heart_plan().digest


def test_a_start_from_a_version_comes_back_from_the_bytes() -> None:
    plan = RoundPlan.from_bytes(heart_plan(initial=NAMED.to_initial()).validate().to_bytes())
    assert plan.start == NAMED
    with pytest.raises(IncompatiblePlanError, match="cannot be made from"):
        initial_vector(plan.layout, plan.initial)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": bytes(31)},
        {"digest": "00" * 32},
        {"model": "not-a-uuid"},
        {"model": NAMED.model_id.upper()},
        {"training": 7},
        {"more": 1},
        {"model": None},
    ],
    ids=str,
)
def test_a_start_in_another_form_is_refused(changes: dict[str, Any]) -> None:
    initial = {**NAMED.to_initial(), **changes}
    initial = {name: value for name, value in initial.items() if value is not None}
    with pytest.raises(IncompatiblePlanError, match="names its id, its training and its weights' digest"):
        heart_plan(initial=initial).validate()


@pytest.mark.parametrize("name", sorted(PARTS))
def test_a_part_with_an_unknown_or_missing_field_is_no_part(name: str) -> None:
    wire = PARTS[name]().to_wire()
    with pytest.raises(MalformedMessageError):
        PARTS[name].from_wire({**wire, "more": 1})
    wire.pop(next(iter(wire)))
    if wire:
        with pytest.raises(MalformedMessageError):
            PARTS[name].from_wire({"other": 1})


def test_a_target_written_as_a_whole_number_is_signed_as_a_number() -> None:
    assert RoundPlan.from_bytes(heart_plan(stop=StopRule(target=1)).to_bytes()).stop.target == 1.0


def _draw(plan_digest: bytes, base: bytes, size: int = 3) -> list[str]:
    candidates = [(f"device-{number}", f"site-{number}") for number in range(8)]
    rule = CohortRule(rule="draw", size=size)
    return rule.choose(candidates, bound=16, plan_digest=plan_digest, base_model_digest=base)


def test_a_draw_is_the_same_for_the_same_base_and_another_for_the_next() -> None:
    first = _draw(b"p" * 32, b"a" * 32)
    assert len(set(first)) == 3
    assert first == _draw(b"p" * 32, b"a" * 32)
    assert len({tuple(_draw(b"p" * 32, bytes([number]) * 32)) for number in range(20)}) > 10


def test_the_rule_of_sites_invites_these_and_the_rule_of_all_stops_at_the_bound() -> None:
    candidates = [("a", "north"), ("b", "south"), ("c", "north")]
    given = {"plan_digest": bytes(32), "base_model_digest": bytes(32)}
    assert CohortRule(rule="sites", sites=("north",)).choose(candidates, bound=9, **given) == ["a", "c"]
    assert CohortRule().choose(candidates, bound=2, **given) == ["a", "b"]


@pytest.mark.parametrize(
    ("floor", "reason"),
    [
        (Floor(), "shows each hospital's own metric"),
        (Floor(release_patients_min=21), "from 20 patients in each class on, and at least 21"),
        (Floor(release_patients_min=5, sensitivities=("sensitive",)), "it is made for routine data"),
    ],
)
def test_a_hospital_refuses_a_release_or_a_profile_below_its_floor(floor: Floor, reason: str) -> None:
    with pytest.raises(PlanBelowFloorError, match=reason):
        floor.require(_full())


def test_a_floor_that_allows_the_release_accepts_it() -> None:
    Floor(release_patients_min=20).require(_full())


def test_stricter_profiles_ask_for_more() -> None:
    routine, sensitive, highest = SENSITIVITIES.values()
    assert routine.k_hospitals < sensitive.k_hospitals < highest.k_hospitals
    assert routine.k_patients < sensitive.k_patients < highest.k_patients
