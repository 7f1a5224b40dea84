"""What the retirement of a suite means for trainings: nothing new is made in it, and old data still opens."""

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from devices import rotation, suites
from devices.models import SuitePolicy
from latticeward.errors import UnsupportedSuiteError
from rounds import selectors
from rounds.services import aggregation, coordination, publication, trainings
from tests.devices.renewing import renewed
from tests.rounds.cohort import Cohort
from tests.rounds.test_whole_round import _open_at

pytestmark = pytest.mark.django_db


def retire(cohort: Cohort) -> None:
    suites.accept_suite(federation=cohort.federation, suite="high", actor="user:1")
    rotation.retire_suite(
        federation=cohort.federation, suite="hybrid", retire_at=timezone.now() + timedelta(days=1), actor="user:1"
    )


def come_the_date() -> None:
    SuitePolicy.objects.filter(suite="hybrid").update(retire_at=timezone.now() - timedelta(seconds=1))


def test_a_device_with_keys_of_another_suite_is_not_invited(cohort: Cohort) -> None:
    retire(cohort)
    training = cohort.train(quorum=3)
    moved = cohort.hospitals[0]
    moved.machine = renewed(moved.machine, suite="high")
    opened = cohort.open_round(training)
    invited = set(opened.participants.values_list("device_id", flat=True))
    assert invited == {hospital.device.id for hospital in cohort.hospitals[1:]}


def test_after_the_date_there_is_no_plan_no_round_and_no_seal_in_the_suite_and_old_models_open(
    cohort: Cohort,
) -> None:
    training = cohort.train()
    published = cohort.whole_round(training)
    retire(cohort)
    come_the_date()
    with pytest.raises(UnsupportedSuiteError):
        cohort.train(suite="hybrid")
    assert trainings.advance_training(training.id) is None
    training.refresh_from_db()
    assert (training.state, training.ended_by) == ("failed", "suite_retired")
    assert publication.seal_for_newcomers(published.model) == 0
    hospital = cohort.hospitals[0]
    found = selectors.manifest_for(published.model.id, hospital.device)
    assert found is not None
    assert np.array_equal(_open_at(hospital, published, found[1]), cohort.weights(published))


def test_a_round_that_the_date_overtakes_ends_with_the_reason(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    retire(cohort)
    come_the_date()
    assert coordination.advance_round(current.id) == "begin_aggregating"
    assert not aggregation.aggregate_round(current.id)
    current = cohort.look(current)
    assert (current.state, current.failure_code) == ("failed", "unsupported_suite")


def test_a_dry_run_names_the_rounds_that_run_with_the_devices(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    devices = [hospital.device for hospital in cohort.hospitals[:2]]
    [row] = selectors.rounds_with(devices)
    assert (row["round"], row["devices"], row["suite"], row["state"]) == (current.id, 2, "hybrid", "collecting")
    assert selectors.rounds_with([]) == []
