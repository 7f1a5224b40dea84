"""A round from draft to published, with everything that must then be true."""

import numpy as np
import pytest

from controlplane.audit.models import AuditEntry
from keys.selectors import server_verify_key
from latticeward.agent.models import open_model
from latticeward.crypto.signing import Purpose
from latticeward.errors import DecryptionError
from latticeward.lifecycle import ParticipantState, RoundState, TrainingState
from latticeward.messages import ModelManifest, RoundRecord
from latticeward.opening import codec_of
from latticeward.plan import RoundPlan
from latticeward.updates.tensors import FloatVector, weights_digest
from rounds import selectors
from rounds.models import Round
from rounds.services import coordination, intake, trainings
from rounds.services.opening import opening_of, reopen_submission
from rounds.storage import read_blob
from tests.rounds.cohort import Cohort, Hospital

pytestmark = pytest.mark.django_db


def test_a_round_is_published_with_a_signed_model_and_record(cohort: Cohort) -> None:
    training = cohort.train()
    published = cohort.whole_round(training)
    assert published.state == RoundState.PUBLISHED
    manifest = ModelManifest.verify(
        bytes(published.model.signed_manifest), key=server_verify_key(Purpose.MODEL_MANIFEST)
    )
    assert manifest.weights_digest == weights_digest(cohort.weights(published))
    record = RoundRecord.verify(bytes(published.signed_record), key=server_verify_key(Purpose.ROUND_RECORD))
    assert record.accepted == 4
    assert {row["outcome"] for row in record.participants} == {ParticipantState.ACCEPTED}
    assert record.weights_digest == manifest.weights_digest
    assert record.plan_digest == RoundPlan.from_bytes(bytes(training.plan)).digest


def test_the_model_is_the_weighted_mean_of_what_the_hospitals_sent(cohort: Cohort) -> None:
    training = cohort.train()
    current = cohort.collecting(training)
    plan = training.round_plan
    total, shares = np.zeros(plan.layout.size), 0.0
    for hospital in cohort.hospitals:
        envelope = hospital.prepare(current)
        submission = hospital.submit(current, envelope)
        decoded = codec_of(plan).decode_sum(reopen_submission(submission, opening_of(current)).vector)
        total += decoded.mean.astype(np.float64) * decoded.weight_share_sum
        shares += decoded.weight_share_sum
        intake.process_update(submission.id)
    published = cohort.publish(current)
    assert np.allclose(cohort.weights(published), total / shares, atol=1e-5)


def test_every_hospital_can_open_the_model_with_its_own_stanza_and_with_no_other(cohort: Cohort) -> None:
    published = cohort.whole_round(cohort.train())
    weights = cohort.weights(published)
    stanzas = {}
    for hospital in cohort.hospitals:
        found = selectors.manifest_for(published.model.id, hospital.device)
        assert found is not None
        stanzas[hospital.site] = found[1]
        assert np.array_equal(_open_at(hospital, published, found[1]), weights)
    with pytest.raises(DecryptionError):
        _open_at(cohort.hospitals[0], published, stanzas[cohort.hospitals[1].site])


def _open_at(hospital: Hospital, published: Round, stanza: bytes) -> FloatVector:
    return open_model(
        ModelManifest.verify(bytes(published.model.signed_manifest), key=server_verify_key(Purpose.MODEL_MANIFEST)),
        stanza=stanza,
        body=read_blob(published.model.body_blob),
        size=published.training.round_plan.layout.size,
        device_id=str(hospital.device.id),
        epoch=hospital.device.key_epoch,
        federation_id=str(published.training.federation_id),
        decapsulation_key=hospital.machine.keys.decapsulation,
    )


def test_the_metric_of_a_round_is_that_of_its_base_model(cohort: Cohort) -> None:
    training = cohort.train()
    first = cohort.whole_round(training)
    assert first.metric_value == pytest.approx(0.5)  # the zero start orders nobody
    second = cohort.whole_round(training, cohort.weights(first))
    assert second.metric_value is not None and second.metric_value > 0.7
    assert second.metric_support["hospitals"] == 4
    assert second.metric_support["patients"] > 250


def test_the_last_model_is_measured_by_a_round_without_training(cohort: Cohort) -> None:
    training = cohort.train(rounds=1)
    first = cohort.whole_round(training)
    measured = cohort.whole_round(training, cohort.weights(first))
    assert (measured.kind, measured.model) == ("evaluation", None)
    assert measured.metric_value is not None and measured.metric_value > 0.7
    assert trainings.advance_training(training.id) is None
    training.refresh_from_db()
    assert training.state == TrainingState.COMPLETED


def test_every_step_of_a_round_is_in_its_feed_in_order(cohort: Cohort) -> None:
    published = cohort.whole_round(cohort.train())
    entries = AuditEntry.objects.filter(feed=published.feed).order_by("feed_seq")
    events = [entry.event for entry in entries]
    assert [entry.feed_seq for entry in entries] == list(range(1, len(events) + 1))
    assert events[:2] == ["round.opened", "round.recruiting"]
    assert events.count("participant.joined") == events.count("update.received") == 4
    assert events.count("update.accepted") == 4
    assert events[-3:] == ["round.aggregating", "model.prepared", "round.published"]


def test_work_names_the_round_while_it_runs_and_the_model_when_it_is_published(cohort: Cohort) -> None:
    training = cohort.train()
    current = cohort.open_round(training)
    device = cohort.hospitals[0].device
    before = selectors.work_for(device)
    assert [(row["round"], row["participant"]) for row in before["rounds"]] == [(str(current.id), "invited")]
    assert before["token"] == selectors.work_for(device)["token"]
    for hospital in cohort.hospitals:
        hospital.join(current)
    assert selectors.work_for(device)["rounds"][0]["participant"] == "joined"
    assert selectors.work_for(device)["token"] == before["token"]  # its own step is no news to the device
    assert coordination.advance_round(current.id) == "begin_collecting"
    assert selectors.work_for(device)["token"] != before["token"]
