"""A published round can be worked out again from its envelopes, to the same bits; whatever was changed is found."""

from datetime import timedelta

import pytest
from django.utils import timezone

from devices.services import suspend_device
from keys.services import sign_with
from latticeward.crypto.signing import Purpose
from latticeward.errors import KeyUsageError, NotFoundError, RecomputationError
from latticeward.messages import ModelManifest
from rounds.models import Contribution, ModelVersion, Partial, Round
from rounds.services import coordination
from rounds.services.recomputation import recompute_round
from rounds.services.retention import RECOMPUTATION_WINDOW, destroy_round_keys
from tests.rounds.cohort import Cohort

pytestmark = pytest.mark.django_db


def test_rounds_and_the_measurement_come_to_the_same(cohort: Cohort) -> None:
    training = cohort.train(rounds=2, server_optimiser={"name": "fedadam", "learning_rate": 0.05})
    first = cohort.whole_round(training)
    second = cohort.whole_round(training, cohort.weights(first))
    measured = cohort.whole_round(training, cohort.weights(second))
    for published in (first, second, measured):
        done = recompute_round(published.id)
        assert done.updates == 4
        assert done.weights_digest == (bytes(published.model.weights_digest) if published.model else None)


def test_a_round_with_an_exclusion_and_a_drop_out_comes_to_the_same(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train(quorum=2, k_hospitals=2, sensitivity="routine"))
    for hospital in cohort.hospitals[:3]:
        hospital.contribute(current)
    suspend_device(device_id=cohort.hospitals[0].device.id, actor="user:1", why="lost")
    Round.objects.filter(pk=current.pk).update(state_due_at=timezone.now() - timedelta(seconds=1))
    published = cohort.publish(current)
    assert recompute_round(published.id).updates == 2


def test_a_model_that_does_not_follow_is_found_even_if_it_is_signed(cohort: Cohort) -> None:
    published = cohort.whole_round(cohort.train())
    manifest = ModelManifest.from_bytes(bytes(published.model.manifest))
    forged = {name: getattr(manifest, name) for name in ModelManifest.__slots__} | {"weights_digest": bytes(32)}
    signed = sign_with(Purpose.MODEL_MANIFEST, ModelManifest(**forged).to_bytes())
    ModelVersion.objects.filter(pk=published.model.pk).update(signed_manifest=signed)
    with pytest.raises(RecomputationError, match="model does not follow"):
        recompute_round(published.id)


def test_a_contribution_that_was_removed_is_found(cohort: Cohort) -> None:
    published = cohort.whole_round(cohort.train())
    Contribution.objects.filter(partial__round=published)[0].delete()
    with pytest.raises(RecomputationError, match="other submissions"):
        recompute_round(published.id)


def test_another_salt_is_found(cohort: Cohort) -> None:
    published = cohort.whole_round(cohort.train())
    Partial.objects.filter(round=published).update(commitment_salt=bytes(32))
    with pytest.raises(RecomputationError, match="commits to"):
        recompute_round(published.id)


def test_after_the_window_the_key_is_gone_and_the_answer_says_so(cohort: Cohort) -> None:
    published = cohort.whole_round(cohort.train())
    late = timezone.now() - RECOMPUTATION_WINDOW - timedelta(minutes=1)
    Round.objects.filter(pk=published.pk).update(closed_at=late)
    assert destroy_round_keys() == 1
    with pytest.raises(KeyUsageError):
        recompute_round(published.id)


def test_a_round_that_is_not_published_cannot_be_asked_for(cohort: Cohort) -> None:
    current = cohort.collecting(cohort.train())
    assert coordination.advance_round(current.id) is None
    with pytest.raises(NotFoundError):
        recompute_round(current.id)
