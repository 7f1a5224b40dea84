"""Nothing about fewer than k: not opened, not stored, not shown, not sent."""

import json
from typing import Any

import numpy as np
import pytest
from django.core import serializers as django_serializers

from controlplane.audit.models import AuditEntry
from latticeward.errors import CohortTooCloseError
from latticeward.lifecycle import ParticipantState, RoundState
from latticeward.messages import RoundRecord
from latticeward.updates.metrics import METRICS
from rounds.models import Participant, Round, Training
from rounds.serializers import round_as_json, training_as_json
from rounds.services import aggregation, coordination, signing
from rounds.services.cohorts import require_hiding
from rounds.services.opening import opening_of, reopen_submission
from rounds.services.recomputation import recompute_round
from tests.rounds.cohort import Cohort
from tests.rounds.test_dropouts import make_due

pytestmark = pytest.mark.django_db


def run(cohort: Cohort, members: list[int], **plan: Any) -> Round:
    """A training's first round with these hospitals only, as far as it gets."""
    current = cohort.collecting(cohort.train(**plan))
    for number in members:
        assert cohort.hospitals[number].contribute(current).outcome == "accepted"
    make_due(current)
    if coordination.advance_round(current.id) == "begin_aggregating" and aggregation.aggregate_round(current.id):
        signing.publish_round(current.id)
    return cohort.look(current)


def test_a_cohort_that_differs_by_one_hospital_from_an_earlier_one_on_the_same_base_is_not_opened(
    cohort: Cohort,
) -> None:
    assert run(cohort, [0, 1, 2]).state == RoundState.PUBLISHED
    second = run(cohort, [0, 1, 2, 3])
    assert (second.state, second.failure_code) == (RoundState.FAILED, "cohort_too_close")
    assert second.record is None and second.model is None and second.metric_value is None
    entry = AuditEntry.objects.get(event="round.failed", subject_id=str(second.id))
    assert entry.details["code"] == "cohort_too_close"


def test_of_two_trainings_on_one_base_the_higher_minimum_counts(cohort: Cohort) -> None:
    assert run(cohort, [0, 1, 2, 3]).state == RoundState.PUBLISHED
    # Two hospitals are enough for this plan, and the difference would be about two of those who were promised three.
    second = run(cohort, [0, 1], sensitivity="routine", quorum=2, k_hospitals=2)
    assert (second.state, second.failure_code) == (RoundState.FAILED, "cohort_too_close")


def test_a_changed_plan_of_an_earlier_training_counts_as_the_most_that_it_can_have_promised(cohort: Cohort) -> None:
    first = run(cohort, [0, 1, 2, 3])
    Training.objects.filter(pk=first.training_id).update(plan_digest=bytes(32))
    close = run(cohort, [0, 1], sensitivity="routine", quorum=2, k_hospitals=2)
    assert (close.state, close.failure_code) == (RoundState.FAILED, "cohort_too_close")
    assert run(cohort, [0, 1, 2, 3], rounds=3).state == RoundState.PUBLISHED  # its own training is not at fault


def test_the_same_cohort_may_give_to_the_same_base_again(cohort: Cohort) -> None:
    assert run(cohort, [0, 1, 2]).state == RoundState.PUBLISHED
    assert run(cohort, [0, 1, 2], rounds=3).state == RoundState.PUBLISHED


def test_of_two_cohorts_fixed_at_once_the_later_gives_way(cohort: Cohort) -> None:
    rounds = []
    for members in ([0, 1, 2], [0, 1, 3]):
        current = cohort.collecting(cohort.train())
        for number in members:
            cohort.hospitals[number].contribute(current)
        rounds.append(current)
    first, second = rounds
    make_due(first)
    assert coordination.advance_round(first.id) == "begin_aggregating"
    make_due(second)
    assert coordination.advance_round(second.id) == "fail"  # the first one is not published yet, and counts
    assert aggregation.aggregate_round(first.id)
    with pytest.raises(CohortTooCloseError):
        require_hiding(cohort.look(second), second.training.round_plan)


def test_the_minimum_is_asked_again_before_the_first_partial_is_read(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    assert coordination.advance_round(current.id) == "begin_aggregating"
    lost = current.participants.all()[:2]
    Participant.objects.filter(pk__in=[row.pk for row in lost]).update(state=ParticipantState.EXCLUDED)

    def read(*_: object) -> None:
        raise AssertionError("a partial was opened")

    monkeypatch.setattr(aggregation, "load_partial", read)
    assert not aggregation.aggregate_round(current.id)
    assert cohort.look(current).failure_code == "quorum_not_met"


def test_a_pooled_value_of_too_few_patients_is_in_no_table_and_no_message(cohort: Cohort) -> None:
    current = run(cohort, [0, 1, 2, 3], k_patients=1_000, weight_rule="equal")
    assert current.state == RoundState.PUBLISHED
    assert current.metric_value is None and current.metric_support is None
    assert RoundRecord.from_bytes(bytes(current.record)).metric is None
    assert training_as_json(current.training)["metrics"] == []
    told = [entry.details.get("metric") for entry in AuditEntry.objects.filter(event="round.published")]
    assert told == [{"name": "auc", "value": None}]


def test_a_model_of_too_few_patients_is_not_made(cohort: Cohort) -> None:
    current = run(cohort, [0, 1, 2, 3], k_patients=1_000)
    assert (current.state, current.failure_code, current.model) == (RoundState.FAILED, "k_minimum_not_met", None)


def test_a_hospital_s_own_metric_is_nowhere_unless_the_plan_releases_it(cohort: Cohort) -> None:
    training = cohort.train()
    first = cohort.whole_round(training)
    second = cohort.whole_round(training, cohort.weights(first))
    own = [_own_value(cohort, second, number) for number in range(4)]
    assert {row.metric for row in second.participants.all()} == {None}
    stored = _everything_told(second)
    assert not [value for value in own if value is not None and f"{value:.6f}"[:8] in stored]


def test_a_released_metric_is_the_hospital_s_and_obeys_its_own_minimum(cohort: Cohort) -> None:
    release = {"hospital_metrics": True, "patients_per_class": 20}
    training = cohort.train(release=release)
    first = cohort.whole_round(training)
    second = cohort.whole_round(training, cohort.weights(first))
    recompute_round(second.id)  # an auditor finds the same values in the stored envelopes
    record = RoundRecord.from_bytes(bytes(second.record))
    shown = {row["device_id"]: row["metric"] for row in record.participants}
    values = [shown[str(hospital.device.id)] for hospital in cohort.hospitals]
    # Cleveland and Hungary have enough patients of each class; Switzerland and the VA have too few healthy ones.
    # What is left beside the pooled value must be of three hospitals, so the value of the fewer patients is held back.
    assert [value is not None for value in values] == [True, False, False, False]
    assert values[0]["value"] == pytest.approx(_own_value(cohort, second, 0))
    told = {row["site"]: row["metric"] for row in round_as_json(second)["participants"]}
    assert told["cleveland"]["value"] == values[0]["value"] and told["switzerland"] is None


def _own_value(cohort: Cohort, current: Round, number: int) -> float | None:
    submission = current.participants.get(device=cohort.hospitals[number].device).submissions.get()
    plan = current.training.round_plan
    counts = reopen_submission(submission, opening_of(current)).vector[-plan.metric_size :].astype(np.int64)
    return METRICS[plan.metric].summarise(counts).value


def _everything_told(current: Round) -> str:
    rows = [*Round.objects.all(), *Participant.objects.all(), *AuditEntry.objects.all()]
    dump = django_serializers.serialize("json", rows)
    return dump + json.dumps([round_as_json(current), training_as_json(current.training)], default=str)
