"""Encipherment keys of devices: registering them, and binding them by certificates that standard tools encrypt to.

Such a key has an SP 800-57 life like every other, and beside it a revocation: who encrypts with standard tools knows no
key statement, and learns from the revocation list alone that a newer certificate has taken the place of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from keys.models import Certificate, Key, Owner, Reason, Revocation, in_lock_order, lattice_digest
from keys.selectors import certificate_of_epoch, server_keys
from keys.services import open_secret
from keys.usage import count_use
from latticeward.crypto.certificate import DeviceNames, fingerprint, serial_of
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.encipherment import EnciphermentKey
from latticeward.crypto.issuing import issue_encipherment
from latticeward.errors import KeyUsageError, StateError
from latticeward.lifecycle import KEY, KeyState

PURPOSE: Final = "encipherment"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnciphermentOrder:
    """One registered key that is to be bound.

    Attributes:
        subject_id: id of the device, UUID text.
        names: from the claim record.
        epoch: of the device's present keys; the certificate ends with theirs.
        key_id: hexadecimal.
    """

    subject_id: str
    names: DeviceNames
    epoch: int
    key_id: str


def refuse_known(key: EnciphermentKey) -> None:
    """Refuse a key that is known, alone or as the lattice half of a hybrid key, before any work is done on it.

    Raises:
        KeyUsageError: this or another device has it, or had it.
    """
    known = Q(key_id=key.key_id.hex()) | Q(lattice_digest=lattice_digest(key.raw))
    if Key.objects.filter(known).exists():
        raise KeyUsageError("the key is registered already, to this or another device, alone or as half of another")


def register_encipherment_key(*, subject_id: str, key: EnciphermentKey, epoch: int, actor: str, feed: str) -> Key:
    """Record a proven key, not yet in use.

    Args:
        epoch: of the device's keys that asked for it.

    Raises:
        KeyUsageError: it is registered already, as of ``refuse_known``.
    """
    try:
        with transaction.atomic():
            row = Key.objects.create(
                owner=Owner.DEVICE,
                subject_id=subject_id,
                purpose=PURPOSE,
                algorithm=key.algorithm,
                key_id=key.key_id.hex(),
                public_key=key.raw,
                lattice_digest=lattice_digest(key.raw),
                epoch=epoch,
                created_at=timezone.now(),
            )
            details = {"epoch": epoch, "purpose": PURPOSE, "key_id": row.key_id}
            record("key.generated", actor=actor, feed=feed, subject=("device", subject_id), details=details)
    except IntegrityError as exc:
        raise KeyUsageError(f"the encipherment key of {subject_id} is registered already") from exc
    # Proven by a challenge that was encapsulated to it.
    count_use(row.key_id)
    return row


def retire_waiting_encipherment(*, key_id: str, actor: str, feed: str) -> None:
    """Retire a key that never got its certificate, if there is one; it stays registered."""
    for row in Key.objects.filter(key_id=key_id, purpose=PURPOSE, state=KeyState.PRE_ACTIVE):
        apply_transition(row, KEY, "retire", actor=actor, feed=feed, details=_about(row))


def issue_encipherment_certificates(orders: Sequence[EnciphermentOrder], *, actor: str, feed: str) -> list[Certificate]:
    """Bind registered keys by X.509; each becomes active, and the one before it is superseded and revoked as such.

    Runs in the authority worker, inside the caller's transaction, with the devices' rows locked.

    Returns:
        The certificates, in the order of ``orders``.

    Raises:
        CustodyError: this process does not hold the issuing key.
        StateError: a key does not wait for its certificate (any more), or its device's own certificate has ended.
    """
    now = timezone.now()
    issuer = Certificate.objects.select_related("key").get(key__in=server_keys("issuing"))
    issuing_key = CertificateSigningKey.from_seed(open_secret(issuer.key), issuer.key.algorithm)
    count_use(issuer.key.key_id, len(orders))
    with transaction.atomic():
        touched = Key.objects.filter(
            subject_id__in=[order.subject_id for order in orders],
            purpose=PURPOSE,
            state__in=(KeyState.PRE_ACTIVE, KeyState.ACTIVE),
        )
        list(in_lock_order(touched).values_list("pk"))
        return [_issue(order, issuer, issuing_key, now, actor, feed) for order in orders]


def _issue(
    order: EnciphermentOrder,
    issuer: Certificate,
    issuing_key: CertificateSigningKey,
    now: datetime,
    actor: str,
    feed: str,
) -> Certificate:
    row = Key.objects.filter(key_id=order.key_id, subject_id=order.subject_id, state=KeyState.PRE_ACTIVE).first()
    if row is None:
        raise StateError(f"the encipherment key {order.key_id[:12]} does not wait for a certificate")
    own = certificate_of_epoch(order.subject_id, epoch=order.epoch)
    not_after_at = min(own.not_after_at, issuer.not_after_at)
    if not_after_at <= now:
        raise StateError(f"the certificate of device {order.subject_id} has ended")
    der = issue_encipherment(
        EnciphermentKey.from_raw(bytes(row.public_key), row.algorithm),
        names=order.names,
        issuing=bytes(issuer.der),
        issuing_key=issuing_key,
        now=now,
        lifetime=not_after_at - now,
        public_url=settings.PUBLIC_URL,
    )
    certificate = Certificate.objects.create(
        key=row,
        issuer=issuer,
        serial=serial_of(der),
        der=der,
        fingerprint=fingerprint(der).hex(),
        not_before_at=now,
        not_after_at=not_after_at,
        created_at=now,
    )
    _supersede(order.subject_id, now, actor, feed)
    apply_transition(
        row,
        KEY,
        "activate",
        actor=actor,
        feed=feed,
        details=_about(row),
        not_before_at=now,
        not_after_at=not_after_at,
    )
    record(
        "certificate.issued",
        actor=actor,
        feed=feed,
        subject=("device", order.subject_id),
        details={
            "purpose": PURPOSE,
            "serial": certificate.serial,
            "fingerprint": certificate.fingerprint,
            "not_after_at": not_after_at.isoformat().replace("+00:00", "Z"),
            "epoch": order.epoch,
        },
    )
    return certificate


def _supersede(subject_id: str, now: datetime, actor: str, feed: str) -> None:
    for old in Key.objects.filter(subject_id=subject_id, purpose=PURPOSE, state=KeyState.ACTIVE):
        # What was encrypted before is opened by the device alone; for the server the key is over at once.
        apply_transition(
            old, KEY, "supersede", actor=actor, feed=feed, details=_about(old), superseded_at=now, overlap_until=now
        )
        Revocation.objects.create(key=old, reason=Reason.SUPERSEDED, actor=actor, revoked_at=now)


def _about(row: Key) -> dict[str, Any]:
    return {"purpose": row.purpose, "key_id": row.key_id, "epoch": row.epoch, "device": row.subject_id}
