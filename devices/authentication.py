"""Who sent this request: the one verifier of signed requests, for DRF views and for the raw ASGI door alike.

The form of a signed request and its cryptography live in ``latticeward.crypto.httpsig``; here stands what one server
knows: which keys are registered, whether the device may act now, and which nonces it has seen.
"""

import hashlib
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from threading import Lock
from typing import Final
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Q
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from controlplane.addresses import client_address
from controlplane.prepared import PreparedSelect, PreparedUpdate
from controlplane.throttles import Limit, require_left, spend_by_address
from devices.models import Device, DeviceClass, Site
from devices.nonces import spend_all
from keys.models import Key, Owner
from keys.rotation import server_address
from keys.usage import count_use
from latticeward.crypto.httpsig import RequestFacts, VerifiedRequest, verify_body_digest, verify_request
from latticeward.crypto.keys import AuthenticationVerifyKey, ClassicalVerifyKey
from latticeward.errors import (
    CertificateNotValidError,
    CertificateRevokedError,
    LatticewardError,
    NotAuthenticatedError,
    NotPermittedError,
    ProtocolError,
    VerificationError,
    WrongContextError,
)
from latticeward.lifecycle import DeviceState, KeyState

_SEEN_EVERY: Final = timedelta(seconds=10)

_seen: dict[UUID, float] = {}
_seen_lock: Final = Lock()


@dataclass(frozen=True, slots=True)
class AuthenticatedDevice:
    """Proof that a device sent this request, now and for the first time. Made only by ``authenticate_all``."""

    device: Device
    request: VerifiedRequest


@dataclass(frozen=True, slots=True)
class _Identity:
    """What belongs to an authentication key id for ever: keys never change under their id, nor a device its site."""

    device_id: UUID
    site: Site
    device_class: DeviceClass
    authentication: AuthenticationVerifyKey
    classical: ClassicalVerifyKey
    classical_id: str


class Admit(StrEnum):
    """Whose requests a route takes, beside those of active devices with keys that may act now.

    ``COLLECTING``: a device that has proven keys for which no certificate has been made yet. ``RENEWING``: one that
    signs with keys which are superseded, however long ago, as long as their certificate lasts: a copy of them that
    comes to renew must be heard of, not merely turned away.
    """

    ACTIVE = "active"
    COLLECTING = "collecting"
    RENEWING = "renewing"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came, and whose requests its route takes."""

    facts: RequestFacts
    admit: Admit = Admit.ACTIVE


def authenticate(
    facts: RequestFacts, *, admit: Admit = Admit.ACTIVE, now: datetime | None = None
) -> AuthenticatedDevice:
    """Believe who sent a request, or refuse it; as ``authenticate_all``.

    Raises:
        VerificationError, ProtocolError: the refusal.
    """
    outcome = authenticate_all([Asked(facts, admit)], now=now)[0]
    if isinstance(outcome, LatticewardError):
        raise outcome
    return outcome


def authenticate_all(
    asked: Sequence[Asked], *, now: datetime | None = None
) -> list[AuthenticatedDevice | LatticewardError]:
    """Believe who sent each of several requests, or refuse it; one refusal does not touch the others.

    1. It was sent to this server.
    2. Both signatures hold, under the keys registered for the key id, and within the clock's skew.
    3. The device and its key may act now; asked of the database every time, so that a revocation acts at once.
    4. The nonce is new.

    The body's digest is left to whoever reads the body. Steps 3 and 4 ask once for all: under load that is what a
    request costs beside its signatures.

    Args:
        asked: the requests; ``RequestFacts.make`` has checked their form.

    Returns:
        In the order of ``asked`` a device, or one of

        - NotAuthenticatedError: no signature, or a key that nobody has;
        - InvalidSignatureError, MalformedMessageError, ClockSkewError, ReplayError, WrongContextError;
        - CertificateRevokedError, CertificateNotValidError, NotPermittedError: known, and may not act now.
    """
    now = now or timezone.now()
    outcomes: dict[int, AuthenticatedDevice | LatticewardError] = {}

    # 1 and 2
    signed: dict[int, VerifiedRequest] = {}
    for place, one in enumerate(asked):
        try:
            signed[place] = _verify(one.facts, now)
        except LatticewardError as refusal:
            outcomes[place] = refusal

    # 3
    acting: dict[int, AuthenticatedDevice] = {}
    standing = _standing({request.key_id for request in signed.values()})
    for place, request in signed.items():
        try:
            device, key = standing[request.key_id]
            _require_acting(device, key, asked[place].admit, now)
            acting[place] = AuthenticatedDevice(device, request)
        except LatticewardError as refusal:
            outcomes[place] = refusal

    # 4
    verdicts = spend_all([authenticated.request for authenticated in acting.values()]) if acting else []
    for (place, authenticated), verdict in zip(acting.items(), verdicts, strict=True):
        outcomes[place] = verdict or authenticated
        if verdict is None:
            count_use(authenticated.request.key_id)
            count_use(_identity(authenticated.request.key_id).classical_id)
            _note_seen(authenticated.device, now)
    return [outcomes[place] for place in range(len(asked))]


def _verify(facts: RequestFacts, now: datetime) -> VerifiedRequest:
    if facts.authority != server_address():
        raise WrongContextError(f"the request was made for {facts.authority}, this is {server_address()}")
    return verify_request(facts, resolve=_resolve, now=now)


class SignedRequestAuthentication(BaseAuthentication):
    """For DRF views of devices: ``request.auth`` is an ``AuthenticatedDevice``; there is no user behind it."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, AuthenticatedDevice] | None:
        if "Signature-Input" not in request.headers:
            return None
        address = client_address(request.META.get("REMOTE_ADDR", ""), request.headers.get("X-Forwarded-For", ""))
        # As at the gate of the raw door: whoever keeps sending what is refused is refused before any signature.
        require_left(Limit.REFUSED, address)
        try:
            facts = RequestFacts.make(
                request.method or "",
                request.META.get("HTTP_HOST", ""),
                request.path,
                request.META.get("QUERY_STRING", ""),
                request.headers.items(),
            )
            authenticated = authenticate(facts)
        except (VerificationError, ProtocolError):
            spend_by_address(Limit.REFUSED, address)
            raise
        if request.body or authenticated.request.content_digest is not None:
            verify_body_digest(authenticated.request, hashlib.sha256(request.body).digest())
        return AnonymousUser(), authenticated

    def authenticate_header(self, request: Request) -> str:
        return "Signature"


# A device that enrols is new to this process, so these are asked for each of them.
_AUTHENTICATION_KEY: Final = PreparedSelect(
    lambda key_id: Key.objects.filter(owner=Owner.DEVICE, purpose="authentication", key_id=key_id).only(
        "subject_id", "epoch", "public_key", "algorithm", "created_at"
    ),
    str,
)
# Of one set, that is registered in one instant: an epoch has several after a renewal that ended without a certificate.
_CLASSICAL_KEY: Final = PreparedSelect(
    lambda subject_id, epoch, created_at: Key.objects.filter(
        subject_id=subject_id, purpose="classical", epoch=epoch, created_at=created_at
    ).only("key_id", "public_key"),
    str,
    int,
    datetime,
)
_DEVICE: Final = PreparedSelect(
    lambda device_id: Device.objects.select_related("site__federation", "device_class").filter(pk=device_id), UUID
)
_NOTE_SEEN: Final = PreparedUpdate(
    lambda device_id, before, now: (
        Device.objects.filter(Q(last_seen_at=None) | Q(last_seen_at__lt=before), pk=device_id),
        {"last_seen_at": now},
    ),
    UUID,
    datetime,
    datetime,
)


@lru_cache(maxsize=4096)
def _identity(key_id: str) -> _Identity:
    # Strangers' ids raise, and what raises is not cached, so nobody can fill this with ids that do not exist.
    key = _AUTHENTICATION_KEY.first(key_id)
    if key is None:
        raise NotAuthenticatedError(f"no device has the authentication key {key_id}")
    (classical,) = _CLASSICAL_KEY(key.subject_id, key.epoch, key.created_at)
    (device,) = _DEVICE(UUID(key.subject_id))
    return _Identity(
        device_id=device.id,
        site=device.site,
        device_class=device.device_class,
        authentication=AuthenticationVerifyKey.from_raw(bytes(key.public_key), key.algorithm),
        classical=ClassicalVerifyKey.from_raw(bytes(classical.public_key)),
        classical_id=classical.key_id,
    )


def _resolve(key_id: str) -> tuple[AuthenticationVerifyKey, ClassicalVerifyKey]:
    identity = _identity(key_id)
    return identity.authentication, identity.classical


@dataclass(frozen=True, slots=True)
class _KeyStanding:
    """Where an authentication key is in its life."""

    state: str
    not_after_at: datetime | None
    superseded_at: datetime | None
    overlap_until: datetime | None


_FIELDS: Final = [field.attname for field in Device._meta.concrete_fields]
_SITE_LASTS: Final = [
    field.attname for field in Site._meta.concrete_fields if field.attname in ("id", "federation_id", "slug")
]
_DEVICES: Final = PreparedSelect(
    lambda device_ids: Device.objects.filter(pk__in=device_ids).values_list(*_FIELDS), list[UUID]
)
_KEYS: Final = PreparedSelect(
    lambda key_ids: Key.objects.filter(key_id__in=key_ids).values_list("key_id", *_KeyStanding.__slots__), list[str]
)


def _standing(key_ids: Collection[str]) -> dict[str, tuple[Device, _KeyStanding]]:
    """By key id, device and key as they stand now: two narrow questions, since this runs for every request."""
    known = {key_id: _identity(key_id) for key_id in key_ids}
    rows = {row[0]: row for row in _DEVICES({identity.device_id for identity in known.values()})}
    standing = {}
    for key_id, *columns in _KEYS(key_ids):
        identity = known[key_id]
        device = Device.from_db(DEFAULT_DB_ALIAS, _FIELDS, rows[identity.device_id])
        device.site, device.device_class = _lasting(identity.site), identity.device_class
        standing[key_id] = (device, _KeyStanding(*columns))
    return standing


def _lasting(known: Site) -> Site:
    """A hospital without what people may change: that is read when it is asked for, so it is what stands there then."""
    site = Site.from_db(DEFAULT_DB_ALIAS, _SITE_LASTS, [getattr(known, name) for name in _SITE_LASTS])
    site.federation = known.federation
    return site


def _require_acting(device: Device, key: _KeyStanding, admit: Admit, now: datetime) -> None:
    if device.state == DeviceState.REVOKED:
        raise CertificateRevokedError(f"device {device.id} is revoked")
    allowed = {DeviceState.ACTIVE}
    if admit is Admit.COLLECTING:
        # A declined device may learn that it was declined.
        allowed |= {DeviceState.PENDING, DeviceState.APPROVED, DeviceState.DECLINED}
    if device.state not in allowed:
        raise NotPermittedError(f"device {device.id} is {device.state}")
    if device.state == DeviceState.ACTIVE:
        _require_acting_key(device, key, admit, now)


def _require_acting_key(device: Device, key: _KeyStanding, admit: Admit, now: datetime) -> None:
    """Active keys act, superseded ones within their overlap; both until their certificate ends."""
    if key.state == KeyState.PRE_ACTIVE and admit is Admit.COLLECTING:
        return
    superseded = key.state == KeyState.DEACTIVATED and key.superseded_at is not None
    in_overlap = superseded and key.overlap_until is not None and now < key.overlap_until
    if key.state != KeyState.ACTIVE and not in_overlap and not (superseded and admit is Admit.RENEWING):
        raise CertificateRevokedError(f"the authentication key of device {device.id} is {key.state}")
    if key.not_after_at is None or key.not_after_at <= now:
        raise CertificateNotValidError(f"the certificate of device {device.id} has expired")


def seen_is_written(device_id: UUID) -> None:
    """Remember that a device's row says that it was seen now, so that its next requests need not write it."""
    with _seen_lock:
        _seen[device_id] = time.monotonic()


def _note_seen(device: Device, now: datetime) -> None:
    # One write in ten seconds and process: being seen must not cost every request a transaction.
    with _seen_lock:
        if time.monotonic() - _seen.get(device.id, -math.inf) < _SEEN_EVERY.total_seconds():
            return
        _seen[device.id] = time.monotonic()
    _NOTE_SEEN(device.id, now - _SEEN_EVERY, datetime.now(UTC))
