"""A device takes its next set of keys: ``begin`` and ``finish``, at the door; ``renewal_issuing.py`` does the rest.

What the messages are and how they are checked lives in ``latticeward.renewal``; here stands what one server must
remember: which renewal of which parent is under way, what was answered, and whether there is a second one.

Two renewals from one key are what a copied key looks like, since a device stores its transcript before it sends it and
repeats the same one. Nobody can tell which of the two is the device, so both branches are suspended and people are
told; a person who has looked reinstates the device, or revokes it.
"""

import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane.audit.services import record, record_together
from controlplane.transitions import apply_transition
from devices.models import Device, DeviceClass, Renewal
from devices.services import get_device, suspend_device
from devices.suites import choose_suite
from keys import vault
from keys.rotation import server_address
from keys.selectors import device_keys, public_keys_of, read_statement, trust_anchor
from keys.services import refuse_registered, register_device_keys, require_certifiable, retire_waiting_keys
from latticeward.enrolment import CHALLENGE_BYTES, CHALLENGE_LIFETIME_SECONDS
from latticeward.enrolment_messages import NONCE_BYTES, Meeting
from latticeward.errors import (
    InvalidSignatureError,
    InvalidTransitionError,
    KeyUsageError,
    NotFoundError,
    RenewalConflictError,
    StaleStateError,
    StateError,
    UnsupportedSuiteError,
)
from latticeward.lifecycle import RENEWAL, KeyState, RenewalState
from latticeward.renewal import (
    RenewalProofs,
    VerifiedRenewal,
    make_renewal_answer,
    renewal_opens_at,
    verify_renewal,
    verify_renewal_finish,
)

logger = logging.getLogger(__name__)

_LIVING: Final = (RenewalState.BEGUN, RenewalState.PROVEN, RenewalState.ISSUED)


@dataclass(frozen=True, slots=True)
class BegunRenewal:
    """What ``begin`` answers."""

    renewal_id: UUID
    answer: bytes


def begin_renewal(*, device: Device, epoch: int, transcript: bytes, now: datetime | None = None) -> BegunRenewal:
    """Believe T1 of a renewal, or refuse it.

    1. T1 fits the keys that signed the request (``verify_renewal``).
    2. It is the only one: another T1 from the same keys suspends the device; the same one again gets an answer again.
    3. The keys are the device's present ones, and it may renew now: two thirds of their time are over, or it was
       asked to.
    4. None of the new keys is known, and they are made for a suite that both accept.

    Args:
        device: as authenticated by the request's signatures.
        epoch: of the keys that signed them.
        transcript: T1 as received.

    Raises:
        ProtocolError, WrongContextError, CertificateNotValidError: 1.
        RenewalConflictError: 2.
        StateError: 3; the device may come again later.
        KeyUsageError, UnsupportedSuiteError: 4.
    """
    now = now or timezone.now()
    # 1
    meeting = Meeting(
        federation_id=str(device.site.federation_id), authority=server_address(), anchor=trust_anchor().fingerprint
    )
    parent = read_statement(str(device.id), epoch=epoch)
    verified = verify_renewal(transcript, meeting=meeting, parent=parent)

    # 2
    digest = hashlib.sha256(transcript).hexdigest()
    earlier = device.renewals.filter(parent_epoch=epoch, state__in=_LIVING).first()
    if earlier is not None:
        if earlier.transcript_digest != digest:
            raise _conflict(device, earlier, digest)
        return _answer_again(device, earlier, verified, now)

    # 3
    if epoch != device.key_epoch:
        raise KeyUsageError(f"epoch {epoch} of device {device.id} is superseded by {device.key_epoch}")
    if now < renewal_opens_at(parent) and not device.renewal_reason:
        raise StateError(f"device {device.id} may renew from {renewal_opens_at(parent).isoformat()}")

    # 4
    refuse_registered(verified.transcript.keys)
    require_certifiable(verified.transcript.keys)
    suite = choose_suite(verified.transcript, _class_of(device)).id
    try:
        return _begin(device, verified, digest, suite, now)
    except IntegrityError:
        # Another T1, or a second copy of this one, came in between: look again, now it is there to be found.
        earlier = device.renewals.get(parent_epoch=epoch, state__in=_LIVING)
        if earlier.transcript_digest != digest:
            raise _conflict(device, earlier, digest) from None
        return BegunRenewal(earlier.id, bytes(earlier.answer))


def _class_of(device: Device) -> DeviceClass:
    # As it stands now: an authenticated device brings its class as this process first saw it, perhaps weeks ago.
    return DeviceClass.objects.get(pk=device.device_class_id)


def _begin(device: Device, verified: VerifiedRenewal, digest: str, suite: str, now: datetime) -> BegunRenewal:
    identity = uuid4()
    answer, columns = _answer(identity, verified, suite, now)
    with transaction.atomic():
        Renewal.objects.create(
            id=identity,
            device=device,
            parent_epoch=verified.parent.epoch,
            transcript=verified.raw,
            transcript_digest=digest,
            suite=suite,
            begun_at=now,
            **columns,
        )
        details = {"device": str(device.id), "site": device.site.name, "transcript": digest, "suite": suite}
        record(
            "renewal.begun",
            actor=f"device:{device.id}",
            feed=device.site.federation.feed,
            subject=("renewal", identity),
            details={**details, "epoch": verified.transcript.epoch},
        )
    return BegunRenewal(identity, answer)


def _answer(identity: UUID, verified: VerifiedRenewal, suite: str, now: datetime) -> tuple[bytes, dict[str, Any]]:
    challenge = secrets.token_bytes(CHALLENGE_BYTES)
    expires_at = now + timedelta(seconds=CHALLENGE_LIFETIME_SECONDS)
    answer = make_renewal_answer(
        verified,
        renewal_id=str(identity),
        suite=suite,
        server_nonce=secrets.token_bytes(NONCE_BYTES),
        challenge=challenge,
        expires_at=expires_at,
    )
    wrapped = vault.wrap(challenge, purpose="challenge", row_id=str(identity))
    return answer, {"answer": answer, "wrapped_challenge": wrapped, "expires_at": expires_at}


def _answer_again(device: Device, earlier: Renewal, verified: VerifiedRenewal, now: datetime) -> BegunRenewal:
    """The same T1 came again: its answer again, or a new one if that has expired and nothing was proven yet."""
    if earlier.state != RenewalState.BEGUN or (earlier.expires_at > now and earlier.wrapped_challenge is not None):
        return BegunRenewal(earlier.id, bytes(earlier.answer))
    try:
        suite = choose_suite(verified.transcript, _class_of(device)).id
    except UnsupportedSuiteError as error:
        # Policy has changed since; ended by us, so that the device's next T1 is no second one.
        lapse(earlier, code=error.code, actor="system")
        raise
    answer, columns = _answer(earlier.id, verified, suite, now)
    # Of two that come at once, as when a device has waited too long and asks again, both are given the same answer.
    as_read = Renewal.objects.filter(pk=earlier.pk, state=RenewalState.BEGUN, expires_at=earlier.expires_at)
    if as_read.update(suite=suite, **columns) != 1:
        earlier.refresh_from_db()
        return BegunRenewal(earlier.id, bytes(earlier.answer))
    return BegunRenewal(earlier.id, answer)


def finish_renewal(*, device: Device, renewal_id: UUID, proofs: RenewalProofs, now: datetime | None = None) -> Renewal:
    """Take in the proofs of a device's new keys, and of its present signing key; the authority worker issues.

    1. The renewal was begun by this device and not finished; the same proofs again find it as it is.
    2. All five proofs hold over this transcript and this answer.
    3. In one transaction the keys are registered and the renewal is proven, or nothing has happened.

    Raises:
        NotFoundError: not this device's renewal.
        StateError: it ended otherwise.
        InvalidSignatureError, ClockSkewError: the proofs do not hold, or came too late.
        KeyUsageError: the present keys may not authorise any more, or a new key was registered meanwhile.
    """
    now = now or timezone.now()
    # 1
    renewal = device.renewals.filter(pk=renewal_id).first()
    if renewal is None:
        raise NotFoundError(f"device {device.id} has no renewal {renewal_id}")
    proofs_digest = hashlib.sha256(proofs.finish.challenge_mac).hexdigest()
    if renewal.state in (RenewalState.PROVEN, RenewalState.ISSUED):
        if not hmac.compare_digest(proofs_digest, renewal.proofs_digest):
            raise InvalidSignatureError("the renewal was finished with other proofs")
        return renewal
    if renewal.state != RenewalState.BEGUN:
        raise StateError(f"renewal {renewal_id} is {renewal.state}")
    if renewal.wrapped_challenge is None or device.key_epoch != renewal.parent_epoch:
        raise KeyUsageError(f"renewal {renewal_id} has expired: begin it again")

    # 2
    present = device_keys(str(device.id), epoch=renewal.parent_epoch)
    parent_key = present["signing"]
    if parent_key.state != KeyState.ACTIVE:
        raise KeyUsageError(f"the signing key of device {device.id} is {parent_key.state}")
    proven = verify_renewal_finish(
        proofs,
        transcript=bytes(renewal.transcript),
        answer=bytes(renewal.answer),
        challenge=vault.unwrap(bytes(renewal.wrapped_challenge), purpose="challenge", row_id=str(renewal.id)),
        parent=public_keys_of(present).signing,
        now=now,
    ).enrolment

    # 3
    actor, feed = f"device:{device.id}", device.site.federation.feed
    try:
        with transaction.atomic():
            apply_transition(
                renewal,
                RENEWAL,
                "prove",
                actor=actor,
                feed=feed,
                details={
                    "device": str(device.id),
                    "site": device.site.name,
                    "epoch": proven.transcript.epoch,
                    "transcript": proven.digest.hex(),
                },
                proven_at=now,
                proofs_digest=proofs_digest,
                wrapped_challenge=None,
            )
            register_device_keys(
                subject_id=str(device.id),
                keys=proven.transcript.keys,
                epoch=proven.transcript.epoch,
                actor=actor,
                feed=feed,
            )
    except StaleStateError:
        renewal.refresh_from_db()
        if renewal.proofs_digest != proofs_digest:
            raise
    except KeyUsageError as error:
        # These keys can never be registered: ended by us, so that the device may come with others.
        renewal.refresh_from_db()
        lapse(renewal, code=error.code, actor="system")
        raise
    return renewal


def lapse(renewal: Renewal, *, code: str, actor: str) -> None:
    """End a renewal without new keys; its parent may be renewed again."""
    device = get_device(renewal.device_id)
    feed = device.site.federation.feed
    with transaction.atomic(), record_together():
        apply_transition(
            renewal,
            RENEWAL,
            "lapse",
            actor=actor,
            feed=feed,
            details={"device": str(device.id), "site": device.site.name, "code": code},
            code=code,
            wrapped_challenge=None,
        )
        retire_waiting_keys(subject_id=str(device.id), actor=actor, feed=feed)


def _conflict(device: Device, earlier: Renewal, digest: str) -> RenewalConflictError:
    """Suspend both branches of two renewals from one key, and tell people; returns the refusal."""
    feed = device.site.federation.feed
    why = f"two renewals from the keys of epoch {earlier.parent_epoch}: somebody may have a copy"
    with transaction.atomic(), record_together():
        # The device's row first, as where certificates are made: who is making one now is waited for, and suspended.
        Device.objects.select_for_update(no_key=True).get(pk=device.pk)
        # Every later branch rests on the same key, so it is in doubt as well. Locked, because one that is proven now
        # would otherwise undo the suspension with it, and a copied key would be heard of by nobody.
        branches = device.renewals.select_for_update(of=("self",)).filter(parent_epoch__gte=earlier.parent_epoch)
        for renewal in branches.filter(state__in=_LIVING):
            apply_transition(
                renewal,
                RENEWAL,
                "conflict",
                actor="system",
                feed=feed,
                details={
                    "device": str(device.id),
                    "site": device.site.name,
                    "epoch": renewal.parent_epoch + 1,
                    "first": renewal.transcript_digest,
                    "second": digest,
                },
                code=RenewalConflictError.code,
                wrapped_challenge=None,
            )
        retire_waiting_keys(subject_id=str(device.id), actor="system", feed=feed)
        try:
            suspend_device(device_id=device.id, actor="system", why=why)
        except (InvalidTransitionError, StaleStateError):
            logger.info("device %s is not active, nothing to suspend", device.id)
    logger.warning("device %s was suspended: %s", device.id, why)
    return RenewalConflictError(f"device {device.id}: {why}")


def forget_challenges(*, now: datetime | None = None) -> None:
    """Erase the challenges that nobody met in time; the same T1 gets another one."""
    expired = Renewal.objects.filter(state=RenewalState.BEGUN, expires_at__lte=now or timezone.now())
    expired.exclude(wrapped_challenge=None).update(wrapped_challenge=None)
