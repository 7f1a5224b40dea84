"""Whose keys are due for rotation, and what a rotation would touch. Reads only."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from devices.models import Device, Federation, RotatingDevice, Scope
from devices.selectors import is_silent
from keys.models import Key, Owner
from latticeward.errors import MalformedMessageError
from latticeward.lifecycle import DeviceState, KeyState, RotatingDeviceState, SuiteState
from latticeward.renewal import RENEWAL_SHARE, SPREAD_SHARE

OPEN = (RotatingDeviceState.WAITING, RotatingDeviceState.ASKED)
# A dry run names this many silent devices; the count is of all.
NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDevice:
    """A device whose keys are due by its class's policy or for their suite, or late with their own renewal."""

    device: Device
    reason: str
    since: datetime | None
    uses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlastRadius:
    """What a rotation would touch, apart from rounds (``rounds.selectors.rounds_with``).

    Attributes:
        devices: that would be asked.
        keys: that would be replaced.
        sites, suites: how many of them, by name.
        suspended: in the scope and not asked, because they may not act.
        elsewhere: in the scope and not asked, because another rotation has them.
        silent: that have not been heard of, the first by name.
    """

    devices: int
    keys: int
    sites: dict[str, int]
    suites: dict[str, int]
    suspended: int
    elsewhere: int
    silent: int
    silent_names: list[str]


def devices_in(federation: Federation, scope: str, value: str = "") -> QuerySet[Device]:
    """The devices of a scope that have keys to renew: active ones, and suspended ones, which cannot now.

    Raises:
        MalformedMessageError: no such scope.
    """
    rows = Device.objects.filter(
        site__federation=federation, state__in=(DeviceState.ACTIVE, DeviceState.SUSPENDED)
    ).select_related("site__federation", "device_class")
    match scope:
        case Scope.FLEET:
            return rows
        case Scope.SITE:
            return rows.filter(site__slug=value)
        case Scope.DEVICE_CLASS:
            return rows.filter(device_class__slug=value)
        case Scope.SUITE:
            return rows.filter(suite=value)
        case Scope.DUE:
            return rows.filter(pk__in=[row.device.pk for row in due_devices(federation)])
    raise MalformedMessageError(f"a rotation's scope is one of {', '.join(Scope.values)}")


def eligible(rows: QuerySet[Device]) -> QuerySet[Device]:
    """Of a scope those that can be asked: active, and in no open rotation."""
    return rows.filter(state=DeviceState.ACTIVE).exclude(rotating__state__in=OPEN)


def due_devices(federation: Federation, *, now: datetime | None = None) -> list[DueDevice]:
    """Active devices whose suite goes, whose keys are too old or too much used for their class, or late to renew.

    A suite goes from the day that its retirement is announced: devices that came after the migration began, or were
    suspended then, are found here.
    Late means: past the instant by which every agent has begun by itself, so something is wrong with this one.
    """
    now = now or timezone.now()
    going = federation.suite_policies.filter(
        suite=OuterRef("suite"), state__in=(SuiteState.RETIRING, SuiteState.RETIRED)
    )
    devices = Device.objects.filter(site__federation=federation, state=DeviceState.ACTIVE)
    devices = devices.annotate(suite_goes=Exists(going))
    rows = {str(row.id): row for row in devices.select_related("site", "device_class").order_by("site__name", "name")}
    keys = Key.objects.filter(owner=Owner.DEVICE, purpose="signing", state=KeyState.ACTIVE, subject_id__in=rows)
    times = {key.subject_id: key for key in keys.only("subject_id", "not_before_at", "not_after_at", "uses")}
    found = []
    for identity, device in rows.items():
        key = times.get(identity)
        if key is None or key.not_before_at is None or key.not_after_at is None:
            continue
        if device.suite_goes:  # type: ignore[attr-defined]
            found.append(DueDevice(device=device, reason="suite", since=None, uses=key.uses))
        elif (due := _why(device, key, now)) is not None:
            found.append(DueDevice(device=device, reason=due[0], since=due[1], uses=key.uses))
    return found


def _why(device: Device, key: Key, now: datetime) -> tuple[str, datetime | None] | None:
    assert key.not_before_at is not None and key.not_after_at is not None
    terms = device.device_class
    late_at = key.not_before_at + (key.not_after_at - key.not_before_at) * (RENEWAL_SHARE + SPREAD_SHARE)
    if now >= late_at:
        return "late", late_at
    if terms.rotate_after_days is not None:
        aged_at = key.not_before_at + timedelta(days=terms.rotate_after_days)
        if now >= aged_at:
            return "age", aged_at
    if terms.rotate_after_uses is not None and key.uses >= terms.rotate_after_uses:
        return "uses", None
    return None


def blast_radius(federation: Federation, scope: str, value: str = "") -> tuple[BlastRadius, list[Device]]:
    """What a rotation of a scope would touch, and the devices that it would ask; changes nothing.

    Raises:
        MalformedMessageError: no such scope.
    """
    now = timezone.now()
    inside = devices_in(federation, scope, value)
    asked = list(eligible(inside).order_by("site__name", "name"))
    active = inside.filter(state=DeviceState.ACTIVE).count()
    silent = [device for device in asked if is_silent(device, now=now)]
    radius = BlastRadius(
        devices=len(asked),
        keys=4 * len(asked),
        sites=dict(Counter(device.site.name for device in asked)),
        suites=dict(Counter(device.suite for device in asked)),
        suspended=inside.filter(state=DeviceState.SUSPENDED).count(),
        elsewhere=active - len(asked),
        silent=len(silent),
        silent_names=[f"{device.name} of {device.site.name}" for device in silent[:NAMED]],
    )
    return radius, asked


def stragglers(rows: QuerySet[RotatingDevice], *, before: datetime) -> list[RotatingDevice]:
    """Of a rotation's devices those that were asked before an instant and have not renewed."""
    late = rows.filter(state=RotatingDeviceState.ASKED, asked_at__lt=before)
    return list(late.select_related("device__site").order_by("asked_at", "device__name"))
