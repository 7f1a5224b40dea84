"""What workers do with rounds. A task takes ids, calls one service, and enqueues the next step after its commit.

Everything here may run twice or be lost: services leave when the work is done, and ``sweep`` finds what was lost.
"""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from celery import Task, shared_task

from controlplane import idempotency
from latticeward.lifecycle import TrainingState
from rounds.models import Round, Training
from rounds.services import (
    aggregation,
    aliases,
    coordination,
    differences,
    doubt,
    exports,
    intake,
    integrity,
    merging,
    publication,
    reminders,
    retention,
    signing,
    starts,
    trainings,
    uploads,
)
from rounds.services.reminders import Step


@shared_task(acks_late=True)
def process_update(submission_id: str) -> None:
    round_id = intake.process_update(UUID(submission_id))
    if round_id and coordination.may_move(round_id):
        advance_round.delay(str(round_id))


@shared_task(acks_late=True)
def advance_round(round_id: str) -> None:
    match coordination.advance_round(UUID(round_id)):
        case "begin_aggregating":
            aggregate_round(round_id)  # of the same queue, so at once: a message would only cost its way
        case "fail":
            advance_training.delay(str(Round.objects.get(pk=round_id).training_id))
        case "begin_collecting" | None:
            publication.get_ready(UUID(round_id))


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
    if training_id := signing.publish_round(UUID(round_id)):
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


# What the sweep can send again; held equal to ``Step`` by a test.
STEPS: Final[Mapping[Step, Task]] = {
    Step.SIGN_TRAINING: sign_training,
    Step.SIGN_ROUND: sign_round,
    Step.PROCESS_UPDATE: process_update,
    Step.AGGREGATE_ROUND: aggregate_round,
    Step.MAKE_EXPORT: make_export,
    Step.COMPUTE_DIFFERENCE: compute_difference,
}


@shared_task
def sweep() -> None:
    """Send again what was lost, and move every round by its clock."""
    for step, subject in reminders.due_reminders():
        STEPS[step].delay(str(subject))
    for round_id in Round.objects.filter(state__in=trainings.OPEN_ROUND_STATES).values_list("id", flat=True):
        advance_round.delay(str(round_id))
    running = (TrainingState.SIGNING, TrainingState.RUNNING)  # one that nobody has signed in time fails
    for training_id in Training.objects.filter(state__in=running).values_list("id", flat=True):
        advance_training.delay(str(training_id))
    # Rounds come first: nothing that fails below may keep one from its end.
    doubt.mark_doubtful()
    aliases.expire_moves()
    exports.expire_exports()
    uploads.sweep_uploads()


@shared_task
def seal_for_newcomers() -> None:
    """Seal the newest models to devices that were activated since."""
    for training in Training.objects.filter(state=TrainingState.RUNNING).select_related("start_model__training"):
        if (base := starts.next_base(training)) is not None:
            publication.seal_for_newcomers(base)


@shared_task
def keep_house() -> None:
    """Destroy round keys after the recomputation window, sweep orphaned blobs, forget answers kept long enough.

    And tell of plans that somebody has changed.
    """
    idempotency.sweep()
    integrity.report_changed_plans()
    retention.destroy_round_keys()
    retention.sweep_orphaned_blobs()
