"""What workers do with rounds. A task takes ids, calls one service, and enqueues the next step after its commit.

Everything here may run twice or be lost: services leave when the work is done, and ``sweep`` finds what was lost.
"""

from datetime import timedelta
from uuid import UUID

from celery import shared_task
from django.db.models import F
from django.utils import timezone

from controlplane import idempotency
from latticeward.lifecycle import ModelExportState, ParticipantState, RoundState, TrainingState
from rounds.models import ModelDifference, ModelExport, Round, Submission, Training
from rounds.services import (
    aggregation,
    aliases,
    coordination,
    differences,
    doubt,
    exports,
    intake,
    merging,
    publication,
    retention,
    trainings,
    uploads,
)


@shared_task(acks_late=True)
def process_update(submission_id: str) -> None:
    if round_id := intake.process_update(UUID(submission_id)):
        advance_round.delay(str(round_id))


@shared_task(acks_late=True)
def advance_round(round_id: str) -> None:
    match coordination.advance_round(UUID(round_id)):
        case "begin_aggregating":
            aggregate_round(round_id)  # of the same queue, so at once: a message would only cost its way
        case "fail":
            advance_training.delay(str(Round.objects.get(pk=round_id).training_id))


@shared_task(acks_late=True)
def aggregate_round(round_id: str) -> None:
    if groups := merging.groups_to_merge(UUID(round_id)):
        for slots in groups:
            merge_partials.delay(round_id, slots)
    elif aggregation.aggregate_round(UUID(round_id)):
        publish_round.delay(round_id)


@shared_task(acks_late=True)
def merge_partials(round_id: str, slots: list[int]) -> None:
    before = merging.groups_to_merge(UUID(round_id))
    merging.merge_partials(UUID(round_id), slots)
    # Whoever ends a level goes on; of two that end it together the second finds the round claimed.
    if not any(group in before for group in merging.groups_to_merge(UUID(round_id))):
        aggregate_round.delay(round_id)


@shared_task(acks_late=True)
def publish_round(round_id: str) -> None:
    if training_id := aggregation.publish_round(UUID(round_id)):
        advance_training.delay(str(training_id))


@shared_task(acks_late=True)
def advance_training(training_id: str) -> None:
    if opened := trainings.advance_training(UUID(training_id)):
        sign_round.delay(str(opened.id))


@shared_task(acks_late=True)
def sign_training(training_id: str) -> None:
    trainings.sign_training(UUID(training_id))
    advance_training.delay(training_id)


@shared_task(acks_late=True)
def sign_round(round_id: str) -> None:
    coordination.sign_round(UUID(round_id))


@shared_task(acks_late=True)
def make_export(export_id: str) -> None:
    exports.make_export(UUID(export_id))


@shared_task(acks_late=True)
def compute_difference(difference_id: str) -> None:
    differences.compute_difference(UUID(difference_id))


@shared_task
def sweep() -> None:
    """Move every round by its clock and enqueue again what a crash left behind."""
    # What is younger than this is most likely under way.
    before = timezone.now() - timedelta(seconds=3)
    waiting = Submission.objects.filter(
        outcome="",
        received_at__lt=before,
        participant__state=ParticipantState.SUBMITTED,
        participant__round__state=RoundState.COLLECTING,
    ).exclude(claimed_until__gte=timezone.now())
    for submission_id in waiting.values_list("id", flat=True):
        process_update.delay(str(submission_id))
    open_rounds = Round.objects.filter(state__in=trainings.OPEN_ROUND_STATES)
    found = open_rounds.values_list("id", "state", "closed_at", "claimed_until")
    for round_id, state, closed_at, claimed_until in found:
        if state == RoundState.SIGNING:
            sign_round.delay(str(round_id))
        elif state == RoundState.AGGREGATING and closed_at and max(closed_at, claimed_until or closed_at) < before:
            aggregate_round.delay(str(round_id))
        advance_round.delay(str(round_id))
    for training_id in Training.objects.filter(state=TrainingState.SIGNING).values_list("id", flat=True):
        sign_training.delay(str(training_id))
        advance_training.delay(str(training_id))  # fails it when nobody has signed in time
    for training_id in Training.objects.filter(state=TrainingState.RUNNING).values_list("id", flat=True):
        advance_training.delay(str(training_id))
    # Rounds come first: nothing that fails below may keep one from its end.
    doubt.mark_doubtful()
    aliases.expire_moves()
    exports.expire_exports()
    asked = ModelExport.objects.filter(state=ModelExportState.REQUESTED, requested_at__lt=before)
    for export_id in asked.values_list("id", flat=True):
        make_export.delay(str(export_id))
    unanswered = ModelDifference.objects.filter(computed_at__isnull=True, requested_at__lt=before)
    for difference_id in unanswered.values_list("id", flat=True):
        compute_difference.delay(str(difference_id))
    uploads.sweep_uploads()


@shared_task
def seal_for_newcomers() -> None:
    """Seal the newest models to devices that were activated since."""
    newest = Training.objects.filter(state=TrainingState.RUNNING, models__signed_manifest__isnull=False)
    for training in newest.distinct():
        signed = training.models.filter(signed_manifest__isnull=False)
        publication.seal_for_newcomers(signed.order_by(F("number").desc())[0])


@shared_task
def keep_house() -> None:
    """Destroy round keys after the recomputation window, sweep orphaned blobs, forget answers kept long enough."""
    idempotency.sweep()
    retention.destroy_round_keys()
    retention.sweep_orphaned_blobs()
