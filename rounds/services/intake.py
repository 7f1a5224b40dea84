"""Receiving submissions and taking updates in: from the door's stored bytes to a counted contribution.

``receive_update`` runs at the door and believes nothing but who sent it; ``process_update`` runs in the intake worker
and verifies, opens, validates and accumulates. What only the worker can see is a recorded outcome, not a server error.
"""

import logging
from datetime import datetime, timedelta
from itertools import count
from typing import Final
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from controlplane.audit.services import record
from controlplane.prepared import PreparedSelect, PreparedUpdate, insert_rows
from controlplane.transitions import apply_transition
from devices.models import Device
from devices.selectors import signing_keys
from keys.services import sign_receipt
from latticeward.crypto.body import sealed_body_bytes
from latticeward.errors import (
    ContributionError,
    DecryptionError,
    KeyUsageError,
    LatticewardError,
    NotFoundError,
    ProtocolError,
    ReplayError,
    StaleStateError,
    StateError,
    VerificationError,
)
from latticeward.instants import to_unix_milliseconds
from latticeward.lifecycle import PARTICIPANT, ROUND, ParticipantState, RoundState
from latticeward.messages import SubmissionReceipt
from latticeward.opening import OpenedContribution, codec_of
from rounds.models import Participant, Round, Submission
from rounds.services.acceptance import accept_updates, refuse_update
from rounds.services.coordination import participant_of, straggler_wait
from rounds.services.opening import open_submission, opening_of

logger = logging.getLogger(__name__)

REFUSALS_RECORDED: Final = 10
# Header, stanza and signature of any suite.
FRONT_ROOM_BYTES: Final = 16 * 1024
# What one worker opens before it writes its partial: so many updates, or so many bytes of them and at least one. It
# bounds the worker's memory, to one vector beside the sum where models are large.
BATCH: Final = 16
BATCH_BYTES: Final = 64 * 1024 * 1024
# A worker that is silent for longer has died, and others take up what it had.
LEASE: Final = timedelta(seconds=15)
LEDGER_PROMISE: Final = timedelta(seconds=60)

_PLAN_DIGEST: Final = PreparedSelect(
    lambda round_id: Round.objects.filter(pk=round_id).order_by().values_list("training__plan_digest"), UUID
)
_LOCK: Final = PreparedSelect(
    # Without an order: that of rounds would join the trainings, and lock theirs as well.
    lambda round_id: Round.objects.select_for_update().filter(pk=round_id).order_by().values_list("id"),
    UUID,
)
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
# With what intake looks at: whole rows would bring every signed byte of the round along, five times as much.
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


def require_submitter(*, round_id: UUID, device: Device, digest: str) -> Submission | None:
    """Say before the body is read whether this device may submit to this round now.

    Returns:
        The earlier submission of the same bytes, if there is one: the door answers with its receipt again.

    Raises:
        NotPermittedError: not a participant.
        ReplayError: another submission of this device counts already or waits in this round.
        StateError: the round does not collect, or the device has not joined it.
    """
    participant = participant_of(round_id, device)
    earlier = participant.submissions.filter(digest=digest).first()
    if earlier is not None:
        return earlier
    _require_submittable(participant)
    return None


def _require_submittable(participant: Participant) -> None:
    if participant.state in (ParticipantState.SUBMITTED, ParticipantState.ACCEPTED):
        raise ReplayError(f"participant {participant.id} has submitted to this round")
    if participant.round.state != RoundState.COLLECTING:
        raise StateError(f"round {participant.round_id} is {participant.round.state}, it does not collect")
    due_at = participant.round.state_due_at
    if due_at is not None and timezone.now() >= due_at and timezone.now() >= due_at + straggler_wait(participant.round):
        raise StateError(f"round {participant.round_id} was due, and its plan waits no longer")
    if participant.state != ParticipantState.JOINED:
        raise StateError(f"participant {participant.id} is {participant.state}, not joined")


def envelope_limit(round_id: UUID, device: Device) -> int:
    """How many bytes an envelope of this round can have: its length follows from the plan.

    Raises:
        NotPermittedError: not a participant.
    """
    plan = participant_of(round_id, device).round.training.round_plan
    return sealed_body_bytes(codec_of(plan).length_bytes) + FRONT_ROOM_BYTES


def receive_update(
    *, round_id: UUID, device: Device, digest: str, blob: str, size_bytes: int, via: str, seconds: float = 0.0
) -> Submission:
    """Record a stored envelope as this device's submission, with a signed receipt.

    Args:
        digest: hex digest of the envelope's signed part, as computed by the door from the stored bytes.
        blob: name of the stored envelope.
        seconds: what taking the bytes in has cost, for the stage times.
    """
    [(plan_digest,)] = _PLAN_DIGEST(round_id)
    now = timezone.now()
    submission_id = uuid4()
    receipt = SubmissionReceipt(
        submission_id=str(submission_id),
        device_id=str(device.id),
        round_id=str(round_id),
        plan_digest=bytes(plan_digest),
        submission_digest=bytes.fromhex(digest),
        size_bytes=size_bytes,
        via=via,
        received_at=to_unix_milliseconds(now),
        ledger_due_at=to_unix_milliseconds(now + LEDGER_PROMISE),
    )
    signed = sign_receipt(receipt.to_bytes())
    try:
        with transaction.atomic():
            # The lock orders this after a close: a submission that comes with the due time is in or out, never both.
            _LOCK(round_id)
            participant = participant_of(round_id, device)
            _require_submittable(participant)
            submission = Submission(
                id=submission_id,
                participant=participant,
                digest=digest,
                blob=blob,
                size_bytes=size_bytes,
                via=via,
                receipt=signed,
                stage_seconds={"receive": seconds},
                received_at=now,
            )
            insert_rows([submission])
            apply_transition(
                participant,
                PARTICIPANT,
                "submit",
                actor=f"device:{device.id}",
                feed=participant.round.feed,
                details={
                    "device": str(device.id),
                    "site": device.site.name,
                    "submission": str(submission_id),
                    "digest": digest,
                    "size_bytes": size_bytes,
                    "via": via,
                },
            )
    except (IntegrityError, ReplayError):
        earlier = Submission.objects.filter(
            participant__round_id=round_id, participant__device=device, digest=digest
        ).first()
        if earlier is None:
            raise
        return earlier  # the same bytes came twice at once: one row, one receipt
    return submission


def refuse_at_door(*, round_id: UUID, device: Device, error: LatticewardError) -> None:
    """Record that the door turned a submission away; changes no state. Unknown rounds leave no entry."""
    participant = Participant.objects.filter(round_id=round_id, device=device).select_related("round").first()
    if participant is None or participant.round.state in ROUND.terminal:
        return
    about = {"event": "submission.refused", "subject_kind": "participant", "subject_id": str(participant.id)}
    if AuditEntry.objects.filter(**about).count() >= REFUSALS_RECORDED:
        return  # the first few tell the story; a device must not be able to fill the ledger
    with transaction.atomic():
        record(
            "submission.refused",
            actor=f"device:{device.id}",
            feed=participant.round.feed,
            subject=("participant", participant.id),
            details={"device": str(device.id), "site": device.site.name, "code": error.code},
        )


def process_update(submission_id: UUID) -> UUID | None:
    """Take up a submission, and with it all others of its round that wait: verify, open, validate and count them.

    A repeated call finds them decided, or taken up by another worker, and leaves.

    Returns:
        The id of the round that may now move on, None if nothing was to be done.
    """
    claim = uuid4()
    waiting, slot = _claim_waiting(submission_id, claim)
    if not waiting:
        if not Submission.objects.filter(pk=submission_id).exists():
            raise NotFoundError(f"submission {submission_id}")
        return None
    current = waiting[0].participant.round
    counted = 0
    stuck: list[UUID] = []
    try:
        opened: list[tuple[Submission, OpenedContribution]] = []
        opening = opening_of(current)
        keys = signing_keys(one.participant.device for one in waiting)
        for one in waiting:
            key = keys.get(one.participant.device_id)
            if key is None:
                # The device lost its keys after the door let it in: the round's next step excludes it, by name.
                logger.info("submission %s: its device has no active signing key", one.id)
                stuck.append(one.id)
                continue
            try:
                opened.append((one, open_submission(one, opening, key)))
            except (ProtocolError, VerificationError, DecryptionError, ContributionError, KeyUsageError) as error:
                _refuse_if_waiting(one, error.code)
            except Exception:
                # Ours, or the storage's: this one waits, and holds none of the others up.
                logger.exception("submission %s could not be opened", one.id)
                stuck.append(one.id)
        counted = accept_updates(opened, slot=slot)
    finally:
        # What is stuck keeps its lease: taken up again at once, it would come before all that arrived later.
        if counted + len(stuck) < len(waiting):
            undecided = Submission.objects.filter(claim=claim, outcome="").exclude(pk__in=stuck)
            undecided.update(claim=None, claimed_until=None)
    return current.id


def _refuse_if_waiting(submission: Submission, code: str) -> None:
    try:
        refuse_update(submission, code)
    except StaleStateError:
        logger.info("submission %s was decided meanwhile", submission.id)


def _claim_waiting(submission_id: UUID, claim: UUID) -> tuple[list[Submission], int]:
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
