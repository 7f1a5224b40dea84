"""Receiving submissions and taking updates in: from the door's stored bytes to a counted contribution.

``receive_update`` runs at the door and believes nothing but who sent it; ``process_update`` runs in the intake worker
and verifies, opens, validates and accumulates. What only the worker can see is a recorded outcome, not a server error.
"""

import logging
import os
import threading
import time
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from controlplane.audit.services import record
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
from latticeward.lifecycle import PARTICIPANT, ROUND, DeviceState, ParticipantState, RoundState
from latticeward.messages import SubmissionReceipt
from latticeward.opening import OpenedContribution, codec_of
from latticeward.updates.encoding import FixedPointCodec
from latticeward.updates.ring import accumulate
from rounds.models import Contribution, Partial, Participant, Round, Submission
from rounds.services.coordination import participant_of
from rounds.services.metrics import hospital_metric
from rounds.services.opening import open_submission, opening_of
from rounds.services.partials import (
    RingVector,
    discard,
    forget_replaced,
    load_partial,
    members_of,
    prepare_partial,
    swap_partial,
)

logger = logging.getLogger(__name__)

OpenedSubmission = tuple[Submission, OpenedContribution]

REFUSALS_ALLOWED: Final = 3
REFUSALS_RECORDED: Final = 10
# Header, stanza and signature of any suite.
FRONT_ROOM_BYTES: Final = 16 * 1024
# Updates that one worker opens before it writes its partial; bounds its memory to as many vectors.
BATCH: Final = 16
# A worker that is silent for longer has died, and others take up what it had.
LEASE: Final = timedelta(seconds=15)
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
    plan_digest = Round.objects.values_list("training__plan_digest", flat=True).get(pk=round_id)
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
            Round.objects.select_for_update().values_list("state").get(pk=round_id)
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
                stage_seconds={"receive": seconds},
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
    submission = Submission.objects.select_related("participant").filter(pk=submission_id).first()
    if submission is None:
        raise NotFoundError(f"submission {submission_id}")
    round_id = submission.participant.round_id
    claim = uuid4()
    waiting = _claim_waiting(round_id, claim)
    if not waiting:
        return None
    try:
        opened = []
        opening = opening_of(waiting[0].participant.round)
        keys = signing_keys(one.participant.device for one in waiting)
        for one in waiting:
            key = keys.get(one.participant.device_id)
            if key is None:
                # The device lost its keys after the door let it in: the round's next step excludes it, by name.
                logger.info("submission %s: its device has no active signing key", one.id)
                continue
            try:
                opened.append((one, open_submission(one, opening, key)))
            except (ProtocolError, VerificationError, DecryptionError, ContributionError, KeyUsageError) as error:
                _refuse_if_waiting(one, error.code)
            except Exception:
                # Ours, or the storage's: this one waits for the next sweep, and holds none of the others up.
                logger.exception("submission %s could not be opened", one.id)
        accept_updates(opened)
    finally:
        Submission.objects.filter(claim=claim, outcome="").update(claim=None, claimed_until=None)
    return round_id


def _refuse_if_waiting(submission: Submission, code: str) -> None:
    try:
        refuse_update(submission, code)
    except StaleStateError:
        logger.info("submission %s was decided meanwhile", submission.id)


def _claim_waiting(round_id: UUID, claim: UUID) -> list[Submission]:
    """Take up to ``BATCH`` waiting submissions of a round for this worker, for as long as the lease."""
    now = timezone.now()
    free = Q(claimed_until=None) | Q(claimed_until__lt=now)
    waiting = Submission.objects.filter(
        free, outcome="", participant__round_id=round_id, participant__state=ParticipantState.SUBMITTED
    ).order_by("received_at")[:BATCH]
    chosen = list(waiting.values_list("id", flat=True))
    Submission.objects.filter(free, pk__in=chosen).update(claim=claim, claimed_until=now + LEASE)
    related = ("participant__round__training", "participant__device__site")
    return list(Submission.objects.filter(claim=claim).select_related(*related).order_by("received_at"))


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


def accept_updates(opened: list[OpenedSubmission]) -> None:
    """Add contributions of one round to this worker's partial and mark them accepted: all that can be, or none.

    The partial is read and written once for all of them.
    """
    while opened := _countable(opened):
        current = opened[0][0].participant.round
        started = time.perf_counter()
        slot = (os.getpid() + threading.get_ident() // 64) % SLOTS
        partial = Partial.objects.filter(round=current, slot=slot).first()
        plan = current.training.round_plan
        vector = _present_sum(partial, codec_of(plan))
        if vector is None:
            continue  # another worker replaced the version between our two reads
        accumulate(vector, *(contribution.vector for _, contribution in opened))
        members = [*members_of(partial), *(submission.digest for submission, _ in opened)]
        prepared = prepare_partial(current, slot, partial, vector, members)
        seconds = (time.perf_counter() - started) / len(opened)
        try:
            with transaction.atomic():
                _require_countable(opened)
                swapped = swap_partial(current, prepared)
                Contribution.objects.bulk_create(
                    [Contribution(submission=submission, partial=swapped) for submission, _ in opened]
                )
                for submission, contribution in opened:
                    metric = hospital_metric(plan, contribution.vector)
                    _count(submission, {**contribution.seconds, "accumulate": seconds}, metric)
                last = max(submission.received_at for submission, _ in opened)
                Round.objects.filter(pk=current.pk).update(
                    # SQLite has no greatest of nothing and something.
                    last_update_at=Greatest(Coalesce("last_update_at", last), last)
                )
        except StaleStateError:
            discard(prepared)  # a slot was written by another worker, or a participant moved: look again
            continue
        forget_replaced(prepared)
        return


def _present_sum(partial: Partial | None, codec: FixedPointCodec) -> RingVector | None:
    """What a slot holds now; None if the version that was read has been replaced meanwhile."""
    if partial is None:
        return codec.empty_sum()
    try:
        return load_partial(partial, codec.dtype)
    except NotFoundError:
        if Partial.objects.filter(pk=partial.pk, version=partial.version).exists():
            raise  # the blob is gone and the row still names it: nothing may be guessed
        return None


def _count(submission: Submission, seconds: dict[str, float], metric: dict[str, Any] | None) -> None:
    Submission.objects.filter(pk=submission.pk).update(
        outcome="accepted", stage_seconds={**submission.stage_seconds, **seconds}
    )
    apply_transition(
        submission.participant,
        PARTICIPANT,
        "accept",
        actor="worker:intake",
        feed=submission.participant.round.feed,
        details=_about(submission),
        code="",
        metric=metric,
    )


def _require_countable(opened: list[OpenedSubmission]) -> None:
    # The lock orders this before or after the freeze of the members, never into it.
    Round.objects.select_for_update().values_list("state").get(pk=opened[0][0].participant.round_id)
    if len(_countable(opened)) < len(opened):
        raise StaleStateError("a participant cannot be counted any more")


def _countable(opened: list[OpenedSubmission]) -> list[OpenedSubmission]:
    # The devices as they stand now, with the key epoch that verified: one that was revoked meanwhile is not counted.
    rows = Participant.objects.filter(
        pk__in=[submission.participant_id for submission, _ in opened],
        state=ParticipantState.SUBMITTED,
        round__state=RoundState.COLLECTING,
        device__state=DeviceState.ACTIVE,
    )
    epochs = dict(rows.values_list("id", "device__key_epoch"))
    return [pair for pair in opened if epochs.get(pair[0].participant_id) == pair[0].participant.device.key_epoch]


def _about(submission: Submission) -> dict[str, object]:
    device = submission.participant.device
    return {
        "device": str(device.id),
        "site": device.site.name,
        "submission": str(submission.id),
        "digest": submission.digest,
    }
