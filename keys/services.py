"""Writes about keys: signing with the server's own, registering and revoking anybody's.

Binding devices' keys lives in ``issuing.py``, making the authority itself and keeping it current in ``ceremony.py``
and ``rotation.py``, its two offline keys in ``offline.py``. Nothing here enqueues.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.prepared import PreparedSelect, insert_rows
from controlplane.transitions import apply_transition
from keys import vault
from keys.models import Authority, Key, Owner, Reason, Revocation, in_lock_order, lattice_digest
from keys.usage import count_use
from latticeward.crypto.certificate import PROFILES
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.keys import CompositeSigningKey
from latticeward.crypto.signing import Purpose, sign_message
from latticeward.device_keys import DEVICE_ROLES, DevicePublicKeys
from latticeward.errors import CustodyError, KeyUsageError, UnsupportedSuiteError
from latticeward.lifecycle import KEY, KeyState

logger = logging.getLogger(__name__)

# A server key that was superseded or revoked is used no longer than this by a process that had loaded it.
_LOADED_SECONDS: Final = 15.0


_OVERWRITE: Final[dict[str, Any]] = {
    "update_conflicts": True,
    "unique_fields": ["key"],
    "update_fields": ["reason", "actor", "revoked_at", "invalid_from"],
}


@dataclass(frozen=True, slots=True)
class _Loaded:
    key: CompositeSigningKey
    key_id: str
    not_after_at: datetime
    loaded_at: float


# By four key ids, and by the ML-KEM key inside one: it may be known alone, or as half of another.
_REGISTERED: Final = PreparedSelect(
    lambda *ids: Key.objects.filter(Q(key_id__in=ids[:4]) | Q(lattice_digest=ids[4])).values_list("id"), *[str] * 5
)
_PROFILE: Final = PreparedSelect(lambda: Authority.objects.values_list("profile"))

_loaded: dict[str, _Loaded] = {}
_lock: Final = Lock()


def sign_with(purpose: Purpose, payload: bytes) -> bytes:
    """Sign with the server's active key for a purpose.

    Args:
        purpose: one that the trust statement names a key for, or ``SUBMISSION_RECEIPT``.
        payload: canonical bytes of the message.

    Returns:
        A signed message.

    Raises:
        CustodyError: no such key is active, or this process's role does not hold its secret.
    """
    return sign_message(payload, purpose=purpose, key=signing_key(purpose))


def sign_receipt(payload: bytes) -> bytes:
    """Sign a submission receipt with the key of the day: the only signature that a web process can make."""
    return sign_with(Purpose.SUBMISSION_RECEIPT, payload)


def forget_loaded_keys() -> None:
    """Drop the seeds that this process has loaded: after a rotation, and between tests."""
    with _lock:
        _loaded.clear()


def signing_key(purpose: Purpose) -> CompositeSigningKey:
    """The server's active key for a purpose, out of the vault; kept in this process for a few seconds.

    Each call counts as one use of the key; who signs more with it says so (``usage.count_use``).

    Raises:
        CustodyError: there is none, or this process's role may not read it.
    """
    now = timezone.now()
    with _lock:
        found = _loaded.get(purpose)
    if found and time.monotonic() - found.loaded_at < _LOADED_SECONDS and now < found.not_after_at:
        count_use(found.key_id)
        return found.key
    row = (
        Key.objects.filter(owner=Owner.AUTHORITY, purpose=purpose, state=KeyState.ACTIVE, not_after_at__gt=now)
        .order_by("-not_before_at")
        .first()
    )
    if row is None or row.not_after_at is None:
        raise CustodyError(f"the server has no active key for {purpose}: the authority worker must make one")
    key = CompositeSigningKey.from_seed(open_secret(row), row.algorithm)
    with _lock:
        _loaded[purpose] = _Loaded(key, row.key_id, row.not_after_at, time.monotonic())
    count_use(row.key_id)
    return key


def open_secret(key: Key) -> bytes:
    """The seed of one of the server's own keys, checked against the public key that the row shows.

    Raises:
        CustodyError: not held here, removed to a safe place, or tampered with.
    """
    if key.wrapped_secret is None:
        raise CustodyError(f"the secret of the {key.purpose} key {key.key_id[:12]} is kept offline")
    seed = vault.unwrap(bytes(key.wrapped_secret), purpose=key.purpose, row_id=str(key.id), algorithm=key.algorithm)
    require_seed_of(key, seed)
    return seed


def require_seed_of(key: Key, seed: bytes) -> None:
    """Check that a seed belongs to the public key of a row; the vault binds the row's id, not its other columns.

    Raises:
        CustodyError: it gives another public key.
    """
    if key.purpose in ("root", "issuing", "responder"):
        public_raw = CertificateSigningKey.from_seed(seed, key.algorithm).public_raw
    else:
        public_raw = CompositeSigningKey.from_seed(seed, key.algorithm).verify_key.raw
    if public_raw != bytes(key.public_key):
        raise CustodyError(f"the secret of the {key.purpose} key {key.key_id[:12]} belongs to another public key")


def register_device_keys(*, subject_id: str, keys: DevicePublicKeys, epoch: int, actor: str, feed: str) -> list[Key]:
    """Record the four public keys of a device, not yet in use, in the caller's transaction, which ends with an error.

    Raises:
        KeyUsageError: one of them is registered already, to this or another subject, now or in the past.
    """
    now = timezone.now()
    wire = keys.to_wire()
    ids = {
        "authentication": keys.authentication.key_id,
        "classical": keys.classical.key_id,
        "signing": keys.signing.key_id,
        "encapsulation": keys.encapsulation.key_id,
    }
    rows = [
        Key(
            owner=Owner.DEVICE,
            subject_id=subject_id,
            purpose=role,
            algorithm=wire[role]["algorithm"],
            key_id=ids[role].hex(),
            public_key=wire[role]["public_key"],
            lattice_digest=lattice_digest(keys.encapsulation.lattice_raw) if role == "encapsulation" else None,
            epoch=epoch,
            created_at=now,
        )
        for role in DEVICE_ROLES
    ]
    try:
        insert_rows(rows)
    except IntegrityError as exc:
        raise KeyUsageError(f"a key of {subject_id} is registered already") from exc
    record(
        "key.generated",
        actor=actor,
        feed=feed,
        subject=("device", subject_id),
        details={"epoch": epoch, "keys": {row.purpose: row.key_id for row in rows}},
    )
    return rows


def refuse_registered(keys: DevicePublicKeys) -> None:
    """Refuse keys that are known, before any work is done on them; registering refuses them again.

    Raises:
        KeyUsageError: at least one is registered.
    """
    ids = [key.key_id.hex() for key in (keys.authentication, keys.classical, keys.signing, keys.encapsulation)]
    if _REGISTERED(*ids, lattice_digest(keys.encapsulation.lattice_raw) or ""):
        raise KeyUsageError("a key is registered already, to this or another device")


def require_certifiable(keys: DevicePublicKeys, *, profile: str | None = None) -> None:
    """Refuse keys that the authority's profile has no certificates for, before anything is promised to their device.

    Args:
        profile: the authority's, by name, where the caller has read it.

    Raises:
        UnsupportedSuiteError: the profile demands another algorithm.
    """
    row = PROFILES[profile or _PROFILE()[0][0]]
    if keys.authentication.algorithm not in row.devices:
        raise UnsupportedSuiteError(f"the profile {row.name} certifies {', '.join(row.devices)} only")


def suspend_keys(*, subject_id: str, actor: str, feed: str) -> None:
    """Suspend a subject's active keys, until they are reinstated.

    Keys that were superseded stay what they are, but their certificates may last for months yet, and other people's
    tools know nothing of our overlap: these go on hold with the rest.
    """
    now = timezone.now()
    with transaction.atomic():
        keys = _locked(subject_id)
        _move(keys.filter(state=KeyState.ACTIVE), "suspend", actor=actor, feed=feed, suspended_at=now)
        replaced = keys.filter(state=KeyState.DEACTIVATED, not_after_at__gt=now)
        replaced.filter(suspended_at=None).update(suspended_at=now)


def reinstate_keys(*, subject_id: str, actor: str, feed: str) -> None:
    """Make a subject's suspended keys active again, and take the superseded ones off their hold."""
    with transaction.atomic():
        keys = _locked(subject_id)
        _move(keys.filter(state=KeyState.SUSPENDED), "reinstate", actor=actor, feed=feed, suspended_at=None)
        keys.filter(state=KeyState.DEACTIVATED).update(suspended_at=None)


def retire_waiting_keys(*, subject_id: str, actor: str, feed: str) -> None:
    """Retire a set of keys that never came into use; they stay registered, so nobody can bring them again."""
    with transaction.atomic():
        waiting = _locked(subject_id).filter(state=KeyState.PRE_ACTIVE, purpose__in=DEVICE_ROLES)
        _move(waiting, "retire", actor=actor, feed=feed)


def revoke_keys(
    *, subject_id: str, reason: Reason, actor: str, feed: str, invalid_from: datetime | None = None
) -> None:
    """Take trust away from every key of a subject, for good, with an RFC 5280 reason.

    A deactivated key whose certificate has not ended is revoked as well, so that nobody goes on believing it. A
    compromise reaches every deactivated key, because what they signed before is then in doubt.

    Args:
        invalid_from: for a compromise, the instant from which nothing signed may be believed.
    """
    compromised = reason == Reason.KEY_COMPROMISE
    states = [KeyState.PRE_ACTIVE, KeyState.ACTIVE, KeyState.SUSPENDED]
    if compromised:
        states.append(KeyState.DEACTIVATED)
    now = timezone.now()
    with transaction.atomic():
        keys = _locked(subject_id)
        rows = list(keys.filter(state__in=states))
        event = "compromise" if compromised else "retire"
        _move(rows, event, actor=actor, feed=feed, reason=reason)
        if not compromised:
            moved = [row.pk for row in rows]
            replaced = keys.filter(state=KeyState.DEACTIVATED, not_after_at__gt=now)
            rows += replaced.filter(revocation__isnull=True).exclude(pk__in=moved)
        Revocation.objects.bulk_create(
            [
                Revocation(
                    key=row,
                    reason=reason,
                    actor=actor,
                    revoked_at=now,
                    invalid_from=(invalid_from or now) if compromised else None,
                )
                for row in rows
            ],
            # What was merely superseded may prove to be compromised; that reason is then the one that counts.
            **(_OVERWRITE if compromised else {"ignore_conflicts": True}),
        )


def _locked(subject_id: str) -> QuerySet[Key]:
    """All keys of a subject, locked now, whichever the caller's transaction then takes from among them."""
    keys = Key.objects.filter(subject_id=subject_id)
    list(in_lock_order(keys).values_list("pk"))
    return keys


def _move(rows: Iterable[Key], event: str, *, actor: str, feed: str, reason: str | None = None, **columns: Any) -> None:
    for row in rows:
        details = {"purpose": row.purpose, "key_id": row.key_id, "epoch": row.epoch, "subject": row.subject_id}
        if reason is not None:
            details["reason"] = str(reason)
        apply_transition(row, KEY, event, actor=actor, feed=feed, details=details, **columns)
