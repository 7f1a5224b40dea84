"""The authority worker's part of encipherment certificates, and what the device then fetches."""

import base64
import logging
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from controlplane.transitions import apply_transition
from devices.encipherment import lapse
from devices.models import Device, Encipherment
from devices.services import names_of
from keys.encipherment import EnciphermentOrder, issue_encipherment_certificates
from keys.models import Certificate
from latticeward.errors import KeyUsageError, NotFoundError, NotPermittedError, StaleStateError, StateError
from latticeward.lifecycle import ENCIPHERMENT, DeviceState, EnciphermentState

logger = logging.getLogger(__name__)

BATCH: Final = 50


def issue_encipherments(*, actor: str = "worker:authority", limit: int = BATCH) -> int:
    """Make the certificates of proven requests, the oldest first; returns how many requests are settled.

    Runs in the authority worker, may run twice or in two workers at once. A request whose device is no longer active,
    or has other keys by now, lapses: a certificate that outlives the trust in its device would have to be revoked at
    once.

    Raises:
        CustodyError: this process does not hold the issuing key; nothing was changed.
    """
    waiting = Encipherment.objects.filter(state=EnciphermentState.PROVEN).order_by("proven_at")
    return sum(_settle(row, actor) for row in waiting[:limit])


def _settle(row: Encipherment, actor: str) -> int:
    try:
        with transaction.atomic():
            # The device's row is locked first, as by everything that takes trust away from a device.
            rows = Device.objects.select_for_update(of=("self",), no_key=True, skip_locked=True)
            device = rows.select_related("site__federation").filter(pk=row.device_id).first()
            if device is None:
                return 0  # somebody is deciding about it: the next call sees how it is then
            if device.state != DeviceState.ACTIVE:
                lapse(row, code=NotPermittedError.code, actor=actor)
            elif device.key_epoch != row.epoch:
                lapse(row, code=KeyUsageError.code, actor=actor)
            else:
                _issue(row, device, actor)
    except StaleStateError:
        return 0  # another worker was first
    except StateError as error:
        logger.warning("request %s gets no encipherment certificate: %s", row.id, error)
        row.refresh_from_db()
        if row.state == EnciphermentState.PROVEN:
            lapse(row, code=error.code, actor=actor)
    return 1


def _issue(row: Encipherment, device: Device, actor: str) -> None:
    feed = device.site.federation.feed
    order = EnciphermentOrder(
        subject_id=str(device.id), names=names_of(device), epoch=device.key_epoch, key_id=row.key_id
    )
    (certificate,) = issue_encipherment_certificates([order], actor=actor, feed=feed)
    details = {"device": str(device.id), "site": device.site.name, "name": device.name, "serial": certificate.serial}
    apply_transition(row, ENCIPHERMENT, "issue", actor=actor, feed=feed, details=details, issued_at=timezone.now())


def collect_encipherment(*, encipherment_id: UUID, device: Device) -> dict[str, Any]:
    """What the device may fetch: the request's state, and once it is issued the certificate.

    Returns:
        ``{"state"}``, with ``certificate_chain`` (DER, base64; leaf first, without the root) when it is issued, and
        ``code`` when it has lapsed.

    Raises:
        NotFoundError: not this device's request.
    """
    row = Encipherment.objects.filter(pk=encipherment_id, device_id=device.id).first()
    if row is None:
        raise NotFoundError(f"device {device.id} has no request {encipherment_id} for an encipherment certificate")
    answer: dict[str, Any] = {"state": row.state}
    if row.state == EnciphermentState.LAPSED:
        answer["code"] = row.code
    if row.state == EnciphermentState.ISSUED:
        certificate = Certificate.objects.select_related("issuer").get(key__key_id=row.key_id)
        assert certificate.issuer is not None, "a device's certificate has an issuer"
        chain = (bytes(certificate.der), bytes(certificate.issuer.der))
        answer["certificate_chain"] = [base64.b64encode(der).decode("ascii") for der in chain]
    return answer
