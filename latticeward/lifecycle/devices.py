"""The state machines of a device, of the renewal of its keys, and of rotations of many devices' keys."""

from enum import StrEnum
from typing import Final

from latticeward.lifecycle.machine import Machine, rows


class DeviceState(StrEnum):
    """The standing of an enrolled device; only ``active`` takes part in rounds."""

    PENDING = "pending"
    APPROVED = "approved"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DECLINED = "declined"
    REVOKED = "revoked"


class RenewalState(StrEnum):
    """One device's change to the next epoch of its keys."""

    BEGUN = "begun"
    PROVEN = "proven"
    ISSUED = "issued"
    LAPSED = "lapsed"
    CONFLICTED = "conflicted"


class EnciphermentState(StrEnum):
    """One device's request for an encipherment certificate."""

    BEGUN = "begun"
    PROVEN = "proven"
    ISSUED = "issued"
    LAPSED = "lapsed"


class RotationState(StrEnum):
    """A job that has many devices renew their keys before their time."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class RotatingDeviceState(StrEnum):
    """One device in one rotation."""

    WAITING = "waiting"
    ASKED = "asked"
    DONE = "done"
    LEFT = "left"


_D, _N, _C, _J, _W = DeviceState, RenewalState, EnciphermentState, RotationState, RotatingDeviceState

DEVICE: Final = Machine(
    "device",
    DeviceState,
    _D.PENDING,
    (
        *rows((_D.PENDING,), "approve", _D.APPROVED, "device.approved", "operator or policy, approve_device"),
        *rows((_D.PENDING,), "decline", _D.DECLINED, "device.declined", "operator, or the enrolment expires"),
        *rows((_D.APPROVED,), "activate", _D.ACTIVE, "device.activated", "authority worker: certificate issued"),
        *rows((_D.ACTIVE,), "suspend", _D.SUSPENDED, "device.suspended", "operator, or policy"),
        *rows((_D.SUSPENDED,), "reinstate", _D.ACTIVE, "device.reinstated", "operator"),
        *rows(
            (_D.APPROVED, _D.ACTIVE, _D.SUSPENDED), "revoke", _D.REVOKED, "device.revoked", "compliance, revoke_device"
        ),
    ),
)

RENEWAL: Final = Machine(
    "renewal",
    RenewalState,
    _N.BEGUN,
    (
        *rows((_N.BEGUN,), "prove", _N.PROVEN, "renewal.proven", "device, finish_renewal"),
        *rows((_N.PROVEN,), "issue", _N.ISSUED, "renewal.issued", "authority worker: certificate and statement made"),
        *rows(
            (_N.BEGUN, _N.PROVEN),
            "lapse",
            _N.LAPSED,
            "renewal.lapsed",
            "server: the device may not have these keys (any more)",
        ),
        # An issued renewal is a branch as well: of two from one key nobody can tell which one is the device's.
        *rows(
            (_N.BEGUN, _N.PROVEN, _N.ISSUED),
            "conflict",
            _N.CONFLICTED,
            "renewal.conflicted",
            "server: a second renewal from the same key",
        ),
    ),
)

ENCIPHERMENT: Final = Machine(
    "encipherment",
    EnciphermentState,
    _C.BEGUN,
    (
        *rows((_C.BEGUN,), "prove", _C.PROVEN, "encipherment.proven", "device, finish_encipherment"),
        *rows((_C.PROVEN,), "issue", _C.ISSUED, "encipherment.issued", "authority worker: certificate made"),
        *rows(
            (_C.BEGUN, _C.PROVEN),
            "lapse",
            _C.LAPSED,
            "encipherment.lapsed",
            "server: another request came, or the device may not have this key (any more)",
        ),
    ),
)

ROTATION: Final = Machine(
    "rotation",
    RotationState,
    _J.RUNNING,
    (
        *rows((_J.RUNNING,), "pause", _J.PAUSED, "rotation.paused", "operator: nobody further is asked"),
        *rows((_J.PAUSED,), "resume", _J.RUNNING, "rotation.resumed", "operator"),
        *rows(
            (_J.RUNNING, _J.PAUSED), "complete", _J.COMPLETED, "rotation.completed", "worker: every device done or left"
        ),
        *rows((_J.RUNNING, _J.PAUSED), "cancel", _J.CANCELLED, "rotation.cancelled", "operator"),
    ),
)

ROTATING_DEVICE: Final = Machine(
    "rotating_device",
    RotatingDeviceState,
    _W.WAITING,
    (
        *rows((_W.WAITING,), "ask", _W.ASKED, "device.asked_to_renew", "worker: as many at once as the job says"),
        *rows((_W.WAITING, _W.ASKED), "finish", _W.DONE, "device.rotated", "authority worker: new keys issued"),
        *rows(
            (_W.WAITING, _W.ASKED),
            "leave",
            _W.LEFT,
            "device.left_rotation",
            "worker: the device is no device any more; operator: the job was cancelled",
        ),
    ),
)
