"""A metric tells of no group below the k-minimum: not by who has no test patients, and not by what is subtracted."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from latticeward.errors import LedgerError, RecomputationError
from latticeward.lifecycle import RoundState
from latticeward.messages import RoundRecord
from latticeward.opening import codec_of
from latticeward.plan import RoundPlan
from latticeward.plan_parts import MetricRelease
from latticeward.records import require_promises
from latticeward.updates.metrics import METRICS
from rounds.models import Contribution, Participant, Round
from rounds.serializers import round_as_json
from rounds.services import aggregation, coordination, intake, signing, trainings
from rounds.services.metrics import OwnMetrics, shown_beside
from rounds.services.plans import plan_for
from rounds.services.recomputation import recompute_round
from tests.latticeward.agent.fakes import heart_plan
from tests.rounds.cohort import Cohort
from tests.rounds.test_dishonest_device import sealed
from tests.rounds.test_dropouts import make_due

pytestmark = pytest.mark.django_db


def measured(cohort: Cohort, patients: list[int], **overrides: Any) -> Round:
    """A round measured by accuracy in which each hospital in turn has so many test patients; -1 sends nothing."""
    values = plan_for({"job": "heart", "plan": overrides}, cohort.federation)
    plan = replace(values, metric="accuracy", metric_size=METRICS["accuracy"].size)
    training = trainings.open_training(federation=cohort.federation, plan=plan, actor="user:1")
    trainings.sign_training(training.id)
    current = cohort.collecting(training)
    codec = codec_of(plan)
    for hospital, total in zip(cohort.hospitals, patients, strict=True):
        if total < 0:
            continue
        vector = np.zeros(codec.length, dtype=codec.dtype)
        vector[codec.size] = round(codec.weight_unit)
        vector[codec.size + 1 :] = total // 2, total
        submission = hospital.submit(current, sealed(current, hospital, vector.tobytes()))
        intake.process_update(submission.id)
        submission.refresh_from_db()
        assert submission.outcome == "accepted"
    make_due(current)
    if coordination.advance_round(current.id) == "begin_aggregating" and aggregation.aggregate_round(current.id):
        signing.publish_round(current.id)
    current = cohort.look(current)
    assert current.state == RoundState.PUBLISHED, current.failure_code
    assert recompute_round(current.id).updates == sum(total >= 0 for total in patients)
    return current


def record_of(current: Round) -> RoundRecord:
    return RoundRecord.from_bytes(bytes(current.record))


def test_a_hospital_without_test_patients_does_not_count_for_the_metric(cohort: Cohort) -> None:
    enough = measured(cohort, [40, 40, 40, 0])
    assert record_of(enough).metric == {"name": "accuracy", "value": 0.5, "hospitals": 3, "patients": 120}
    assert enough.metric_support == {"hospitals": 3, "patients": 120}
    require_promises(record_of(enough), enough.training.round_plan)


def test_too_few_hospitals_with_test_patients_show_no_metric_however_many_sent_updates(cohort: Cohort) -> None:
    current = measured(cohort, [60, 60, 0, 0])
    assert current.model is not None  # the model is of four hospitals
    assert (current.metric_value, record_of(current).metric) == (None, None)


def test_two_cohorts_whose_metrics_differ_by_one_hospital_do_not_both_show_theirs(cohort: Cohort) -> None:
    """All four send updates both times, so the sums are of one cohort; but one of them measures only the second."""
    first, second = measured(cohort, [40, 40, 40, 0]), measured(cohort, [40, 40, 40, 40])
    assert first.metric_value is not None and second.metric_value is None
    again = measured(cohort, [40, 40, 40, 0])
    assert again.metric_value is None  # it is as far from the second as the first was: the later one gives way


def test_an_auditor_finds_that_a_hospital_was_counted_for_the_metric_that_has_no_patients(cohort: Cohort) -> None:
    current = measured(cohort, [60, 60, 60, 0])
    Contribution.objects.filter(partial__round=current).update(measures=True)
    with pytest.raises(RecomputationError, match="who counts for the metric"):
        recompute_round(current.id)


RELEASED = {"release": {"hospital_metrics": True, "patients_per_class": 20}}


def shown(current: Round) -> list[int]:
    """Of the hospitals in order of their patients, those whose own metric the record shows."""
    told = [row["metric"]["patients"] for row in record_of(current).participants if row["metric"]]
    assert told == [
        row["metric"]["patients"]
        for row in sorted(round_as_json(current)["participants"], key=lambda row: str(row["device"]))
        if row["metric"]
    ]
    assert len(told) == Participant.objects.filter(round=current, metric__isnull=False).count()
    require_promises(record_of(current), current.training.round_plan)
    return sorted(told)


def test_what_is_left_when_own_metrics_are_subtracted_is_of_nobody_or_of_k_hospitals(cohort: Cohort) -> None:
    assert shown(measured(cohort, [50, 40, 30, 60], **RELEASED)) == [30, 40, 50, 60]  # nobody is left
    # The fourth is below its own minimum; with it the two of the fewest patients are not shown, so that three are left.
    assert shown(measured(cohort, [50, 40, 30, 10], **RELEASED)) == [50]


def test_without_a_pooled_metric_there_is_nothing_to_subtract_from(cohort: Cohort) -> None:
    current = measured(cohort, [50, 40, 0, 0], **RELEASED)
    assert current.metric_value is None
    assert shown(current) == [40, 50]


def plan_of(k_patients: int = 10) -> RoundPlan:
    release = MetricRelease(hospital_metrics=True, patients_per_class=20)
    return heart_plan(release=release, k_hospitals=3, k_patients=k_patients)


def own_metrics(*patients: int, sites: list[UUID] | None = None) -> tuple[list[UUID], OwnMetrics, dict[str, Any]]:
    """Own metrics in this order; below 20 patients there is none."""
    devices = [UUID(int=number) for number in range(len(patients))]
    own = {
        device: (site, {"patients": count} if count >= 20 else None)
        for device, site, count in zip(devices, sites or devices, patients, strict=True)
    }
    return devices, own, {"patients": sum(patients)}


def test_patients_of_those_left_keep_the_minimum_too() -> None:
    devices, own, pooled = own_metrics(50, 40, 3, 3, 3)
    assert shown_beside(plan_of(k_patients=9), own, pooled) == set(devices[:2])
    assert shown_beside(plan_of(k_patients=10), own, pooled) == set(devices[:1])
    assert shown_beside(plan_of(k_patients=1000), own, pooled) == set()


def test_two_machines_of_one_hospital_are_one_of_those_left() -> None:
    one = uuid4()
    _, own, pooled = own_metrics(80, 70, 60, 15, 15, sites=[uuid4(), uuid4(), uuid4(), one, one])
    assert len(shown_beside(plan_of(), own, pooled)) == 1


def test_a_record_that_shows_too_many_own_metrics_breaks_its_plan(cohort: Cohort) -> None:
    current = measured(cohort, [50, 40, 30, 10], **RELEASED)
    record, plan = record_of(current), current.training.round_plan
    rows = list(record.participants)
    for index in [index for index, row in enumerate(rows) if row["metric"] is None][:2]:
        rows[index] = {**rows[index], "metric": {"name": "accuracy", "value": 0.5, "patients": 40}}
    with pytest.raises(LedgerError, match="too few others"):
        require_promises(replace(record, participants=tuple(rows)), plan)
