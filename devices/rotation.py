"""Rotations: having many devices renew their keys before their time, as a job with progress.

A job never makes keys: it asks devices, a few at a time, through the answer that each of them polls for anyway, and
each one renews as it would by itself (``renewal.py``). So a device that is off is asked for as long as it takes, and is
listed as a straggler meanwhile; it holds nobody else up, because only those asked a moment ago count against the limit.
People's part is here, the worker's in ``rotation_asking.py``.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record, record_together
from controlplane.transitions import apply_transition
from devices import suites
from devices.due import OPEN, blast_radius, stragglers
from devices.models import Federation, RotatingDevice, Rotation, Scope
from devices.rotation_asking import ANSWER_WITHIN, OPEN_JOBS, let_go
from latticeward.errors import NotFoundError, StateError
from latticeward.lifecycle import ROTATION, RotatingDeviceState

AT_ONCE: Final = 100
AT_ONCE_LIMIT: Final = 1000
STRAGGLERS_SHOWN: Final = 100


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
    with transaction.atomic(), record_together():
        policy = suites.announce_retirement(
            federation=federation, suite=suite, retire_at=retire_at, actor=actor, why=why
        )
        # A rotation that runs already would give these devices keys of the very suite that goes.
        for job in federation.rotations.filter(state__in=OPEN_JOBS):
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
    with transaction.atomic(), record_together():
        suites.keep_suite(federation=federation, suite=suite, actor=actor)
        jobs = federation.rotations.filter(state__in=OPEN_JOBS, cause="retirement", scope_value=suite)
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
    with transaction.atomic(), record_together():
        job = _move(rotation_id, "cancel", actor, ended_at=timezone.now())
        let_go(job.rows.filter(state__in=OPEN), job, actor, "cancelled")
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


def _move(rotation_id: UUID, event: str, actor: str, **columns: Any) -> Rotation:
    job = get_rotation(rotation_id)
    apply_transition(job, ROTATION, event, actor=actor, feed=job.federation.feed, details=about_job(job), **columns)
    return job


def about_job(job: Rotation) -> dict[str, Any]:
    """What entries of the ledger say about a job."""
    return {"scope": job.scope, "value": job.scope_value, "cause": job.cause}
