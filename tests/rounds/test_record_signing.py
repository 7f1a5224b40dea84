"""The authority signs what a worker has prepared only if it is that round's record and keeps the plan."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from latticeward.lifecycle import RoundState
from latticeward.messages import RoundRecord
from rounds.models import ModelVersion, Round
from rounds.services import aggregation, coordination, signing
from tests.rounds.cohort import Cohort

pytestmark = pytest.mark.django_db

OTHER = "11111111-1111-4111-8111-111111111111"
FORGED: dict[str, Callable[[RoundRecord], dict[str, Any]]] = {
    "another round": lambda record: {"round_id": OTHER},
    "another plan": lambda record: {"plan_digest": bytes(32)},
    "another model": lambda record: {"weights_digest": bytes(32)},
    "fewer updates than the quorum": lambda record: {"participants": record.participants[:2], "accepted": 2},
    "a count that is not that of its rows": lambda record: {"accepted": record.accepted + 1},
    "a metric of too few hospitals": lambda record: {"metric": {**dict(record.metric or {}), "hospitals": 1}},
    "a lower quorum": lambda record: {"quorum": 2},
}


@pytest.fixture
def prepared(cohort: Cohort) -> Round:
    current = cohort.collecting(cohort.train())
    for hospital in cohort.hospitals:
        hospital.contribute(current)
    assert coordination.advance_round(current.id) == "begin_aggregating"
    assert aggregation.aggregate_round(current.id)
    return cohort.look(current)


@pytest.mark.parametrize("what", FORGED)
def test_a_record_that_was_changed_after_it_was_prepared_is_not_signed(
    cohort: Cohort, prepared: Round, what: str
) -> None:
    record = RoundRecord.from_bytes(bytes(prepared.record))
    raw = replace(record, **FORGED[what](record)).to_bytes()
    Round.objects.filter(pk=prepared.pk).update(record=raw)
    assert signing.publish_round(prepared.id) == prepared.training_id
    ended = cohort.look(prepared)
    assert (ended.state, ended.failure_code, ended.signed_record) == (RoundState.FAILED, "record_refused", None)
    assert not ModelVersion.objects.filter(signed_manifest__isnull=False).exists()


def test_bytes_that_are_no_record_are_not_signed(cohort: Cohort, prepared: Round) -> None:
    Round.objects.filter(pk=prepared.pk).update(record=b"nonsense")
    signing.publish_round(prepared.id)
    assert cohort.look(prepared).failure_code == "record_refused"


def test_what_was_prepared_is_signed(cohort: Cohort, prepared: Round) -> None:
    signing.publish_round(prepared.id)
    assert cohort.look(prepared).state == RoundState.PUBLISHED
