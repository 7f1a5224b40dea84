"""Who sent this request: the one verifier of signed requests, for DRF views and for the raw ASGI door alike.

The form of a signed request and its cryptography live in ``latticeward.crypto.httpsig``; here stands what one server
knows: which keys are registered, whether the device may act now, and which nonces it has seen.
"""

import copy
import hashlib
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from threading import Lock
from typing import Final
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.db.models import Q
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from devices.models import Device
from keys.models import Key, Owner
from keys.rotation import server_address
from latticeward.crypto.httpsig import (
    NONCE_LIFETIME_SECONDS,
    RequestFacts,
    VerifiedRequest,
    verify_body_digest,
    verify_request,
)
from latticeward.crypto.keys import AuthenticationVerifyKey, ClassicalVerifyKey
from latticeward.errors import (
    CertificateNotValidError,
    CertificateRevokedError,
    ClockSkewError,
    NotAuthenticatedError,
    NotPermittedError,
    ReplayError,
    WrongContextError,
)
from latticeward.lifecycle import DeviceState, KeyState

# Nonces in this process's memory are known from this instant on; nothing verifies requests before this module.
_REMEMBERS_SINCE: Final = math.ceil(time.time())
_SEEN_EVERY: Final = timedelta(seconds=10)

_seen: dict[UUID, float] = {}
_seen_lock: Final = Lock()


@dataclass(frozen=True, slots=True)
class AuthenticatedDevice:
    """Proof that a device sent this request, now and for the first time. Made only by ``authenticate``."""

    device: Device
    request: VerifiedRequest


@dataclass(frozen=True, slots=True)
class _Identity:
    """What belongs to an authentication key id for ever: keys never change under their id, nor a device its site."""

    device: Device
    authentication: AuthenticationVerifyKey
    classical: ClassicalVerifyKey


class Admit(StrEnum):
    """Whose requests a route takes, beside those of active devices with keys that may act now.

    ``COLLECTING``: a device that has proven keys for which no certificate has been made yet. ``RENEWING``: one that
    signs with keys which are superseded, however long ago, as long as their certificate lasts: a copy of them that
    comes to renew must be heard of, not merely turned away.
    """

    ACTIVE = "active"
    COLLECTING = "collecting"
    RENEWING = "renewing"


def authenticate(
    facts: RequestFacts, *, admit: Admit = Admit.ACTIVE, now: datetime | None = None
) -> AuthenticatedDevice:
    """Believe who sent a request, or refuse it.

    1. It was sent to this server.
    2. Both signatures hold, under the keys registered for the key id, and within the clock's skew.
    3. The device and its key may act now; asked of the database every time, so that a revocation acts at once.
    4. The nonce is new.

    The body's digest is left to whoever reads the body.

    Args:
        facts: the request; ``RequestFacts.make`` has checked their form.
        admit: whose requests are taken.

    Raises:
        NotAuthenticatedError: no signature, or a key that nobody has.
        InvalidSignatureError, MalformedMessageError, ClockSkewError, ReplayError, WrongContextError
        CertificateRevokedError, CertificateNotValidError, NotPermittedError: known, and may not act now.
    """
    now = now or timezone.now()
    # 1
    if facts.authority != server_address():
        raise WrongContextError(f"the request was made for {facts.authority}, this is {server_address()}")

    # 2
    request = verify_request(facts, resolve=_resolve, now=now)

    # 3
    device = _present(_identity(request.key_id).device)
    _require_acting(device, request.key_id, admit, now)

    # 4
    _spend_nonce(request)
    _note_seen(device, now)
    return AuthenticatedDevice(device, request)


class SignedRequestAuthentication(BaseAuthentication):
    """For DRF views of devices: ``request.auth`` is an ``AuthenticatedDevice``; there is no user behind it."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, AuthenticatedDevice] | None:
        if "Signature-Input" not in request.headers:
            return None
        facts = RequestFacts.make(
            request.method or "",
            request.META.get("HTTP_HOST", ""),
            request.path,
            request.META.get("QUERY_STRING", ""),
            request.headers.items(),
        )
        authenticated = authenticate(facts)
        if request.body or authenticated.request.content_digest is not None:
            verify_body_digest(authenticated.request, hashlib.sha256(request.body).digest())
        return AnonymousUser(), authenticated

    def authenticate_header(self, request: Request) -> str:
        return "Signature"


@lru_cache(maxsize=4096)
def _identity(key_id: str) -> _Identity:
    # Strangers' ids raise, and what raises is not cached, so nobody can fill this with ids that do not exist.
    key = Key.objects.filter(owner=Owner.DEVICE, purpose="authentication", key_id=key_id).first()
    if key is None:
        raise NotAuthenticatedError(f"no device has the authentication key {key_id}")
    classical = Key.objects.get(subject_id=key.subject_id, purpose="classical", epoch=key.epoch)
    return _Identity(
        device=Device.objects.select_related("site__federation").get(pk=key.subject_id),
        authentication=AuthenticationVerifyKey.from_raw(bytes(key.public_key), key.algorithm),
        classical=ClassicalVerifyKey.from_raw(bytes(classical.public_key)),
    )


def _resolve(key_id: str) -> tuple[AuthenticationVerifyKey, ClassicalVerifyKey]:
    identity = _identity(key_id)
    return identity.authentication, identity.classical


def _present(remembered: Device) -> Device:
    """The device as it stands now: one narrow query, since this runs for every request of every device."""
    fields = ("state", "suite", "key_epoch", "activated_at", "last_seen_at", "renewal_reason", "renewal_suite")
    device = copy.copy(remembered)
    now = Device.objects.filter(pk=device.pk).values_list(*fields).get()
    for name, value in zip(fields, now, strict=True):
        setattr(device, name, value)
    return device


def _require_acting(device: Device, key_id: str, admit: Admit, now: datetime) -> None:
    if device.state == DeviceState.REVOKED:
        raise CertificateRevokedError(f"device {device.id} is revoked")
    allowed = {DeviceState.ACTIVE}
    if admit is Admit.COLLECTING:
        # A declined device may learn that it was declined.
        allowed |= {DeviceState.PENDING, DeviceState.APPROVED, DeviceState.DECLINED}
    if device.state not in allowed:
        raise NotPermittedError(f"device {device.id} is {device.state}")
    if device.state == DeviceState.ACTIVE:
        _require_acting_key(device, key_id, admit, now)


def _require_acting_key(device: Device, key_id: str, admit: Admit, now: datetime) -> None:
    """Active keys act, superseded ones within their overlap; both until their certificate ends."""
    fields = ("state", "not_after_at", "superseded_at", "overlap_until")
    state, not_after_at, superseded_at, overlap_until = Key.objects.filter(key_id=key_id).values_list(*fields).get()
    if state == KeyState.PRE_ACTIVE and admit is Admit.COLLECTING:
        return
    superseded = state == KeyState.DEACTIVATED and superseded_at is not None
    in_overlap = superseded and overlap_until is not None and now < overlap_until
    if state != KeyState.ACTIVE and not in_overlap and not (superseded and admit is Admit.RENEWING):
        raise CertificateRevokedError(f"the authentication key of device {device.id} is {state}")
    if not_after_at is None or not_after_at <= now:
        raise CertificateNotValidError(f"the certificate of device {device.id} has expired")


def _spend_nonce(request: VerifiedRequest) -> None:
    # An in-process memory knows nothing from before its own start, so a request from then might be a repetition.
    if not settings.LIVE_URL and request.created_at.timestamp() < _REMEMBERS_SINCE:
        early = _REMEMBERS_SINCE - request.created_at.timestamp()
        raise ClockSkewError(
            f"the request was made {early:.0f} s before this server started; send it again with a new nonce"
        )
    if not cache.add(f"nonce:{request.key_id}:{request.nonce}", 1, timeout=NONCE_LIFETIME_SECONDS):
        raise ReplayError(f"nonce {request.nonce} of {request.key_id[:12]} was seen before")


def _note_seen(device: Device, now: datetime) -> None:
    # One write in ten seconds and process: being seen must not cost every request a transaction.
    with _seen_lock:
        if time.monotonic() - _seen.get(device.id, -math.inf) < _SEEN_EVERY.total_seconds():
            return
        _seen[device.id] = time.monotonic()
    late = Q(last_seen_at=None) | Q(last_seen_at__lt=now - _SEEN_EVERY)
    Device.objects.filter(late, pk=device.id).update(last_seen_at=datetime.now(UTC))
