"""The authority worker's part of renewals: certificates and statements of proven ones, a batch at a time."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from controlplane.audit.services import record_together
from controlplane.transitions import apply_transitions
from devices.models import Device, Renewal
from devices.renewal import lapse
from devices.rotation_asking import note_renewed
from devices.services import order_for
from keys.issuing import issue_certificates
from keys.selectors import device_keys
from latticeward.errors import StateError
from latticeward.lifecycle import RENEWAL, DeviceState, KeyState, RenewalState

logger = logging.getLogger(__name__)

# Signing one takes about a millisecond and a half; a batch holds its rows for under a fifth of a second.
BATCH: Final = 50


def issue_renewals(*, actor: str = "worker:authority", limit: int = BATCH) -> int:
    """Make certificates and statements of proven renewals, the oldest first; returns how many are done.

    Runs in the authority worker, may run twice or in two workers at once. The new keys become active and the old ones
    superseded in one instant.

    Raises:
        CustodyError: this process does not hold the issuing key; nothing was changed.
    """
    # Those of suspended and revoked devices wait or never end; they must not fill the batch.
    proven = Renewal.objects.filter(
        state=RenewalState.PROVEN, device__state=DeviceState.ACTIVE, device__key_epoch=F("parent_epoch")
    ).order_by("proven_at")
    try:
        return _issue(list(proven[:limit]), actor)
    except StateError:
        # One of them moved, or lost its keys: each by itself, so that it keeps none of the others up.
        return sum(_issue_alone(renewal, actor) for renewal in proven[:limit])


def _issue_alone(renewal: Renewal, actor: str) -> int:
    try:
        return _issue([renewal], actor)
    except StateError as error:
        logger.warning("renewal %s is not issued: %s", renewal.id, error)
        with transaction.atomic():
            renewal.refresh_from_db()
            if renewal.state == RenewalState.PROVEN and not _keys_wait(renewal):
                lapse(renewal, code=error.code, actor=actor)
        return 0


def _keys_wait(renewal: Renewal) -> bool:
    rows = device_keys(str(renewal.device_id), epoch=renewal.parent_epoch + 1).values()
    return len(rows) == 4 and all(row.state == KeyState.PRE_ACTIVE for row in rows)


def _issue(waiting: Sequence[Renewal], actor: str) -> int:
    now = timezone.now()
    with transaction.atomic(), record_together():
        # The devices' rows are locked first, in one order, as by everything that takes trust away from a device; no
        # harder than an update does, since rows that come to refer to one are checked while the ledger is held.
        rows = Device.objects.select_for_update(of=("self",), no_key=True, skip_locked=True).order_by("id")
        active = {
            device.id: device
            for device in rows.filter(
                pk__in=[renewal.device_id for renewal in waiting], state=DeviceState.ACTIVE
            ).select_related("site__federation", "device_class")
        }
        ready = [
            renewal
            for renewal in waiting
            if renewal.device_id in active and active[renewal.device_id].key_epoch == renewal.parent_epoch
        ]
        if not ready:
            return 0
        devices = [active[renewal.device_id] for renewal in ready]
        feed = devices[0].site.federation.feed
        apply_transitions(ready, RENEWAL, "issue", actor=actor, feed=feed, details=_about(active), issued_at=now)
        issue_certificates(
            [order_for(device, epoch=device.key_epoch + 1) for device in devices], actor=actor, feed=feed
        )
        for suite in {renewal.suite for renewal in ready}:
            of_suite = [renewal.device_id for renewal in ready if renewal.suite == suite]
            Device.objects.filter(pk__in=of_suite).update(
                key_epoch=F("key_epoch") + 1, suite=suite, renewal_reason="", renewal_suite=""
            )
        note_renewed([device.id for device in devices], actor=actor)
    return len(ready)


def _about(devices: Mapping[UUID, Device]) -> Callable[[Renewal], dict[str, Any]]:
    def details(renewal: Renewal) -> dict[str, Any]:
        device = devices[renewal.device_id]
        return {
            "device": str(device.id),
            "site": device.site.name,
            "name": device.name,
            "epoch": renewal.parent_epoch + 1,
            "suite": renewal.suite,
        }

    return details
