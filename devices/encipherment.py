"""A device asks for an encipherment certificate: ``begin`` and ``finish``, at the door; the authority worker issues.

What the messages are and how they are checked lives in ``latticeward.encipherment``; here stands what one server must
remember: which request of a device is under way, what was answered, and which keys are known. A device has one
request under way; another one takes its place, since who signs with the device's keys may ask again. It is no sign of
a copied key as a second renewal is: it binds nothing that speaks for the device.
"""

import hashlib
import hmac
import math
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from devices.models import Device, Encipherment
from devices.services import get_device
from keys import vault
from keys.encipherment import refuse_known, register_encipherment_key, retire_waiting_encipherment
from keys.rotation import server_address
from keys.selectors import read_statement, trust_anchor
from latticeward.crypto.encipherment import encipherment_algorithm
from latticeward.encipherment import (
    EnciphermentRequest,
    VerifiedEnciphermentRequest,
    make_encipherment_answer,
    verify_encipherment_proof,
    verify_encipherment_request,
)
from latticeward.enrolment import CHALLENGE_LIFETIME_SECONDS
from latticeward.enrolment_messages import NONCE_BYTES, Meeting
from latticeward.errors import (
    InvalidSignatureError,
    KeyUsageError,
    NotFoundError,
    NotPermittedError,
    StaleStateError,
    StateError,
    ThrottledError,
)
from latticeward.lifecycle import ENCIPHERMENT, DeviceState, EnciphermentState

# Each new certificate puts the one before it on the revocation list, which everybody fetches, and each request stands
# in the ledger: one device must not be able to fill either.
REQUESTS_A_DAY: Final = 16
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BegunEncipherment:
    """What ``begin`` answers."""

    encipherment_id: UUID
    answer: bytes


def begin_encipherment(*, device: Device, epoch: int, request: bytes, now: datetime | None = None) -> BegunEncipherment:
    """Believe R, or refuse it.

    1. The device is active and signs with its present keys.
    2. R fits those keys, and its key is of the device's parameter set (``verify_encipherment_request``).
    3. The same R again gets its answer again, or another challenge if that has expired; another R ends the one that
       is under way, unless its certificate is being made.
    4. The device has not asked as often as it may in a day.
    5. The key is unknown: neither registered, nor the lattice half of a hybrid key.

    Args:
        device: as authenticated by the request's signatures.
        epoch: of the keys that signed them.
        request: R as received.

    Raises:
        NotPermittedError, KeyUsageError: 1.
        ProtocolError, WrongContextError: 2.
        StateError: 3; the device may come again later.
        ThrottledError: 4.
        KeyUsageError: 5.
    """
    now = now or timezone.now()
    # 1
    if device.state != DeviceState.ACTIVE:
        raise NotPermittedError(f"device {device.id} is {device.state}")
    if epoch != device.key_epoch:
        raise KeyUsageError(f"epoch {epoch} of device {device.id} is superseded by {device.key_epoch}")

    # 2
    meeting = Meeting(
        federation_id=str(device.site.federation_id), authority=server_address(), anchor=trust_anchor().fingerprint
    )
    verified = verify_encipherment_request(
        request,
        meeting=meeting,
        statement=read_statement(str(device.id), epoch=epoch),
        algorithm=encipherment_algorithm(device.suite),
    )

    # 3
    digest = hashlib.sha256(request).hexdigest()
    same = device.encipherments.filter(request_digest=digest).exclude(state=EnciphermentState.LAPSED).first()
    if same is not None:
        return _answer_again(same, verified, now)
    earlier = device.encipherments.filter(state__in=(EnciphermentState.BEGUN, EnciphermentState.PROVEN)).first()
    if earlier is not None and earlier.state == EnciphermentState.PROVEN:
        raise StateError(f"the certificate of request {earlier.id} is being made")

    # 4
    _require_few(device, now)

    # 5
    refuse_known(verified.request.key)
    try:
        with transaction.atomic():
            if earlier is not None:
                lapse(earlier, code="superseded", actor=f"device:{device.id}")
            return _begin(device, verified, digest, now)
    except IntegrityError as exc:
        raise StaleStateError(f"another request of device {device.id} came first") from exc


def _require_few(device: Device, now: datetime) -> None:
    asked = device.encipherments.filter(begun_at__gt=now - _DAY).order_by("begun_at")
    times = list(asked.values_list("begun_at", flat=True))
    if len(times) >= REQUESTS_A_DAY:
        wait = times[-REQUESTS_A_DAY] + _DAY - now
        raise ThrottledError(
            f"device {device.id} has asked for {REQUESTS_A_DAY} encipherment certificates in a day",
            retry_after_seconds=max(1, math.ceil(wait.total_seconds())),
        )


def _begin(device: Device, verified: VerifiedEnciphermentRequest, digest: str, now: datetime) -> BegunEncipherment:
    identity, key = uuid4(), verified.request.key
    answer, columns = _answer(identity, verified, now)
    Encipherment.objects.create(
        id=identity,
        device=device,
        epoch=verified.request.epoch,
        request=verified.raw,
        request_digest=digest,
        key_id=key.key_id.hex(),
        begun_at=now,
        **columns,
    )
    record(
        "encipherment.begun",
        actor=f"device:{device.id}",
        feed=device.site.federation.feed,
        subject=("encipherment", identity),
        details={**_about(device), "request": digest, "algorithm": key.algorithm, "key_id": key.key_id.hex()},
    )
    return BegunEncipherment(identity, answer)


def _answer(identity: UUID, verified: VerifiedEnciphermentRequest, now: datetime) -> tuple[bytes, dict[str, Any]]:
    expires_at = now + timedelta(seconds=CHALLENGE_LIFETIME_SECONDS)
    answer, secret = make_encipherment_answer(
        verified,
        encipherment_id=str(identity),
        server_nonce=secrets.token_bytes(NONCE_BYTES),
        expires_at=expires_at,
    )
    wrapped = vault.wrap(secret, purpose="challenge", row_id=str(identity))
    return answer, {"answer": answer, "wrapped_challenge": wrapped, "expires_at": expires_at}


def _answer_again(same: Encipherment, verified: VerifiedEnciphermentRequest, now: datetime) -> BegunEncipherment:
    if same.state != EnciphermentState.BEGUN or (same.expires_at > now and same.wrapped_challenge is not None):
        return BegunEncipherment(same.id, bytes(same.answer))
    answer, columns = _answer(same.id, verified, now)
    # Of two that come at once both are given the same answer.
    as_read = Encipherment.objects.filter(pk=same.pk, state=EnciphermentState.BEGUN, expires_at=same.expires_at)
    if as_read.update(**columns) != 1:
        same.refresh_from_db()
        return BegunEncipherment(same.id, bytes(same.answer))
    return BegunEncipherment(same.id, answer)


def finish_encipherment(
    *, device: Device, encipherment_id: UUID, mac: bytes, now: datetime | None = None
) -> Encipherment:
    """Take in the proof of a device's encipherment key; the authority worker issues.

    1. The request was begun by this device, active with the same keys, and not finished; the same proof again finds
       it as it is.
    2. The MAC holds over this request and this answer.
    3. In one transaction the key is registered and the request is proven, or nothing has happened.

    Args:
        mac: 32 bytes as received.

    Raises:
        NotFoundError: not this device's request.
        NotPermittedError: the device may not act now.
        StateError: it ended without a certificate.
        InvalidSignatureError, ClockSkewError: the proof does not hold, or came too late.
        KeyUsageError: the challenge has run out or the device has other keys by now: begin again; or the key was
            registered meanwhile.
    """
    now = now or timezone.now()
    # 1
    if device.state != DeviceState.ACTIVE:
        raise NotPermittedError(f"device {device.id} is {device.state}")
    found = device.encipherments.filter(pk=encipherment_id).first()
    if found is None:
        raise NotFoundError(f"device {device.id} has no request {encipherment_id} for an encipherment certificate")
    digest = hashlib.sha256(mac).hexdigest()
    if found.state in (EnciphermentState.PROVEN, EnciphermentState.ISSUED):
        if not hmac.compare_digest(digest, found.proof_digest):
            raise InvalidSignatureError("the request was finished with another proof")
        return found
    if found.state != EnciphermentState.BEGUN:
        raise StateError(f"request {encipherment_id} is {found.state}")
    if found.wrapped_challenge is None or device.key_epoch != found.epoch:
        raise KeyUsageError(f"request {encipherment_id} has expired: begin it again")

    # 2
    verify_encipherment_proof(
        mac,
        request=bytes(found.request),
        answer=bytes(found.answer),
        secret=vault.unwrap(bytes(found.wrapped_challenge), purpose="challenge", row_id=str(found.id)),
        now=now,
    )

    # 3
    actor, feed = f"device:{device.id}", device.site.federation.feed
    key = EnciphermentRequest.from_bytes(bytes(found.request)).key
    columns = {"proven_at": now, "proof_digest": digest, "wrapped_challenge": None}
    details = {**_about(device), "key_id": found.key_id}
    try:
        with transaction.atomic():
            apply_transition(found, ENCIPHERMENT, "prove", actor=actor, feed=feed, details=details, **columns)
            register_encipherment_key(subject_id=str(device.id), key=key, epoch=found.epoch, actor=actor, feed=feed)
    except StaleStateError:
        found.refresh_from_db()
        if found.proof_digest != digest:
            raise
    except KeyUsageError as error:
        found.refresh_from_db()
        lapse(found, code=error.code, actor="system")
        raise
    return found


def lapse(row: Encipherment, *, code: str, actor: str) -> None:
    """End a request without a certificate; the device may come again, with another key."""
    device = get_device(row.device_id)
    feed = device.site.federation.feed
    with transaction.atomic():
        waiting = row.state == EnciphermentState.PROVEN
        apply_transition(
            row,
            ENCIPHERMENT,
            "lapse",
            actor=actor,
            feed=feed,
            details={**_about(device), "code": code},
            code=code,
            wrapped_challenge=None,
        )
        if waiting:
            retire_waiting_encipherment(key_id=row.key_id, actor=actor, feed=feed)


def forget_challenges(*, now: datetime | None = None) -> None:
    """Erase the challenges that nobody met in time; the same request gets another one."""
    expired = Encipherment.objects.filter(state=EnciphermentState.BEGUN, expires_at__lte=now or timezone.now())
    expired.exclude(wrapped_challenge=None).update(wrapped_challenge=None)


def _about(device: Device) -> dict[str, Any]:
    return {"device": str(device.id), "site": device.site.name, "name": device.name}
