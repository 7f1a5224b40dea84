"""What is decided about sites and devices: approve, issue, suspend, reinstate, revoke.

Claim codes live in ``claims.py``, the two steps of enrolment in ``enrolment.py``. Every function moves one row, records
it and touches the device's keys, in one transaction. Nothing here enqueues: the door does, after the commit.
"""

import base64
import logging
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from controlplane.audit.services import record, record_together
from controlplane.prepared import PreparedSelect
from controlplane.transitions import apply_transition, apply_transitions
from devices.classes import seed_classes
from devices.models import Device, Enrolment, Federation, Renewal
from keys.ceremony import init_authority
from keys.issuing import IssueOrder, issue_certificates
from keys.models import Reason
from keys.selectors import issued_identity
from keys.services import reinstate_keys, retire_waiting_keys, revoke_keys, suspend_keys
from latticeward.crypto.certificate import DeviceNames
from latticeward.errors import (
    InvalidTransitionError,
    InvalidValueError,
    MalformedMessageError,
    NotFoundError,
    StaleStateError,
    StateError,
)
from latticeward.lifecycle import DEVICE, DeviceState, RenewalState

logger = logging.getLogger(__name__)

# Signing one takes about a millisecond and a half; a batch holds its rows for a tenth of a second.
ISSUING_BATCH: Final = 32
# Nobody remembers after a week what a fingerprint on the screen was to be compared with.
APPROVAL_LIFETIME: Final = timedelta(days=7)
_APPROVED: Final = Device.objects.filter(state=DeviceState.APPROVED)
_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def found_federation(*, slug: str, name: str, actor: str = "system") -> Federation:
    """Make the federation of this installation and its authority, or bring both up to date. Safe at every start.

    Args:
        slug: lower-case letters, digits, hyphens, at most 40; stands in every certificate.
        name: for people.

    Raises:
        StateError: this installation belongs to another federation.
        CustodyError: the vault has lost its keys.
    """
    if _SLUG.fullmatch(slug) is None or len(slug) > 40:
        raise MalformedMessageError("a federation's slug holds lower-case letters, digits and hyphens")
    federation = Federation.objects.filter(slug=slug).first()
    if federation is None:
        with transaction.atomic():
            federation, is_new = Federation.objects.get_or_create(
                slug=slug, defaults={"name": name, "created_at": timezone.now()}
            )
            if is_new:
                record(
                    "federation.created",
                    actor=actor,
                    feed=federation.feed,
                    subject=("federation", federation.id),
                    details={"slug": slug, "name": name},
                )
            seed_classes(federation=federation, actor=actor)
            init_authority(federation_id=federation.id, federation=slug, actor=actor)
    else:
        init_authority(federation_id=federation.id, federation=slug, actor=actor)
    return federation


def approve_device(*, device_id: UUID, actor: str, why: str = "") -> Device:
    """Decide that a machine may take part; the authority worker then makes its certificate (``issue``).

    Raises:
        NotFoundError, InvalidTransitionError, StaleStateError
    """
    with transaction.atomic():
        return approve(get_device(device_id), actor=actor, why=why)


def approve(device: Device, *, actor: str, why: str = "") -> Device:
    """As ``approve_device``, of a row that was read with its site and federation.

    In the caller's transaction, which ends with an error.
    """
    details = {**_details(device), **({"why": why} if why else {})}
    apply_transition(device, DEVICE, "approve", actor=actor, feed=device.site.feed, details=details)
    return device


def decline_device(*, device_id: UUID, actor: str, why: str = "") -> Device:
    """Refuse a machine that asked; its keys stay registered, so that nobody can bring them again."""
    return _move(get_device(device_id), "decline", actor, details={"why": why} if why else {}, keys=retire_waiting_keys)


def issue(*, device_id: UUID, actor: str = "worker:authority") -> None:
    """Make the certificate and key statement of an approved device, which becomes active with them.

    Runs in the authority worker, may run twice: the second finds the device active and leaves.

    Raises:
        CustodyError: this process does not hold the issuing key; nothing was changed.
    """
    _issue(_APPROVED.filter(pk=device_id), actor)


def issue_approved(*, actor: str = "worker:authority", limit: int = ISSUING_BATCH) -> int:
    """As ``issue`` for all approved devices, the oldest first; returns how many became active.

    Beside its two signatures an enrolment costs the authority a few statements, which a whole order of machines that
    enrol on one morning shares.
    """
    oldest = _APPROVED.order_by("requested_at")[:limit]
    try:
        return _issue(oldest, actor)
    except StateError:
        # One of them has lost its keys: each by itself, so that it keeps none of the others up.
        return sum(_issue_alone(device_id, actor) for device_id in oldest.values_list("id", flat=True))


def _issue_alone(device_id: UUID, actor: str) -> int:
    try:
        return _issue(_APPROVED.filter(pk=device_id), actor)
    except StateError as error:
        logger.warning("device %s gets no certificate: %s", device_id, error)
        return 0


def _issue(approved: QuerySet[Device], actor: str) -> int:
    with transaction.atomic(), record_together():
        # Whoever holds one of the rows is deciding about that device, or issuing it.
        rows = approved.select_for_update(of=("self",), no_key=True, skip_locked=True)
        devices = list(rows.select_related("site__federation", "device_class"))
        if not devices:
            return 0
        feed = devices[0].site.federation.feed
        issue_certificates([order_for(device, epoch=device.key_epoch) for device in devices], actor=actor, feed=feed)
        apply_transitions(
            devices, DEVICE, "activate", actor=actor, feed=feed, details=_details, activated_at=timezone.now()
        )
    return len(devices)


def order_for(device: Device, *, epoch: int) -> IssueOrder:
    """What the authority binds a device's keys to: names of the claim record, lifetime of the class."""
    return IssueOrder(
        subject_id=str(device.id),
        names=names_of(device),
        epoch=epoch,
        lifetime=timedelta(days=device.device_class.certificate_days),
    )


def names_of(device: Device) -> DeviceNames:
    """What certificates say about a device; its site and federation must be there."""
    return DeviceNames(federation=device.site.federation.slug, site=device.site.slug, device_id=str(device.id))


def suspend_device(*, device_id: UUID, actor: str, why: str = "") -> Device:
    """Take a device out until it is reinstated; it is refused from the next request on."""
    return _move(get_device(device_id), "suspend", actor, details={"why": why} if why else {}, keys=suspend_keys)


def reinstate_device(*, device_id: UUID, actor: str, why: str = "") -> Device:
    """Let a suspended device take part again, with the keys that it has."""
    return _move(get_device(device_id), "reinstate", actor, details={"why": why} if why else {}, keys=reinstate_keys)


def revoke_device(*, device_id: UUID, actor: str, reason: Reason, invalid_from: datetime | None = None) -> Device:
    """Take trust away from a device and all its keys, for good.

    Args:
        reason: RFC 5280.
        invalid_from: for a compromise, the instant from which nothing it signed may be believed; now if unknown.

    Raises:
        InvalidValueError: such an instant for another reason, or one that is still to come.
        NotFoundError, InvalidTransitionError, StaleStateError
    """
    if invalid_from is not None and reason != Reason.KEY_COMPROMISE:
        raise InvalidValueError("Only a compromise has an instant from which nothing is believed. Leave it out.")
    if invalid_from is not None and invalid_from > timezone.now():
        raise InvalidValueError("The compromise lies in the future. Name when the key may first have been used.")

    def revoke(*, subject_id: str, actor: str, feed: str) -> None:
        revoke_keys(subject_id=subject_id, reason=reason, actor=actor, feed=feed, invalid_from=invalid_from)

    return _move(get_device(device_id), "revoke", actor, details={"reason": str(reason)}, keys=revoke)


_ENROLLED: Final = PreparedSelect(
    lambda device_id, enrolment_id: Device.objects.filter(
        Exists(Enrolment.objects.filter(pk=enrolment_id, device_id=OuterRef("pk"), finished_at__isnull=False)),
        pk=device_id,
    ).values_list("state", "key_epoch"),
    UUID,
    UUID,
)


def collect(*, enrolment_id: UUID, device: Device) -> dict[str, Any]:
    """What an enrolling device may fetch: its state, and once it is active its certificate and key statement.

    Args:
        device: as authenticated by the request's signature.

    Returns:
        ``{"state"}``, with ``certificate_chain`` (DER, base64; leaf first, without the root) and ``statement``
        (base64url) when the device is active.

    Raises:
        NotFoundError: not this device's enrolment.
    """
    current = _ENROLLED.first(device.id, enrolment_id)
    if current is None:
        raise NotFoundError(f"device {device.id} has no enrolment {enrolment_id}")
    state, epoch = current
    answer: dict[str, Any] = {"state": state}
    if state == DeviceState.ACTIVE:
        answer |= _handed_out(device.id, epoch)
    return answer


def collect_renewal(*, renewal_id: UUID, device: Device) -> dict[str, Any]:
    """What a renewing device may fetch: the renewal's state, and once it is issued certificate and key statement.

    Args:
        device: as authenticated by the request's signature.

    Returns:
        As ``collect``.

    Raises:
        NotFoundError: not this device's renewal.
    """
    renewal = Renewal.objects.filter(pk=renewal_id, device_id=device.id).first()
    if renewal is None:
        raise NotFoundError(f"device {device.id} has no renewal {renewal_id}")
    answer: dict[str, Any] = {"state": renewal.state}
    if renewal.state == RenewalState.ISSUED:
        answer |= _handed_out(device.id, renewal.parent_epoch + 1)
    return answer


def _handed_out(device_id: UUID, epoch: int) -> dict[str, Any]:
    chain, statement = issued_identity(str(device_id), epoch=epoch)
    return {
        "certificate_chain": [base64.b64encode(der).decode("ascii") for der in chain],
        "statement": base64.urlsafe_b64encode(statement).decode("ascii").rstrip("="),
    }


def expire_enrolments(*, now: datetime | None = None) -> None:
    """Forget challenges that nobody met in time, and decline machines that nobody approved in a week."""
    now = now or timezone.now()
    Enrolment.objects.filter(expires_at__lte=now, finished_at=None).exclude(wrapped_challenge=None).update(
        wrapped_challenge=None
    )
    waiting = Device.objects.filter(state=DeviceState.PENDING, requested_at__lt=now - APPROVAL_LIFETIME)
    for device_id in waiting.values_list("id", flat=True):
        try:
            decline_device(device_id=device_id, actor="system", why="not approved in time")
        except (StaleStateError, InvalidTransitionError):
            continue  # a person decided in this moment, and theirs counts


def get_device(device_id: UUID) -> Device:
    """A device with its site, federation and class.

    Raises:
        NotFoundError: no such device.
    """
    device = Device.objects.select_related("site__federation", "device_class").filter(pk=device_id).first()
    if device is None:
        raise NotFoundError(f"there is no device {device_id}")
    return device


def _move(
    device: Device,
    event: str,
    actor: str,
    *,
    details: dict[str, Any],
    keys: Callable[..., None] | None = None,
) -> Device:
    feed = device.site.feed
    with transaction.atomic(), record_together():
        apply_transition(device, DEVICE, event, actor=actor, feed=feed, details={**_details(device), **details})
        if keys is not None:
            keys(subject_id=str(device.id), actor=actor, feed=feed)
    return device


def _details(device: Device) -> dict[str, Any]:
    return {"device": str(device.id), "site": device.site.name, "name": device.name}
