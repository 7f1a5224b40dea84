"""Rotations: having many devices renew their keys before their time, as a job with progress.

A job never makes keys: it asks devices, a few at a time, through the answer that each of them polls for anyway, and
each one renews as it would by itself (``renewal.py``). So a device that is off is asked for as long as it takes, and is
listed as a straggler meanwhile; it holds nobody else up, because only those asked a moment ago count against the limit.
"""

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition, apply_transitions
from devices import suites
from devices.due import OPEN, blast_radius, due_devices, stragglers
from devices.models import Device, Federation, RotatingDevice, Rotation, Scope
from latticeward.errors import NotFoundError, StaleStateError, StateError, UnsupportedSuiteError
from latticeward.lifecycle import ROTATING_DEVICE, ROTATION, DeviceState, RotatingDeviceState, RotationState

logger = logging.getLogger(__name__)

AT_ONCE: Final = 100
AT_ONCE_LIMIT: Final = 1000
# An online device begins within a long poll; one that has not after this frees its place and is a straggler.
ANSWER_WITHIN: Final = timedelta(minutes=2)
STRAGGLERS_SHOWN: Final = 100
_OPEN_JOBS: Final = (RotationState.RUNNING, RotationState.PAUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rotation is; ``left`` are devices that take no part any more."""

    total: int
    waiting: int
    asked: int
    done: int
    left: int
    stragglers: list[RotatingDevice]

    @property
    def percent(self) -> int:
        """Of the devices that still take part, those that are done."""
        part = self.total - self.left
        return 100 * self.done // part if part > 0 else 0


def start_rotation(
    *,
    federation: Federation,
    scope: str,
    value: str = "",
    actor: str,
    why: str = "",
    at_once: int = AT_ONCE,
    leaving: str = "",
    due_at: datetime | None = None,
) -> Rotation:
    """Make the job of rotating a scope's devices; the worker asks them (``advance_rotations``).

    Args:
        scope, value: of ``Scope``, with the slug of the site or class, or the suite's id.
        at_once: how many are asked at a time, 1 to ``AT_ONCE_LIMIT``.
        leaving: a suite that is being retired: its devices get the best that is left.
        due_at: for people: by when it should be over.

    Raises:
        MalformedMessageError: no such scope.
        StateError: no device of it can be asked.
        UnsupportedSuiteError: a device's class accepts nothing that is left.
    """
    now = timezone.now()
    with transaction.atomic():
        suites.lock_policy(federation)
        _, asked = blast_radius(federation, scope, value)
        if not asked:
            raise StateError("no device of this scope can be asked for new keys now")
        accepted = suites.staying_suites()
        job = Rotation.objects.create(
            federation=federation,
            cause="retirement" if leaving else "rotation",
            scope=scope,
            scope_value=value,
            why=why,
            at_once=min(max(at_once, 1), AT_ONCE_LIMIT),
            total=len(asked),
            created_by=actor,
            created_at=now,
            due_at=due_at,
        )
        RotatingDevice.objects.bulk_create(
            [
                RotatingDevice(
                    rotation=job,
                    device=device,
                    from_epoch=device.key_epoch,
                    suite=suites.next_suite(device.device_class, present=device.suite, accepted=accepted),
                )
                for device in asked
            ]
        )
        details = {"scope": scope, "value": value, "devices": len(asked), "cause": job.cause, "why": why}
        record("rotation.started", actor=actor, feed=federation.feed, subject=("rotation", job.id), details=details)
    return job


def retire_suite(
    *, federation: Federation, suite: str, retire_at: datetime | None, actor: str, why: str = "", at_once: int = AT_ONCE
) -> Rotation | None:
    """Retire a suite from a date, and migrate every device that uses it to the best suite that is left.

    Args:
        retire_at: None is now.

    Returns:
        The job; None if no device uses the suite.

    Raises:
        UnsupportedSuiteError, StateError, InvalidTransitionError: it cannot be retired; nothing was changed.
        InvalidValueError: the date is over.
    """
    with transaction.atomic():
        policy = suites.announce_retirement(
            federation=federation, suite=suite, retire_at=retire_at, actor=actor, why=why
        )
        # A rotation that runs already would give these devices keys of the very suite that goes.
        for job in federation.rotations.filter(state__in=_OPEN_JOBS):
            if job.rows.filter(state__in=OPEN, suite=suite).exists():
                cancel_rotation(rotation_id=job.id, actor=actor)
        _, asked = blast_radius(federation, Scope.SUITE, suite)
        if not asked:
            return None
        return start_rotation(
            federation=federation,
            scope=Scope.SUITE,
            value=suite,
            actor=actor,
            why=why or f"the suite {suite} is retired",
            at_once=at_once,
            leaving=suite,
            due_at=policy.retire_at,
        )


def keep_suite(*, federation: Federation, suite: str, actor: str) -> None:
    """Take a retirement back before its date, and cancel the job that migrates its devices.

    Raises:
        NotFoundError, InvalidTransitionError: it is not retiring.
        StateError: its date has come.
    """
    with transaction.atomic():
        suites.keep_suite(federation=federation, suite=suite, actor=actor)
        jobs = federation.rotations.filter(state__in=_OPEN_JOBS, cause="retirement", scope_value=suite)
        for job in jobs:
            cancel_rotation(rotation_id=job.id, actor=actor)


def pause_rotation(*, rotation_id: UUID, actor: str) -> Rotation:
    """Ask nobody further; who was asked may still renew."""
    return _move(rotation_id, "pause", actor)


def resume_rotation(*, rotation_id: UUID, actor: str) -> Rotation:
    """Go on asking."""
    return _move(rotation_id, "resume", actor)


def cancel_rotation(*, rotation_id: UUID, actor: str) -> Rotation:
    """End a job: who has not renewed is no longer asked."""
    with transaction.atomic():
        job = _move(rotation_id, "cancel", actor, ended_at=timezone.now())
        _let_go(list(job.rows.filter(state__in=OPEN).select_related("device__site")), job, actor, "cancelled")
    return job


def get_rotation(rotation_id: UUID) -> Rotation:
    """Raises NotFoundError: no such job."""
    job = Rotation.objects.select_related("federation").filter(pk=rotation_id).first()
    if job is None:
        raise NotFoundError(f"there is no rotation {rotation_id}")
    return job


def progress(job: Rotation, *, now: datetime | None = None) -> Progress:
    """How far a job is, with those that were asked and do not answer; two queries."""
    states = Counter(job.rows.values_list("state", flat=True))
    late = stragglers(job.rows.all(), before=(now or timezone.now()) - ANSWER_WITHIN)
    return Progress(
        total=job.total,
        waiting=states[RotatingDeviceState.WAITING],
        asked=states[RotatingDeviceState.ASKED],
        done=states[RotatingDeviceState.DONE],
        left=states[RotatingDeviceState.LEFT],
        stragglers=late[:STRAGGLERS_SHOWN],
    )


def advance_rotations(*, actor: str = "worker:authority") -> None:
    """Ask the next devices of every running job, let go who is no device any more, and end what is over.

    Runs by the heartbeat and after every batch of new certificates; may run twice.
    """
    for job in Rotation.objects.filter(state__in=_OPEN_JOBS).select_related("federation").order_by("created_at"):
        try:
            _advance(job, actor)
        except StaleStateError:
            continue  # a person or another worker moved it: the next call sees how it is then


def _advance(job: Rotation, actor: str) -> None:
    now = timezone.now()
    with transaction.atomic():
        locked = Rotation.objects.select_for_update(of=("self",)).select_related("federation").get(pk=job.pk)
        if locked.state not in _OPEN_JOBS:
            return
        open_rows = locked.rows.filter(state__in=OPEN).select_related("device__site")
        gone = (DeviceState.REVOKED, DeviceState.DECLINED)
        _let_go(list(open_rows.filter(device__state__in=gone)), locked, actor, "no_device")
        _finish(list(open_rows.filter(device__key_epoch__gt=F("from_epoch"))), locked, actor, now)
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
    order = waiting.select_related("device__site").order_by(F("device__last_seen_at").desc(nulls_last=True), "id")
    rows = list(order[: max(job.at_once - under_way, 0)])
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


def _let_go(rows: list[RotatingDevice], job: Rotation, actor: str, code: str) -> None:
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
    with transaction.atomic():
        for row in due:
            device = row.device
            try:
                suite = suites.next_suite(device.device_class, present=device.suite, accepted=accepted)
            except UnsupportedSuiteError as error:
                logger.warning("device %s is due (%s) and cannot be asked: %s", device.id, row.reason, error)
                continue
            asked = Device.objects.filter(pk=device.pk, renewal_reason="", state=DeviceState.ACTIVE)
            if asked.update(renewal_reason=f"policy_{row.reason}", renewal_suite=suite) != 1:
                continue
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


def _move(rotation_id: UUID, event: str, actor: str, **columns: Any) -> Rotation:
    job = get_rotation(rotation_id)
    apply_transition(job, ROTATION, event, actor=actor, feed=job.federation.feed, details=about_job(job), **columns)
    return job


def about_job(job: Rotation) -> dict[str, Any]:
    """What entries of the ledger say about a job."""
    return {"scope": job.scope, "value": job.scope_value, "cause": job.cause}


def _about(row: RotatingDevice) -> dict[str, Any]:
    device = row.device
    return {
        "device": str(device.id),
        "site": device.site.name,
        "name": device.name,
        "rotation": str(row.rotation_id),
        "suite": row.suite,
    }
