"""Taking devices out of a running round again, by pull: what `devices` says now decides.

Runs before every decision about a round, so a revocation or suspension reaches it within seconds and at the latest
when its members are frozen. An accepted contribution is subtracted from its partial: exact integers, so the sum is
what it would have been without it.
"""

from typing import Final
from uuid import UUID

from django.db import transaction

from controlplane.prepared import PreparedSelect
from controlplane.transitions import apply_transition
from latticeward.errors import StaleStateError
from latticeward.lifecycle import PARTICIPANT, DeviceState, ParticipantState, RoundState
from latticeward.updates.ring import subtract
from rounds.models import Participant, Round
from rounds.services.erasure import erase_after_commit
from rounds.services.opening import opening_of, reopen_submission
from rounds.services.partials import (
    discard,
    forget_replaced,
    load_partial,
    members_of,
    prepare_partial,
    swap_partial,
)

_UNFROZEN = (RoundState.RECRUITING, RoundState.COLLECTING)
_INSIDE = (
    ParticipantState.INVITED,
    ParticipantState.JOINED,
    ParticipantState.SUBMITTED,
    ParticipantState.ACCEPTED,
)


# Participants of a round that still collects whose device is not active any more; asked before every step of a round.
_UNTRUSTED: Final = PreparedSelect(
    lambda round_id: (
        Participant.objects.filter(round_id=round_id, round__state__in=_UNFROZEN, state__in=_INSIDE)
        .exclude(device__state=DeviceState.ACTIVE)
        .select_related("round__training", "device__site")
    ),
    UUID,
)


def is_untrusted(state: str, device_state: str) -> bool:
    """Whether a participant in one of these states may not be counted, by its state and its device's."""
    return state in _INSIDE and device_state != DeviceState.ACTIVE


def exclude_untrusted(round_id: UUID) -> None:
    """Exclude every participant whose device is not active any more, while the round still collects."""
    for participant in _UNTRUSTED(round_id):
        exclude(participant, code=f"device_{participant.device.state}")


def exclude(participant: Participant, *, code: str) -> None:
    """Exclude one participant, subtracting its contribution if it was counted."""
    while True:
        try:
            if participant.state == ParticipantState.ACCEPTED:
                _subtract_and_exclude(participant, code)
            else:
                _move(participant, code)
            return
        except StaleStateError:
            participant.refresh_from_db(fields=["state", "code"])
            frozen = not Round.objects.filter(pk=participant.round_id, state__in=_UNFROZEN).exists()
            if frozen or participant.state not in _INSIDE:
                return


def _move(participant: Participant, code: str) -> None:
    with transaction.atomic():
        _lock_unfrozen(participant.round_id)
        apply_transition(
            participant,
            PARTICIPANT,
            "exclude",
            actor="worker:aggregate",
            feed=participant.round.feed,
            details={"device": str(participant.device_id), "site": participant.device.site.name, "code": code},
            code=code,
            metric=None,
        )
        counted = participant.submissions.filter(outcome__in=("", "accepted"))
        sent = list(counted.values_list("id", flat=True))
        counted.update(outcome="excluded", code=code)
        erase_after_commit(sent)


def _subtract_and_exclude(participant: Participant, code: str) -> None:
    submission = participant.submissions.select_related("contribution__partial").get(outcome="accepted")
    partial = submission.contribution.partial
    opening = opening_of(participant.round)
    vector = load_partial(partial, opening.codec.dtype)
    subtract(vector, reopen_submission(submission, opening).vector)
    members = [member for member in members_of(partial) if member != submission.digest]
    prepared = prepare_partial(participant.round, partial.slot, partial, vector, members)
    try:
        with transaction.atomic():
            swap_partial(participant.round, prepared)
            submission.contribution.delete()
            _move(participant, code)
    except StaleStateError:
        discard(prepared)
        raise
    forget_replaced(prepared)


def _lock_unfrozen(round_id: UUID) -> None:
    locked = Round.objects.select_for_update().get(pk=round_id)
    if locked.state not in _UNFROZEN:
        raise StaleStateError(f"round {round_id} is {locked.state}: its members are fixed")
