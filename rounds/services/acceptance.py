"""Deciding what has been opened: a contribution is added to a partial sum and accepted, or refused with a code.

Accepted means in exactly one partial. The partial's new version is written to storage first; the transaction that names
it also moves the participants and adds the members' rows, so a crash between the two leaves an orphan and nothing else.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Coalesce, Greatest

from controlplane.prepared import PreparedSelect, PreparedUpdate, insert_rows, update_rows
from controlplane.transitions import apply_transition, apply_transitions
from latticeward.errors import NotFoundError, StaleStateError
from latticeward.lifecycle import PARTICIPANT, DeviceState, ParticipantState, RoundState
from latticeward.opening import OpenedContribution, codec_of
from latticeward.plan import RoundPlan
from latticeward.updates.ring import RingVector, accumulate
from rounds.models import Contribution, Partial, Participant, Round, Submission
from rounds.services.erasure import erase_after_commit
from rounds.services.metrics import hospital_metric, measures
from rounds.services.partials import (
    discard,
    forget_replaced,
    load_partial,
    members_of,
    prepare_partial,
    swap_partial,
)

OpenedSubmission = tuple[Submission, OpenedContribution]
FoundSum = tuple[Partial | None, Callable[[], RingVector]]
REFUSALS_ALLOWED: Final = 3


_PARTIAL: Final = PreparedSelect(lambda round_id, slot: Partial.objects.filter(round_id=round_id, slot=slot), UUID, int)
_LOCK: Final = PreparedUpdate(
    lambda round_id, last: (
        Round.objects.filter(pk=round_id),
        # SQLite has no greatest of nothing and something.
        {"last_update_at": Greatest(Coalesce("last_update_at", last), last)},
    ),
    UUID,
    datetime,
)
_KEY_EPOCHS: Final = PreparedSelect(
    lambda ids: Submission.objects.filter(
        pk__in=ids,
        outcome="",
        participant__state=ParticipantState.SUBMITTED,
        participant__round__state=RoundState.COLLECTING,
        participant__device__state=DeviceState.ACTIVE,
    ).values_list("id", "participant__device__key_epoch"),
    list[UUID],
)


def refuse_update(submission: Submission, code: str) -> None:
    """Record why an update was not counted; the device may try again until its third refusal."""
    participant = submission.participant
    last = participant.refusals + 1 >= REFUSALS_ALLOWED
    with transaction.atomic():
        Round.objects.select_for_update().values_list("state").get(pk=participant.round_id)
        if Submission.objects.filter(pk=submission.pk, outcome="").update(outcome="refused", code=code) != 1:
            return  # decided by another worker after our lease
        apply_transition(
            participant,
            PARTICIPANT,
            "reject" if last else "return",
            actor="worker:intake",
            feed=participant.round.feed,
            details=_about(submission) | {"code": code},
            code=code,
            refusals=participant.refusals + 1,
        )
        erase_after_commit([submission.id])


def find_sum(current: Round, slot: int) -> FoundSum:
    """The partial of a slot as it is now, if there is one, and what reads its sum: any thread may."""
    codec, partial = codec_of(current.training.round_plan), _PARTIAL.first(current.id, slot)
    return partial, codec.empty_sum if partial is None else lambda: load_partial(partial, codec.dtype)


def accept_updates(opened: list[OpenedSubmission], *, slot: int, found: FoundSum | None = None) -> int:
    """Add contributions of one round to a worker's partial and mark them accepted: all that can be, or none.

    The partial is read and written once for all of them.

    Args:
        found: what ``find_sum`` has found, where the caller had it read meanwhile.

    Returns:
        How many were accepted.
    """
    while opened:
        current = opened[0][0].participant.round
        started = time.perf_counter()
        plan = current.training.round_plan
        (partial, read), found = found or find_sum(current, slot), None
        vector = _present_sum(partial, read)
        if vector is None:
            continue  # another worker replaced the version between our two reads
        accumulate(vector, *(contribution.vector for _, contribution in opened))
        members = [*members_of(partial), *(submission.digest for submission, _ in opened)]
        prepared = prepare_partial(current, slot, partial, vector, members)
        seconds = (time.perf_counter() - started) / len(opened)
        try:
            with transaction.atomic():
                _lock_round(opened)
                _require_countable(opened)
                swapped = swap_partial(current, prepared)
                insert_rows(
                    [
                        Contribution(submission=submission, partial=swapped, measures=measures(plan, one.vector))
                        for submission, one in opened
                    ]
                )
                _count(current, plan, opened, seconds)
        except StaleStateError:
            discard(prepared)  # a slot was written by another worker, or a participant moved: look again
            opened = _countable(opened)
            continue
        forget_replaced(prepared)
        return len(opened)
    return 0


def _present_sum(partial: Partial | None, read: Callable[[], RingVector]) -> RingVector | None:
    """What a slot holds now; None if the version that was found has been replaced meanwhile."""
    try:
        return read()
    except NotFoundError:
        if partial is None or Partial.objects.filter(pk=partial.pk, version=partial.version).exists():
            raise  # the blob is gone and the row still names it: nothing may be guessed
        return None


def _count(current: Round, plan: RoundPlan, opened: list[OpenedSubmission], seconds: float) -> None:
    """Mark submissions and participants."""
    for submission, contribution in opened:
        stages = {**submission.stage_seconds, **contribution.seconds, "accumulate": seconds}
        update_rows(Submission, [submission.id], {"outcome": "accepted", "stage_seconds": stages})
        if (metric := hospital_metric(plan, contribution.vector)) is not None:
            update_rows(Participant, [submission.participant_id], {"metric": metric})
    submissions = [submission for submission, _ in opened]
    by_participant = {submission.participant_id: submission for submission in submissions}
    apply_transitions(
        [submission.participant for submission in submissions],
        PARTICIPANT,
        "accept",
        actor="worker:intake",
        feed=current.feed,
        details=lambda participant: _about(by_participant[participant.id]),
        code="",
    )


def _lock_round(opened: list[OpenedSubmission]) -> None:
    """Write when the last of them arrived: the row's lock orders all that follows before or after the freeze of the
    members, never into it, and what cannot be counted takes the time back with it."""
    last = max(submission.received_at for submission, _ in opened)
    _LOCK(opened[0][0].participant.round_id, last)


def _require_countable(opened: list[OpenedSubmission]) -> None:
    if len(_countable(opened)) < len(opened):
        raise StaleStateError("a participant cannot be counted any more")


def _countable(opened: list[OpenedSubmission]) -> list[OpenedSubmission]:
    # The devices as they stand now, with the key epoch that verified: one that was revoked meanwhile is not counted.
    # Nor is what another worker refused after our lease, even if its device has sent something else since.
    epochs = dict(_KEY_EPOCHS([submission.id for submission, _ in opened]))
    return [pair for pair in opened if epochs.get(pair[0].pk) == pair[0].participant.device.key_epoch]


def _about(submission: Submission) -> dict[str, object]:
    device = submission.participant.device
    return {
        "device": str(device.id),
        "site": device.site.name,
        "submission": str(submission.id),
        "digest": submission.digest,
    }
