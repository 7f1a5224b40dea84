"""Inviting devices to a round, letting them join, and moving the round on by its clock.

Every function is safe to repeat: a second call finds the state moved and leaves. None of them enqueues; the doors and
tasks do, after the commit.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from controlplane.prepared import PreparedSelect
from controlplane.transitions import apply_transition, apply_transitions
from devices.models import Device, Federation
from keys.services import sign_with
from latticeward.crypto.signing import Purpose
from latticeward.errors import (
    CohortTooCloseError,
    KMinimumError,
    NotFoundError,
    NotPermittedError,
    PlanChangedError,
    QuorumNotMetError,
    StateError,
)
from latticeward.lifecycle import PARTICIPANT, ROUND, ParticipantState, RoundState
from rounds.models import Participant, Round, Submission
from rounds.policy import GRACE, Decision, Tally, next_event
from rounds.services.cohorts import require_hiding
from rounds.services.erasure import erase_after_commit
from rounds.services.exclusion import exclude_untrusted, is_untrusted

logger = logging.getLogger(__name__)

# What every step of a round asks, and everybody waits for: prepared.
_LOCKED: Final = PreparedSelect(
    lambda round_id: Round.objects.select_for_update(of=("self",)).select_related("training").filter(pk=round_id), UUID
)
_PLACES: Final = PreparedSelect(
    lambda round_id: Participant.objects.filter(round_id=round_id).values_list("state", "device__state"), UUID
)
_LOCK_FEDERATION: Final = PreparedSelect(
    lambda identity: Federation.objects.select_for_update(no_key=True).filter(pk=identity).values_list("pk"), UUID
)
_UNDECIDED: Final = PreparedSelect(
    lambda round_id: Participant.objects.filter(
        round_id=round_id,
        state__in=(ParticipantState.INVITED, ParticipantState.JOINED, ParticipantState.SUBMITTED),
    ).select_related("device__site"),
    UUID,
)
_WAITING: Final = PreparedSelect(
    lambda round_id: Submission.objects.filter(participant__round_id=round_id, outcome="").values_list("id"), UUID
)
_PLACE: Final = PreparedSelect(
    lambda round_id, device_id: (
        Participant.objects.filter(round_id=round_id, device_id=device_id)
        .select_related("round", "device__site")
        .only("state", "round__state", "round__state_due_at", "round__training", "device__site__name")
    ),
    UUID,
    UUID,
)
_TALLY: Final = PreparedSelect(
    lambda round_id: (
        Participant.objects.filter(round_id=round_id)
        .values_list("state", "round__quorum", "round__state_due_at")
        .annotate(Count("id"))
    ),
    UUID,
)


def sign_round(round_id: UUID) -> None:
    """Authority worker: sign the assignment and invite the devices."""
    opened = Round.objects.get(pk=round_id)
    if opened.state != RoundState.SIGNING:
        return
    apply_transition(
        opened,
        ROUND,
        "recruit",
        actor="worker:authority",
        feed=opened.feed,
        details={"number": opened.number},
        signed_assignment=sign_with(Purpose.PLAN, bytes(opened.assignment)),
        state_due_at=opened.recruiting_due_at,
    )


def participant_of(round_id: UUID, device: Device) -> Participant:
    """The device's place in a round.

    Raises:
        NotPermittedError: the device was not invited, or there is no such round: deliberately one answer.
    """
    participant = _PLACE.first(round_id, device.id)
    if participant is None:
        raise NotPermittedError(f"device {device.id} is not in round {round_id}")
    return participant


def join_round(*, round_id: UUID, device: Device) -> Participant:
    """Let an invited device join; joining again is harmless.

    Raises:
        NotPermittedError: not invited.
        StateError: the round does not take joins any more.
    """
    participant = participant_of(round_id, device)
    if participant.state != ParticipantState.INVITED:
        if participant.state in (ParticipantState.DROPPED, ParticipantState.EXCLUDED, ParticipantState.REJECTED):
            raise StateError(f"participant {participant.id} is {participant.state}")
        return participant
    with transaction.atomic():
        # The same order of locks everywhere (round, participant, feed), or a close and a join wait for each other.
        state = Round.objects.select_for_update().values_list("state", flat=True).get(pk=round_id)
        if state not in (RoundState.RECRUITING, RoundState.COLLECTING):
            raise StateError(f"round {round_id} is {state}")
        apply_transition(
            participant,
            PARTICIPANT,
            "join",
            actor=f"device:{device.id}",
            feed=participant.round.feed,
            details={"device": str(device.id), "site": participant.device.site.name},
            joined_at=timezone.now(),
        )
    return participant


def may_move(round_id: UUID) -> bool:
    """Whether an update that was just decided may be what a collecting round waited for; one query.

    Asked in the intake worker, so that a round of many costs one message to the aggregation worker and not one an
    update, each of which would stand before the last. Whatever else moves a round is found by the sweep.
    """
    rows = _TALLY(round_id)
    _, quorum, due_at, _ = rows[0]
    now = datetime.now(UTC)
    if due_at is None or now >= due_at:
        return True
    counts = {state: count for state, _, _, count in rows}
    return next_event(RoundState.COLLECTING, _tally(counts), quorum=quorum, due_at=due_at, now=now) is not None


def advance_round(round_id: UUID) -> str | None:
    """Apply what policy says must happen to a round now.

    Returns:
        The event that was applied, None if the round waits.
    """
    excluded = _try_to_exclude(round_id)
    with transaction.atomic():
        # The row lock orders this decision after acceptances in flight: from here on the members are fixed.
        current = _LOCKED.first(round_id)
        if current is None:
            raise NotFoundError(f"round {round_id}")
        places = _PLACES(round_id)
        counts = Counter(state for state, _ in places)
        now = datetime.now(UTC)
        try:
            wait = straggler_wait(current)
        except PlanChangedError:
            if current.state in ROUND.terminal:
                return None
            # Nobody agreed to what the row says now: the round ends at once rather than by it.
            return _apply(current, Decision("fail", "plan_changed"), counts[ParticipantState.ACCEPTED], now)
        decision = next_event(
            RoundState(current.state),
            _tally(counts),
            quorum=current.quorum,
            due_at=current.state_due_at,
            now=now,
            straggler_wait=wait,
        )
        overdue = current.state_due_at is not None and now >= current.state_due_at + GRACE
        if not excluded and overdue and current.state == RoundState.COLLECTING:
            decision = Decision("fail", "exclusion_failed")
        if decision is None:
            return None
        if decision.event == "begin_aggregating" and any(is_untrusted(*place) for place in places):
            return None  # a device lost its trust since we looked: the next call excludes it first
        if decision.event == "begin_aggregating":
            decision = _unless_it_shows_too_much(current, decision)
        return _apply(current, decision, counts[ParticipantState.ACCEPTED], now)


def _tally(counts: Mapping[str, int]) -> Tally:
    return Tally(
        invited=counts.get(ParticipantState.INVITED, 0),
        joined=counts.get(ParticipantState.JOINED, 0),
        submitted=counts.get(ParticipantState.SUBMITTED, 0),
        accepted=counts.get(ParticipantState.ACCEPTED, 0),
    )


def _apply(current: Round, decision: Decision, accepted: int, now: datetime) -> str:
    details: dict[str, Any] = {"accepted": accepted, "quorum": current.quorum, "number": current.number}
    match decision.event:
        case "begin_collecting":
            columns: dict[str, Any] = {"state_due_at": current.collecting_due_at}
        case "begin_aggregating":
            drop_undecided(current)
            aggregating = current.training.round_plan.stage_seconds.aggregating
            columns = {"state_due_at": now + timedelta(seconds=aggregating), "closed_at": now}
        case _:
            drop_undecided(current)
            details["code"] = decision.code
            columns = {"failure_code": decision.code, "closed_at": now, "state_due_at": None}
    apply_transition(
        current, ROUND, decision.event, actor="worker:aggregate", feed=current.feed, details=details, **columns
    )
    return decision.event


def straggler_wait(current: Round) -> timedelta:
    """How long after its due time a round that lacks its quorum takes updates, by its plan."""
    return timedelta(seconds=current.training.round_plan.stragglers.seconds)


def _try_to_exclude(round_id: UUID) -> bool:
    """Whether all untrusted devices are out; one that cannot be keeps the round from closing, not from ending."""
    try:
        exclude_untrusted(round_id)
    except Exception:
        # Whatever is wrong, its envelope damaged on the disk or the storage away: the round must still reach its end.
        logger.exception("round %s: a device that lost its trust cannot be taken out", round_id)
        return False
    return True


def _unless_it_shows_too_much(current: Round, decision: Decision) -> Decision:
    """The freeze, or the end of a round whose sum may not be opened."""
    # One freeze at a time: of two that look at once, neither would see the other's members.
    _LOCK_FEDERATION(current.training.federation_id)
    try:
        require_hiding(current, current.training.round_plan)
    except (QuorumNotMetError, KMinimumError, CohortTooCloseError, PlanChangedError) as error:
        return Decision("fail", error.code)
    return decision


def drop_undecided(current: Round, because: str = "late") -> None:
    """Tell everybody who has not been counted or refused that the round is over; its row is locked.

    A few statements, however many there are: they hold up the round's end.
    """
    alike: dict[tuple[str, str], list[Participant]] = defaultdict(list)
    for participant in _UNDECIDED(current.id):
        alike[participant.state, participant.code or because].append(participant)
    for (_, code), participants in alike.items():
        apply_transitions(
            participants,
            PARTICIPANT,
            "drop",
            actor="worker:aggregate",
            feed=current.feed,
            details=lambda one: {
                "device": str(one.device_id),
                "site": one.device.site.name,
                "code": one.code or because,
            },
            code=code,
        )
    late = [identity for (identity,) in _WAITING(current.id)]
    Submission.objects.filter(pk__in=late).update(outcome="dropped", code=because)
    erase_after_commit(late)
