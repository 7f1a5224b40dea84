"""The table of state machines: of trainings, rounds, devices, their keys and rotations, and the model registry.

Theory of operation. A state column is never assigned; it is moved by an *event*. Each machine is a tuple of rows
(source, event, target, audit event); ``next_state`` is the only reader of the rows, and on the server
``controlplane.transitions.apply_transition`` is the only writer of a state column: it looks up the row, updates with
the source state as a condition, and records the audit entry, in one transaction. Both ends import this folder, so an
agent can tell from the same rows what the server may answer. There is no I/O here, and no clock: what follows from
a clock (overdue, silent, expired) is computed where it is asked, never stored.

Terminal states have no rows out of them. The tables in ``docs/lifecycle.md`` are generated from this folder.
"""

from typing import Final

from latticeward.lifecycle.devices import (
    DEVICE,
    ENCIPHERMENT,
    RENEWAL,
    ROTATING_DEVICE,
    ROTATION,
    DeviceState,
    EnciphermentState,
    RenewalState,
    RotatingDeviceState,
    RotationState,
)
from latticeward.lifecycle.keys import KEY, SUITE, KeyState, SuiteState
from latticeward.lifecycle.machine import Machine, Transition, next_state
from latticeward.lifecycle.models import ALIAS_MOVE, MODEL, MODEL_EXPORT, AliasMoveState, ModelExportState, ModelState
from latticeward.lifecycle.rounds import PARTICIPANT, ROUND, TRAINING, ParticipantState, RoundState, TrainingState

__all__ = [
    "ALIAS_MOVE",
    "DEVICE",
    "ENCIPHERMENT",
    "KEY",
    "MACHINES",
    "MODEL",
    "MODEL_EXPORT",
    "PARTICIPANT",
    "RENEWAL",
    "ROTATING_DEVICE",
    "ROTATION",
    "ROUND",
    "SUITE",
    "TRAINING",
    "AliasMoveState",
    "DeviceState",
    "EnciphermentState",
    "KeyState",
    "Machine",
    "ModelExportState",
    "ModelState",
    "ParticipantState",
    "RenewalState",
    "RotatingDeviceState",
    "RotationState",
    "RoundState",
    "SuiteState",
    "TrainingState",
    "Transition",
    "next_state",
]

MACHINES: Final = (
    TRAINING,
    ROUND,
    PARTICIPANT,
    DEVICE,
    RENEWAL,
    ENCIPHERMENT,
    ROTATION,
    ROTATING_DEVICE,
    SUITE,
    KEY,
    MODEL,
    ALIAS_MOVE,
    MODEL_EXPORT,
)
