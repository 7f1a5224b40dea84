"""The authority worker's part of rotations: whom a job asks next, who is done, and whom it lets go.

Where a renewal is issued, its device is locked, then its part in a job, and the feed of the ledger last. All here and
in ``rotation.py`` keep to this order, or a job that moves on would wait for a certificate that waits for the job.
"""

import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from controlplane.audit.services import record, record_together
from controlplane.transitions import apply_transition, apply_transitions
from devices import suites
from devices.due import OPEN, due_devices
from devices.models import Device, Federation, RotatingDevice, Rotation
from latticeward.errors import StaleStateError, UnsupportedSuiteError
from latticeward.lifecycle import ROTATING_DEVICE, ROTATION, DeviceState, RotatingDeviceState, RotationState

logger = logging.getLogger(__name__)

# An online device begins within a long poll; one that has not after this frees its place and is a straggler.
ANSWER_WITHIN: Final = timedelta(minutes=2)
OPEN_JOBS: Final = (RotationState.RUNNING, RotationState.PAUSED)


def advance_rotations(*, actor: str = "worker:authority") -> None:
    """Ask the next devices of every running job, let go who is no device any more, and end what is over.

    Runs by the heartbeat and after every batch of new certificates; may run twice.
    """
    for job in Rotation.objects.filter(state__in=OPEN_JOBS).select_related("federation").order_by("created_at"):
        try:
            _advance(job, actor)
        except StaleStateError:
            continue  # a person or another worker moved it: the next call sees how it is then


def _advance(job: Rotation, actor: str) -> None:
    now = timezone.now()
    with transaction.atomic(), record_together():
        locked = Rotation.objects.select_for_update(of=("self",)).select_related("federation").get(pk=job.pk)
        if locked.state not in OPEN_JOBS:
            return
        open_rows = locked.rows.filter(state__in=OPEN)
        gone = (DeviceState.REVOKED, DeviceState.DECLINED)
        let_go(open_rows.filter(device__state__in=gone), locked, actor, "no_device")
        _finish(_with_devices(open_rows.filter(device__key_epoch__gt=F("from_epoch"))), locked, actor, now)
        if locked.state == RotationState.RUNNING:
            _ask(locked, actor, now)
        if not locked.rows.filter(state__in=OPEN).exists():
            left = locked.rows.filter(state=RotatingDeviceState.LEFT).count()
            details = {"devices": locked.total, "done": locked.total - left, "left": left}
            feed = locked.federation.feed
            apply_transition(locked, ROTATION, "complete", actor=actor, feed=feed, details=details, ended_at=now)


def _ask(job: Rotation, actor: str, now: datetime) -> None:
    under_way = job.rows.filter(state=RotatingDeviceState.ASKED, asked_at__gt=now - ANSWER_WITHIN).count()
    waiting = job.rows.filter(state=RotatingDeviceState.WAITING, device__state=DeviceState.ACTIVE)
    # Who was heard of last goes first: the first results, and the first mistakes, are seen early.
    order = waiting.order_by(F("device__last_seen_at").desc(nulls_last=True), "id")
    next_ones = list(order.values_list("pk", flat=True)[: max(job.at_once - under_way, 0)])
    rows = _with_devices(waiting.filter(pk__in=next_ones))
    for suite in {row.suite for row in rows}:
        of_suite = [row for row in rows if row.suite == suite]
        apply_transitions(
            of_suite, ROTATING_DEVICE, "ask", actor=actor, feed=job.federation.feed, details=_about, asked_at=now
        )
        Device.objects.filter(pk__in=[row.device_id for row in of_suite]).update(
            renewal_reason=job.cause, renewal_suite=suite
        )


def _finish(rows: list[RotatingDevice], job: Rotation, actor: str, now: datetime) -> None:
    """New keys end a device's part, unless they are of the very suite that it is to leave: then it is asked again."""
    again = [row for row in rows if job.cause == "retirement" and row.device.suite == job.scope_value]
    for row in again:
        row.from_epoch = row.device.key_epoch
        if row.state == RotatingDeviceState.ASKED:
            row.asked_at = now
            asked = Device.objects.filter(pk=row.device_id)
            asked.update(renewal_reason=job.cause, renewal_suite=row.suite)
    RotatingDevice.objects.bulk_update(again, ["from_epoch", "asked_at"])
    for state in OPEN:
        apply_transitions(
            [row for row in rows if row.state == state and row not in again],
            ROTATING_DEVICE,
            "finish",
            actor=actor,
            feed=job.federation.feed,
            details=_about,
            ended_at=now,
        )


def _with_devices(parts: QuerySet[RotatingDevice]) -> list[RotatingDevice]:
    """Parts in a job that are still such when their devices are locked, each with its device as it stands then."""
    chosen = list(parts.values_list("device_id", flat=True))
    locked = Device.objects.select_for_update(no_key=True).filter(pk__in=chosen).order_by("id")
    list(locked.values_list("pk"))
    return list(parts.filter(device__in=chosen).select_related("device__site"))


def let_go(parts: QuerySet[RotatingDevice], job: Rotation, actor: str, code: str) -> None:
    """End the part of some devices in a job, in the caller's transaction: they are no longer asked."""
    rows = _with_devices(parts)
    for state in OPEN:
        apply_transitions(
            [row for row in rows if row.state == state],
            ROTATING_DEVICE,
            "leave",
            actor=actor,
            feed=job.federation.feed,
            details=lambda row: {**_about(row), "code": code},
            ended_at=timezone.now(),
        )
    withdrawn = [row.device_id for row in rows]
    Device.objects.filter(pk__in=withdrawn).update(renewal_reason="", renewal_suite="")


def note_renewed(device_ids: Collection[UUID], *, actor: str) -> None:
    """Mark devices whose new keys were just issued as done, in the transaction of the issuing."""
    rows = RotatingDevice.objects.filter(device_id__in=device_ids, state__in=OPEN)
    by_job: dict[UUID, list[RotatingDevice]] = {}
    for row in rows.select_related("device__site", "rotation__federation"):
        by_job.setdefault(row.rotation_id, []).append(row)
    for found in by_job.values():
        _finish(found, found[0].rotation, actor, timezone.now())


def ask_due(federation: Federation, *, now: datetime | None = None) -> int:
    """Ask the devices whose suite goes, or whose class wants new keys for their age or use.

    Those that are late renew by themselves, and those of a rotation are asked by it. One for which no suite is left
    is told of in the log and keeps its keys: what its class asks for is for people to change.

    Returns:
        How many were asked.
    """
    rotating = set(RotatingDevice.objects.filter(state__in=OPEN).values_list("device_id", flat=True))
    due = [
        row
        for row in due_devices(federation, now=now)
        if row.reason != "late" and not row.device.renewal_reason and row.device.id not in rotating
    ]
    if not due:
        return 0
    accepted = suites.staying_suites(now=now)
    count = 0
    with transaction.atomic(), record_together():
        free = Device.objects.filter(pk__in=[row.device.pk for row in due], renewal_reason="", state=DeviceState.ACTIVE)
        locked = set(free.select_for_update(no_key=True).order_by("id").values_list("pk", flat=True))
        for row in due:
            device = row.device
            if device.pk not in locked:
                continue
            try:
                suite = suites.next_suite(device.device_class, present=device.suite, accepted=accepted)
            except UnsupportedSuiteError as error:
                logger.warning("device %s is due (%s) and cannot be asked: %s", device.id, row.reason, error)
                continue
            asked = Device.objects.filter(pk=device.pk)
            asked.update(renewal_reason=f"policy_{row.reason}", renewal_suite=suite)
            details = {"device": str(device.id), "site": device.site.name, "reason": row.reason, "uses": row.uses}
            record(
                "device.asked_to_renew",
                actor="system",
                feed=federation.feed,
                subject=("device", device.id),
                details={**details, "suite": suite},
            )
            count += 1
    return count


def _about(row: RotatingDevice) -> dict[str, Any]:
    device = row.device
    return {
        "device": str(device.id),
        "site": device.site.name,
        "name": device.name,
        "rotation": str(row.rotation_id),
        "suite": row.suite,
    }
