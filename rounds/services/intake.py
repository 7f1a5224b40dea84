"""Receiving submissions and taking updates in: from the door's stored bytes to a counted contribution.

``receive_update`` runs at the door and believes nothing but who sent it; ``process_update`` runs in the intake worker
and verifies, opens, validates and accumulates. What only the worker can see is a recorded outcome, not a server error.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from controlplane.audit.services import record
from controlplane.prepared import PreparedSelect, insert_rows
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
    NotPermittedError,
    ProtocolError,
    ReplayError,
    StaleStateError,
    StateError,
    VerificationError,
)
from latticeward.instants import to_unix_milliseconds
from latticeward.lifecycle import PARTICIPANT, ROUND, ParticipantState, RoundState
from latticeward.messages import SubmissionReceipt
from latticeward.opening import codec_of
from rounds.models import Participant, Round, Submission, Training
from rounds.services.acceptance import OpenedSubmission, accept_updates, find_sum, refuse_update
from rounds.services.claims import claim_waiting
from rounds.services.coordination import participant_of, straggler_wait
from rounds.services.opening import open_submission, opening_of

logger = logging.getLogger(__name__)

REFUSALS_RECORDED: Final = 10
# Header, stanza and signature of any suite.
FRONT_ROOM_BYTES: Final = 16 * 1024
LEDGER_PROMISE: Final = timedelta(seconds=60)

_TRAINING: Final = PreparedSelect(
    lambda round_id, device_id: (
        Training.objects.filter(rounds=round_id, rounds__participants__device_id=device_id)
        .only("plan", "plan_digest")
        .order_by()
    ),
    UUID,
    UUID,
)
_EARLIER: Final = PreparedSelect(
    lambda participant_id, digest: Submission.objects.filter(participant_id=participant_id, digest=digest), UUID, str
)
_PLAN_DIGEST: Final = PreparedSelect(
    lambda round_id: Round.objects.filter(pk=round_id).order_by().values_list("training__plan_digest"), UUID
)
_LOCK: Final = PreparedSelect(
    # Without an order: that of rounds would join the trainings, and lock theirs as well.
    lambda round_id: Round.objects.select_for_update().filter(pk=round_id).order_by().values_list("id"),
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
    earlier = _EARLIER.first(participant.id, digest)
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
    training = _TRAINING.first(round_id, device.id)
    if training is None:
        raise NotPermittedError(f"device {device.id} is not in round {round_id}")
    return sealed_body_bytes(codec_of(training.round_plan).length_bytes) + FRONT_ROOM_BYTES


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
                    "site": participant.device.site.name,
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
    waiting, slot = claim_waiting(submission_id, claim)
    if not waiting:
        if not Submission.objects.filter(pk=submission_id).exists():
            raise NotFoundError(f"submission {submission_id}")
        return None
    current = waiting[0].participant.round
    counted = 0
    stuck: list[UUID] = []
    try:
        # The sum that they are added to is opened while they are.
        with ThreadPoolExecutor(1) as beside:
            partial, read = find_sum(current, slot)
            reading = beside.submit(read)
            opened = _open(waiting, current, stuck)
            counted = accept_updates(opened, slot=slot, found=(partial, reading.result))
    finally:
        # What is stuck keeps its lease: taken up again at once, it would come before all that arrived later.
        if counted + len(stuck) < len(waiting):
            undecided = Submission.objects.filter(claim=claim, outcome="").exclude(pk__in=stuck)
            undecided.update(claim=None, claimed_until=None)
    return current.id


def _open(waiting: list[Submission], current: Round, stuck: list[UUID]) -> list[OpenedSubmission]:
    """Open what can be opened and refuse what never can; what cannot be now is added to ``stuck``."""
    opened: list[OpenedSubmission] = []
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
    return opened


def _refuse_if_waiting(submission: Submission, code: str) -> None:
    try:
        refuse_update(submission, code)
    except StaleStateError:
        logger.info("submission %s was decided meanwhile", submission.id)
