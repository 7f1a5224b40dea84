"""Which waiting submissions an intake worker takes up, for how long, and into which slot it adds them."""

from datetime import datetime, timedelta
from itertools import count
from typing import Final
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from controlplane.prepared import PreparedSelect, PreparedUpdate
from latticeward.lifecycle import ParticipantState
from rounds.models import Participant, Submission

# What one worker opens before it writes its partial: so many updates, or so many bytes of them and at least one. It
# bounds the worker's memory, to one vector beside the sum where models are large.
BATCH: Final = 16
BATCH_BYTES: Final = 64 * 1024 * 1024
# A worker that is silent for longer has died, and others take up what it had.
LEASE: Final = timedelta(seconds=15)

# What is undecided in the round that a submission belongs to, the first to come first.
_UNDECIDED: Final = PreparedSelect(
    lambda submission_id: (
        Submission.objects.filter(
            outcome="",
            participant__state=ParticipantState.SUBMITTED,
            participant__round_id=Participant.objects.filter(submissions=submission_id).values("round_id")[:1],
        )
        .order_by("received_at")
        .values_list("id", "size_bytes", "claimed_until", "slot")
    ),
    UUID,
)
_CLAIM: Final = PreparedUpdate(
    lambda chosen, claim, now, until, slot: (
        Submission.objects.filter(Q(claimed_until=None) | Q(claimed_until__lt=now), pk__in=chosen),
        {"claim": claim, "claimed_until": until, "slot": slot},
    ),
    list[UUID],
    UUID,
    datetime,
    datetime,
    int,
)
# With what intake looks at: whole rows would bring every signed byte of the round along.
_CLAIMED: Final = PreparedSelect(
    lambda claim: (
        Submission.objects.filter(claim=claim)
        .select_related("participant__round__training", "participant__device__site")
        .only(
            *("digest", "blob", "received_at", "stage_seconds", "participant__state", "participant__refusals"),
            *(
                f"participant__round__{name}"
                for name in ("base_model_digest", "wrapped_decapsulation_seed", "opened_at")
            ),
            *(f"participant__round__training__{name}" for name in ("plan", "plan_digest", "suite")),
            *("participant__device__key_epoch", "participant__device__site__name"),
        )
        .order_by("received_at")
    ),
    UUID,
)


def claim_waiting(submission_id: UUID, claim: UUID) -> tuple[list[Submission], int]:
    """Take waiting submissions of this one's round for this worker, for as long as the lease, and a slot of its own.

    Not more than memory was promised for. Two workers may choose the same submissions at the same moment: the second
    gets none, and the next message brings it back. They may choose the same slot: then the compare-and-swap makes one
    of them look again.
    """
    now = timezone.now()
    chosen: list[UUID] = []
    taken: set[int] = set()
    room = BATCH_BYTES
    for identity, size_bytes, claimed_until, slot in _UNDECIDED(submission_id):
        if claimed_until is not None and claimed_until >= now:
            taken.add(slot)
        elif not chosen or (len(chosen) < BATCH and room >= size_bytes):
            chosen.append(identity)
            room -= size_bytes
    slot = next(number for number in count() if number not in taken)
    if not chosen or not _CLAIM(chosen, claim, now, now + LEASE, slot):
        return [], slot
    return _CLAIMED(claim), slot
