"""Which messages to send again: one that was lost must be made up for, and one that only waits must not be doubled.

The sweep looks every two seconds at everything that waits for a worker. Before its step is overdue nothing is sent: the
first message is most likely in a queue. From then on each step is reminded of at growing intervals, so that a queue
that is long stays as long as its work, and the third message in a row to be lost is still made up for in a minute. A
step that a worker has claimed is not overdue before the lease ends. A reminder goes when its step waits no longer.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from django.utils import timezone

from latticeward.lifecycle import ModelExportState, ParticipantState, RoundState, TrainingState
from rounds.models import ModelDifference, ModelExport, Reminder, Round, Submission, Training

logger = logging.getLogger(__name__)

# A message younger than this is most likely under way.
PATIENCE: Final = timedelta(seconds=4)
# How long after each reminder the next one is sent; the last interval repeats.
INTERVALS: Final = (timedelta(seconds=6), timedelta(seconds=12))
# One sweep sends no more than this, those that wait the longest first: a worker takes up many with one message.
MOST_AT_ONCE: Final = 256


class Step(StrEnum):
    """Work that waits for a worker, named as the task that does it."""

    SIGN_TRAINING = "sign_training"
    SIGN_ROUND = "sign_round"
    PROCESS_UPDATE = "process_update"
    AGGREGATE_ROUND = "aggregate_round"
    MAKE_EXPORT = "make_export"
    COMPUTE_DIFFERENCE = "compute_difference"


def due_reminders() -> list[tuple[Step, UUID]]:
    """What to send a message for again now; asked again at once, nothing."""
    now = timezone.now()
    waiting = _overdue(now)
    known = {(row.step, row.subject): row for row in Reminder.objects.all()}
    if strange := {step for step, _ in known} - set(Step):
        # Written by a later version, which makes them anew: they only say how often a message was sent.
        logger.warning("reminders of unknown steps are dropped: %s", ", ".join(sorted(strange)))
    done = [row.pk for key, row in known.items() if key not in waiting]
    if done:
        Reminder.objects.filter(pk__in=done).delete()
    due = [key for key in waiting if key not in known or known[key].next_at <= now]
    due = sorted(due, key=waiting.__getitem__)[:MOST_AT_ONCE]
    sent = {key: known[key].sent if key in known else 0 for key in due}
    Reminder.objects.bulk_create(
        [
            Reminder(step=step, subject=subject, sent=before + 1, next_at=now + INTERVALS[min(before, 1)])
            for (step, subject), before in sent.items()
        ],
        update_conflicts=True,
        unique_fields=["step", "subject"],
        update_fields=["sent", "next_at"],
    )
    return due


def _overdue(now: datetime) -> Mapping[tuple[Step, UUID], datetime]:
    """Every step that is overdue, and since when."""
    before = now - PATIENCE
    submissions = Submission.objects.filter(
        outcome="",
        received_at__lt=before,
        participant__state=ParticipantState.SUBMITTED,
        participant__round__state=RoundState.COLLECTING,
    ).exclude(claimed_until__gte=now)
    closed = Round.objects.filter(state=RoundState.AGGREGATING, closed_at__lt=before).exclude(claimed_until__gte=now)
    trainings = Training.objects.filter(state=TrainingState.SIGNING, created_at__lt=before)
    opened = Round.objects.filter(state=RoundState.SIGNING, opened_at__lt=before)
    exports = ModelExport.objects.filter(state=ModelExportState.REQUESTED, requested_at__lt=before)
    differences = ModelDifference.objects.filter(computed_at__isnull=True, requested_at__lt=before)
    rows = {
        Step.SIGN_TRAINING: trainings.values_list("id", "created_at"),
        Step.SIGN_ROUND: opened.values_list("id", "opened_at"),
        Step.PROCESS_UPDATE: submissions.values_list("id", "received_at"),
        Step.AGGREGATE_ROUND: closed.values_list("id", "closed_at"),
        Step.MAKE_EXPORT: exports.values_list("id", "requested_at"),
        Step.COMPUTE_DIFFERENCE: differences.values_list("id", "requested_at"),
    }
    # A time that is null was not compared, so it is in no row; the columns can be null all the same.
    return {(step, subject): since for step, found in rows.items() for subject, since in found if since is not None}
