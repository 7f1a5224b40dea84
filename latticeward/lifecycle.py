"""The state machines of training, round, participant, device, renewal, rotation, key and model registry, as tables.

Theory of operation. A state column is never assigned; it is moved by an *event*. Each machine is a tuple of rows
(source, event, target, audit event); ``next_state`` is the only reader of the rows, and on the server
``controlplane.transitions.apply_transition`` is the only writer of a state column: it looks up the row, updates with
the source state as a condition, and records the audit entry, in one transaction. Both ends import this file, so an
agent can tell from the same rows what the server may answer. There is no I/O here, and no clock: what follows from
a clock (overdue, silent, expired) is computed where it is asked, never stored.

Terminal states have no rows out of them. The tables in ``docs/lifecycle.md`` are generated from this file.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from latticeward.errors import InvalidTransitionError


class TrainingState(StrEnum):
    """A signed plan plus its series of rounds."""

    DRAFT = "draft"
    SIGNING = "signing"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


class RoundState(StrEnum):
    """One federated learning step. ``failed``, ``aborted`` and ``published`` are final."""

    DRAFT = "draft"
    SIGNING = "signing"
    RECRUITING = "recruiting"
    COLLECTING = "collecting"
    AGGREGATING = "aggregating"
    PUBLISHED = "published"
    FAILED = "failed"
    ABORTED = "aborted"


class ParticipantState(StrEnum):
    """One device in one round."""

    INVITED = "invited"
    JOINED = "joined"
    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DROPPED = "dropped"
    EXCLUDED = "excluded"


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


class ModelState(StrEnum):
    """The standing of a published model version; only ``available`` may be aliased or started from."""

    AVAILABLE = "available"
    RETIRED = "retired"
    REVOKED = "revoked"


class AliasMoveState(StrEnum):
    """A proposal to point an alias at a model version: one person makes it, another decides."""

    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class ModelExportState(StrEnum):
    """A file of a model's weights, made for one person to fetch once."""

    REQUESTED = "requested"
    READY = "ready"
    TAKEN = "taken"
    EXPIRED = "expired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row: ``event`` moves ``source`` to ``target`` and is audited as ``audit_event``."""

    source: str
    event: str
    target: str
    audit_event: str
    trigger: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A named table of transitions over one enum of states."""

    name: str
    states: type[StrEnum]
    initial: str
    rows: tuple[Transition, ...]

    @property
    def terminal(self) -> frozenset[str]:
        """States with no row out of them."""
        return frozenset(str(state) for state in self.states) - {row.source for row in self.rows}


def _rows(sources: tuple[StrEnum, ...], event: str, target: StrEnum, audit: str, trigger: str) -> list[Transition]:
    return [Transition(str(source), event, str(target), audit, trigger) for source in sources]


_T, _R, _P, _D, _K = TrainingState, RoundState, ParticipantState, DeviceState, KeyState
_M, _A, _E = ModelState, AliasMoveState, ModelExportState
_N, _J, _W, _S = RenewalState, RotationState, RotatingDeviceState, SuiteState

TRAINING: Final = Machine(
    "training",
    TrainingState,
    _T.DRAFT,
    (
        *_rows((_T.DRAFT,), "submit", _T.SIGNING, "training.submitted", "operator, open_training"),
        *_rows((_T.SIGNING,), "start", _T.RUNNING, "training.started", "authority worker: plan signed"),
        *_rows((_T.RUNNING,), "complete", _T.COMPLETED, "training.completed", "worker: stop rule met"),
        *_rows((_T.DRAFT, _T.SIGNING, _T.RUNNING), "stop", _T.STOPPED, "training.stopped", "operator, stop_training"),
        *_rows(
            (_T.SIGNING, _T.RUNNING),
            "fail",
            _T.FAILED,
            "training.failed",
            "worker: not signed in time, or rounds failed in a row",
        ),
    ),
)

ROUND: Final = Machine(
    "round",
    RoundState,
    _R.DRAFT,
    (
        *_rows((_R.DRAFT,), "open", _R.SIGNING, "round.opened", "worker, open_round"),
        *_rows((_R.SIGNING,), "recruit", _R.RECRUITING, "round.recruiting", "authority worker: assignment signed"),
        *_rows(
            (_R.RECRUITING,),
            "begin_collecting",
            _R.COLLECTING,
            "round.collecting",
            "worker: quorum joined and (all joined or due)",
        ),
        *_rows(
            (_R.COLLECTING,),
            "begin_aggregating",
            _R.AGGREGATING,
            "round.aggregating",
            "worker: nobody undecided, or due; freezes the members",
        ),
        *_rows((_R.AGGREGATING,), "publish", _R.PUBLISHED, "round.published", "authority worker: result signed"),
        *_rows(
            (_R.SIGNING, _R.RECRUITING, _R.COLLECTING, _R.AGGREGATING),
            "fail",
            _R.FAILED,
            "round.failed",
            "worker: due, quorum or k lost, no finite result",
        ),
        # There is no abort from aggregating: nobody may discard a result that they dislike and draw again.
        *_rows(
            (_R.DRAFT, _R.SIGNING, _R.RECRUITING, _R.COLLECTING),
            "abort",
            _R.ABORTED,
            "round.aborted",
            "operator, stop_training",
        ),
    ),
)

PARTICIPANT: Final = Machine(
    "participant",
    ParticipantState,
    _P.INVITED,
    (
        *_rows((_P.INVITED,), "join", _P.JOINED, "participant.joined", "device, join_round"),
        *_rows((_P.JOINED,), "submit", _P.SUBMITTED, "update.received", "device, receive_update"),
        *_rows((_P.SUBMITTED,), "accept", _P.ACCEPTED, "update.accepted", "intake worker"),
        *_rows((_P.SUBMITTED,), "return", _P.JOINED, "update.refused", "intake worker, with code: may try again"),
        *_rows(
            (_P.SUBMITTED,), "reject", _P.REJECTED, "update.rejected", "intake worker, with code: the third refusal"
        ),
        *_rows(
            (_P.INVITED, _P.JOINED, _P.SUBMITTED),
            "drop",
            _P.DROPPED,
            "participant.dropped",
            "worker, at the due time",
        ),
        *_rows(
            (_P.INVITED, _P.JOINED, _P.SUBMITTED, _P.ACCEPTED),
            "exclude",
            _P.EXCLUDED,
            "update.excluded",
            "worker: the device was revoked or suspended before the members were frozen",
        ),
    ),
)

DEVICE: Final = Machine(
    "device",
    DeviceState,
    _D.PENDING,
    (
        *_rows((_D.PENDING,), "approve", _D.APPROVED, "device.approved", "operator or policy, approve_device"),
        *_rows((_D.PENDING,), "decline", _D.DECLINED, "device.declined", "operator, or the enrolment expires"),
        *_rows((_D.APPROVED,), "activate", _D.ACTIVE, "device.activated", "authority worker: certificate issued"),
        *_rows((_D.ACTIVE,), "suspend", _D.SUSPENDED, "device.suspended", "operator, or policy"),
        *_rows((_D.SUSPENDED,), "reinstate", _D.ACTIVE, "device.reinstated", "operator"),
        *_rows(
            (_D.APPROVED, _D.ACTIVE, _D.SUSPENDED), "revoke", _D.REVOKED, "device.revoked", "compliance, revoke_device"
        ),
    ),
)

RENEWAL: Final = Machine(
    "renewal",
    RenewalState,
    _N.BEGUN,
    (
        *_rows((_N.BEGUN,), "prove", _N.PROVEN, "renewal.proven", "device, finish_renewal"),
        *_rows((_N.PROVEN,), "issue", _N.ISSUED, "renewal.issued", "authority worker: certificate and statement made"),
        *_rows(
            (_N.BEGUN, _N.PROVEN),
            "lapse",
            _N.LAPSED,
            "renewal.lapsed",
            "server: the device may not have these keys (any more)",
        ),
        # An issued renewal is a branch as well: of two from one key nobody can tell which one is the device's.
        *_rows(
            (_N.BEGUN, _N.PROVEN, _N.ISSUED),
            "conflict",
            _N.CONFLICTED,
            "renewal.conflicted",
            "server: a second renewal from the same key",
        ),
    ),
)

ROTATION: Final = Machine(
    "rotation",
    RotationState,
    _J.RUNNING,
    (
        *_rows((_J.RUNNING,), "pause", _J.PAUSED, "rotation.paused", "operator: nobody further is asked"),
        *_rows((_J.PAUSED,), "resume", _J.RUNNING, "rotation.resumed", "operator"),
        *_rows(
            (_J.RUNNING, _J.PAUSED), "complete", _J.COMPLETED, "rotation.completed", "worker: every device done or left"
        ),
        *_rows((_J.RUNNING, _J.PAUSED), "cancel", _J.CANCELLED, "rotation.cancelled", "operator"),
    ),
)

ROTATING_DEVICE: Final = Machine(
    "rotating_device",
    RotatingDeviceState,
    _W.WAITING,
    (
        *_rows((_W.WAITING,), "ask", _W.ASKED, "device.asked_to_renew", "worker: as many at once as the job says"),
        *_rows((_W.WAITING, _W.ASKED), "finish", _W.DONE, "device.rotated", "authority worker: new keys issued"),
        *_rows(
            (_W.WAITING, _W.ASKED),
            "leave",
            _W.LEFT,
            "device.left_rotation",
            "worker: the device is no device any more; operator: the job was cancelled",
        ),
    ),
)

SUITE: Final = Machine(
    "suite",
    SuiteState,
    _S.ACCEPTED,
    (
        *_rows((_S.ACCEPTED,), "announce", _S.RETIRING, "suite.retiring", "operator, retire_suite: from a date"),
        *_rows((_S.RETIRING,), "keep", _S.ACCEPTED, "suite.kept", "operator, before the date"),
        *_rows((_S.RETIRING,), "retire", _S.RETIRED, "suite.retired", "worker, at the date: makes nothing new"),
    ),
)

KEY: Final = Machine(
    "key",
    KeyState,
    _K.PRE_ACTIVE,
    (
        *_rows((_K.PRE_ACTIVE,), "activate", _K.ACTIVE, "key.activated", "issue_certificate"),
        *_rows((_K.ACTIVE,), "supersede", _K.DEACTIVATED, "key.rotated", "rotate_key"),
        *_rows(
            (_K.PRE_ACTIVE, _K.ACTIVE, _K.SUSPENDED),
            "retire",
            _K.DEACTIVATED,
            "key.retired",
            "operator: cessation, device gone",
        ),
        *_rows((_K.ACTIVE,), "suspend", _K.SUSPENDED, "key.suspended", "operator"),
        *_rows((_K.SUSPENDED,), "reinstate", _K.ACTIVE, "key.reinstated", "operator"),
        *_rows(
            (_K.PRE_ACTIVE, _K.ACTIVE, _K.SUSPENDED, _K.DEACTIVATED),
            "compromise",
            _K.COMPROMISED,
            "key.compromised",
            "compliance, revoke_key(key_compromise)",
        ),
        *_rows(
            (_K.PRE_ACTIVE, _K.DEACTIVATED, _K.COMPROMISED),
            "destroy",
            _K.DESTROYED,
            "key.destroyed",
            "vault, after the retention time",
        ),
    ),
)

MODEL: Final = Machine(
    "model",
    ModelState,
    _M.AVAILABLE,
    (
        *_rows((_M.AVAILABLE,), "retire", _M.RETIRED, "model.retired", "operator, retire_model: superseded"),
        *_rows(
            (_M.AVAILABLE, _M.RETIRED),
            "revoke",
            _M.REVOKED,
            "model.revoked",
            "operator or compliance, revoke_model: must not be used",
        ),
    ),
)

ALIAS_MOVE: Final = Machine(
    "alias_move",
    AliasMoveState,
    _A.PROPOSED,
    (
        *_rows((_A.PROPOSED,), "confirm", _A.CONFIRMED, "alias.moved", "another operator or compliance officer"),
        *_rows(
            (_A.PROPOSED,),
            "decline",
            _A.DECLINED,
            "alias.declined",
            "another operator or compliance officer, or the version lost its standing",
        ),
        *_rows((_A.PROPOSED,), "withdraw", _A.WITHDRAWN, "alias.withdrawn", "operator, who proposed it"),
        *_rows((_A.PROPOSED,), "expire", _A.EXPIRED, "alias.expired", "worker: nobody decided in time"),
    ),
)

MODEL_EXPORT: Final = Machine(
    "model_export",
    ModelExportState,
    _E.REQUESTED,
    (
        *_rows(
            (_E.REQUESTED,), "make", _E.READY, "model_export.made", "aggregation worker: sealed, waits to be fetched"
        ),
        *_rows((_E.READY,), "take", _E.TAKEN, "model_export.taken", "operator, who asked for it, once"),
        *_rows((_E.REQUESTED, _E.READY), "expire", _E.EXPIRED, "model_export.expired", "worker, at the due time"),
        *_rows((_E.REQUESTED,), "fail", _E.FAILED, "model_export.failed", "aggregation worker, with code"),
    ),
)

MACHINES: Final = (
    TRAINING,
    ROUND,
    PARTICIPANT,
    DEVICE,
    RENEWAL,
    ROTATION,
    ROTATING_DEVICE,
    SUITE,
    KEY,
    MODEL,
    ALIAS_MOVE,
    MODEL_EXPORT,
)


def next_state(machine: Machine, source: str, event: str) -> Transition:
    """Find the row that ``event`` takes from ``source``.

    Raises:
        InvalidTransitionError: the table has no such row.
    """
    for row in machine.rows:
        if row.source == source and row.event == event:
            return row
    raise InvalidTransitionError(f"a {machine.name} in state {source!r} does not take the event {event!r}")
