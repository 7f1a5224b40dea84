"""Receiving submissions and taking updates in: from the door's stored bytes to a counted contribution.

``receive_update`` runs at the door and believes nothing but who sent it; ``process_update`` runs in the intake worker
and verifies, opens, validates and accumulates. What only the worker can see is a recorded outcome, not a server error.
"""

import logging
import os
import threading
import time
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from devices.models import Device
from keys.services import sign_receipt
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
from latticeward.lifecycle import PARTICIPANT, DeviceState, ParticipantState, RoundState
from latticeward.messages import SubmissionReceipt
from latticeward.updates.encoding import accumulate
from rounds.models import Contribution, Partial, Participant, Round, Submission
from rounds.services.coordination import participant_of
from rounds.services.opening import OpenedContribution, codec_of, open_submission
from rounds.services.partials import (
    discard,
    forget_replaced,
    load_partial,
    members_of,
    prepare_partial,
    swap_partial,
)

logger = logging.getLogger(__name__)

REFUSALS_ALLOWED: Final = 3
LEDGER_PROMISE: Final = timedelta(seconds=60)
# More slots than workers only cost a longer merge; fewer make workers wait for each other's compare-and-swap.
SLOTS: Final = 4


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
    if participant.state != ParticipantState.JOINED:
        raise StateError(f"participant {participant.id} is {participant.state}, not joined")


def receive_update(*, round_id: UUID, device: Device, digest: str, blob: str, size_bytes: int, via: str) -> Submission:
    """Record a stored envelope as this device's submission, with a signed receipt.

    Args:
        digest: hex digest of the envelope's signed part, as computed by the door from the stored bytes.
        blob: name of the stored envelope.
    """
    participant = participant_of(round_id, device)
    now = timezone.now()
    submission_id = uuid4()
    receipt = SubmissionReceipt(
        submission_id=str(submission_id),
        device_id=str(device.id),
        round_id=str(round_id),
        plan_digest=bytes(participant.round.training.plan_digest),
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
            Round.objects.select_for_update().get(pk=round_id)
            participant = participant_of(round_id, device)
            _require_submittable(participant)
            submission = Submission.objects.create(
                id=submission_id,
                participant=participant,
                digest=digest,
                blob=blob,
                size_bytes=size_bytes,
                via=via,
                receipt=signed,
                received_at=now,
            )
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
        earlier = Submission.objects.filter(participant=participant, digest=digest).first()
        if earlier is None:
            raise
        return earlier  # the same bytes came twice at once: one row, one receipt
    return submission


def refuse_at_door(*, round_id: UUID, device: Device, error: LatticewardError) -> None:
    """Record that the door turned a submission away; changes no state. Unknown rounds leave no entry."""
    participant = Participant.objects.filter(round_id=round_id, device=device).select_related("round").first()
    if participant is None:
        return
    with transaction.atomic():
        record(
            "submission.refused",
            actor=f"device:{device.id}",
            feed=participant.round.feed,
            subject=("participant", participant.id),
            details={"device": str(device.id), "site": device.site.name, "code": error.code},
        )


def process_update(submission_id: UUID) -> UUID | None:
    """Verify, open, validate and count one submission; a repeated call finds it decided and leaves.

    Returns:
        The id of the round that may now move on, None if nothing was to be done.
    """
    try:
        submission = Submission.objects.select_related("participant__round__training", "participant__device__site").get(
            pk=submission_id
        )
    except Submission.DoesNotExist as error:
        raise NotFoundError(f"submission {submission_id}") from error
    if submission.outcome or submission.participant.state != ParticipantState.SUBMITTED:
        return None
    try:
        contribution = open_submission(submission)
    except (ProtocolError, VerificationError, DecryptionError, ContributionError) as error:
        refuse_update(submission, error.code)
    except KeyUsageError:
        # The device lost its keys after the door let it in: the round's next step excludes it, by name.
        logger.info("submission %s: its device has no active signing key", submission.id)
    else:
        accept_update(submission, contribution)
    return submission.participant.round_id


def refuse_update(submission: Submission, code: str) -> None:
    """Record why an update was not counted; the device may try again until its third refusal."""
    participant = submission.participant
    last = participant.refusals + 1 >= REFUSALS_ALLOWED
    with transaction.atomic():
        Submission.objects.filter(pk=submission.pk, outcome="").update(outcome="refused", code=code)
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


def accept_update(submission: Submission, contribution: OpenedContribution) -> None:
    """Add a contribution to this worker's partial and mark it accepted: both, or neither."""
    participant = submission.participant
    current = participant.round
    slot = (os.getpid() + threading.get_ident() // 64) % SLOTS
    codec = codec_of(current.training.round_plan)
    while True:
        started = time.perf_counter()
        partial = Partial.objects.filter(round=current, slot=slot).first()
        if partial is None:
            vector = contribution.vector.copy()
        else:
            vector = load_partial(partial, codec.dtype)
            accumulate(vector, contribution.vector)
        prepared = prepare_partial(current, slot, partial, vector, [*members_of(partial), submission.digest])
        seconds = {**contribution.seconds, "accumulate": time.perf_counter() - started}
        try:
            with transaction.atomic():
                _require_countable(participant)
                swapped = swap_partial(current, prepared)
                Contribution.objects.create(submission=submission, partial=swapped)
                Submission.objects.filter(pk=submission.pk).update(outcome="accepted", stage_seconds=seconds)
                Round.objects.filter(pk=current.pk).update(last_update_at=submission.received_at)
                apply_transition(
                    participant,
                    PARTICIPANT,
                    "accept",
                    actor="worker:intake",
                    feed=current.feed,
                    details=_about(submission),
                    code="",
                )
        except StaleStateError:
            discard(prepared)
            if _countable(participant):
                continue  # only the slot was moved by another worker: add to what it left
            return
        except BaseException:
            discard(prepared)
            raise
        forget_replaced(prepared)
        return


def _require_countable(participant: Participant) -> None:
    Round.objects.select_for_update().get(pk=participant.round_id)
    if not _countable(participant):
        raise StaleStateError(f"participant {participant.id} cannot be counted any more")


def _countable(participant: Participant) -> bool:
    # The device as it stands now, with the key epoch that verified: one that was revoked meanwhile is not counted.
    return Participant.objects.filter(
        pk=participant.pk,
        state=ParticipantState.SUBMITTED,
        round__state=RoundState.COLLECTING,
        device__state=DeviceState.ACTIVE,
        device__key_epoch=participant.device.key_epoch,
    ).exists()


def _about(submission: Submission) -> dict[str, object]:
    device = submission.participant.device
    return {
        "device": str(device.id),
        "site": device.site.name,
        "submission": str(submission.id),
        "digest": submission.digest,
    }
