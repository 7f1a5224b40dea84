"""The state machines of keys and of the suites that the federation accepts."""

from enum import StrEnum
from typing import Final

from latticeward.lifecycle.machine import Machine, rows


class SuiteState(StrEnum):
    """What the federation says of a suite; the code's own table stays the upper bound."""

    ACCEPTED = "accepted"
    RETIRING = "retiring"
    RETIRED = "retired"


class KeyState(StrEnum):
    """The states of NIST SP 800-57 part 1."""

    PRE_ACTIVE = "pre_active"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"

    @property
    def may_protect(self) -> bool:
        """Whether the key may sign or be encapsulated to."""
        return self is KeyState.ACTIVE

    @property
    def may_process(self) -> bool:
        """Whether the key may verify what it signed before, or decapsulate."""
        return self in (KeyState.ACTIVE, KeyState.DEACTIVATED, KeyState.SUSPENDED)


_S, _K = SuiteState, KeyState

SUITE: Final = Machine(
    "suite",
    SuiteState,
    _S.ACCEPTED,
    (
        *rows((_S.ACCEPTED,), "announce", _S.RETIRING, "suite.retiring", "operator, retire_suite: from a date"),
        *rows((_S.RETIRING,), "keep", _S.ACCEPTED, "suite.kept", "operator, before the date"),
        *rows((_S.RETIRING,), "retire", _S.RETIRED, "suite.retired", "worker, at the date: makes nothing new"),
    ),
)

KEY: Final = Machine(
    "key",
    KeyState,
    _K.PRE_ACTIVE,
    (
        *rows((_K.PRE_ACTIVE,), "activate", _K.ACTIVE, "key.activated", "issue_certificate"),
        *rows((_K.ACTIVE,), "supersede", _K.DEACTIVATED, "key.rotated", "rotate_key"),
        *rows(
            (_K.PRE_ACTIVE, _K.ACTIVE, _K.SUSPENDED),
            "retire",
            _K.DEACTIVATED,
            "key.retired",
            "operator: cessation, device gone",
        ),
        *rows((_K.ACTIVE,), "suspend", _K.SUSPENDED, "key.suspended", "operator"),
        *rows((_K.SUSPENDED,), "reinstate", _K.ACTIVE, "key.reinstated", "operator"),
        *rows(
            (_K.PRE_ACTIVE, _K.ACTIVE, _K.SUSPENDED, _K.DEACTIVATED),
            "compromise",
            _K.COMPROMISED,
            "key.compromised",
            "compliance, revoke_key(key_compromise)",
        ),
        *rows(
            (_K.PRE_ACTIVE, _K.DEACTIVATED, _K.COMPROMISED),
            "destroy",
            _K.DESTROYED,
            "key.destroyed",
            "vault, after the retention time",
        ),
    ),
)
