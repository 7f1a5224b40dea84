"""The JSON of rotations, due devices and suites."""

from typing import Any

from rest_framework import serializers

from controlplane.serializers import ListQuery
from devices.due import BlastRadius, DueDevice
from devices.models import RotatingDevice, Rotation, Scope
from devices.rotation import AT_ONCE, AT_ONCE_LIMIT, Progress
from devices.suites import SuiteStanding
from latticeward.lifecycle import RotationState


class ScopeSerializer(serializers.Serializer[Any]):
    """Which devices."""

    scope = serializers.ChoiceField(choices=Scope.values, default=Scope.FLEET.value)
    value = serializers.CharField(
        max_length=63, required=False, allow_blank=True, default="", help_text="slug of the site or class, or the suite"
    )


class RotationOrderSerializer(ScopeSerializer):
    """What is to be rotated."""

    why = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")
    at_once = serializers.IntegerField(min_value=1, max_value=AT_ONCE_LIMIT, default=AT_ONCE)


class RetirementSerializer(serializers.Serializer[Any]):
    """From when on a suite makes nothing new: a date to come, or now."""

    retire_at = serializers.DateTimeField(required=False, help_text="to come; leave it out with now")
    now = serializers.BooleanField(required=False, default=False, help_text="at once, and for good")
    why = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")
    at_once = serializers.IntegerField(min_value=1, max_value=AT_ONCE_LIMIT, default=AT_ONCE)


class StragglerSerializer(serializers.Serializer[Any]):
    """A device that was asked and has not renewed."""

    device = serializers.UUIDField()
    name = serializers.CharField()
    site = serializers.CharField()
    asked_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField(allow_null=True)


class RotationSerializer(serializers.Serializer[Any]):
    """A job with its progress."""

    id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=[str(state) for state in RotationState])
    cause = serializers.CharField()
    scope = serializers.CharField()
    value = serializers.CharField()
    why = serializers.CharField()
    at_once = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    due_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    total = serializers.IntegerField()
    waiting = serializers.IntegerField()
    asked = serializers.IntegerField()
    done = serializers.IntegerField()
    left = serializers.IntegerField()
    percent = serializers.IntegerField()
    stragglers = StragglerSerializer(many=True)


class RotationsQuery(ListQuery):
    """Filters of the list of rotations."""

    state = serializers.ChoiceField(choices=[str(state) for state in RotationState], required=False)


class RunningRoundSerializer(serializers.Serializer[Any]):
    """A round that runs now with devices of a scope."""

    round = serializers.UUIDField()
    training = serializers.CharField()
    number = serializers.IntegerField()
    state = serializers.CharField()
    suite = serializers.CharField()
    devices = serializers.IntegerField(help_text="of the scope")


class BlastRadiusSerializer(serializers.Serializer[Any]):
    """What a rotation would touch; nothing is changed by asking."""

    devices = serializers.IntegerField()
    keys = serializers.IntegerField()
    sites = serializers.DictField(child=serializers.IntegerField())
    suites = serializers.DictField(child=serializers.IntegerField())
    suspended = serializers.IntegerField()
    elsewhere = serializers.IntegerField(help_text="in another rotation")
    silent = serializers.IntegerField()
    silent_names = serializers.ListField(child=serializers.CharField())
    rounds = RunningRoundSerializer(many=True)


class DueSerializer(serializers.Serializer[Any]):
    """A device whose keys are due."""

    device = serializers.UUIDField()
    name = serializers.CharField()
    site = serializers.CharField()
    device_class = serializers.CharField()
    suite = serializers.CharField()
    reason = serializers.ChoiceField(choices=["suite", "age", "uses", "late"])
    since = serializers.DateTimeField(allow_null=True)
    uses = serializers.IntegerField()


class SuiteSerializer(serializers.Serializer[Any]):
    """A suite as the federation has it."""

    suite = serializers.CharField()
    title = serializers.CharField()
    state = serializers.ChoiceField(choices=["available", "accepted", "retiring", "retired"])
    retire_at = serializers.DateTimeField(allow_null=True)
    devices = serializers.IntegerField()


def rotation_as_json(job: Rotation, done: Progress) -> dict[str, Any]:
    """One job with its progress."""
    names = ("id", "state", "cause", "scope", "why", "at_once", "created_at", "due_at", "ended_at")
    counts = ("total", "waiting", "asked", "done", "left", "percent")
    return {
        **{name: getattr(job, name) for name in names},
        "value": job.scope_value,
        **{name: getattr(done, name) for name in counts},
        "stragglers": [_straggler(row) for row in done.stragglers],
    }


def _straggler(row: RotatingDevice) -> dict[str, Any]:
    device = row.device
    return {
        "device": device.id,
        "name": device.name,
        "site": device.site.slug,
        "asked_at": row.asked_at,
        "last_seen_at": device.last_seen_at,
    }


def radius_as_json(radius: BlastRadius, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """A dry run's answer."""
    return {**{name: getattr(radius, name) for name in BlastRadius.__slots__}, "rounds": rounds}


def due_as_json(row: DueDevice) -> dict[str, Any]:
    """One row of the due list."""
    device = row.device
    return {
        "device": device.id,
        "name": device.name,
        "site": device.site.slug,
        "device_class": device.device_class.slug,
        "suite": device.suite,
        "reason": row.reason,
        "since": row.since,
        "uses": row.uses,
    }


def suite_as_json(row: SuiteStanding) -> dict[str, Any]:
    """One suite."""
    return {
        "suite": row.suite.id,
        "title": row.suite.title,
        "state": row.state,
        "retire_at": row.retire_at,
        "devices": row.devices,
    }
