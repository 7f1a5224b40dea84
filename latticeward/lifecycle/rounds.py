"""The state machines of a training, of its rounds, and of a device in one round."""

from enum import StrEnum
from typing import Final

from latticeward.lifecycle.machine import Machine, rows


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


_T, _R, _P = TrainingState, RoundState, ParticipantState

TRAINING: Final = Machine(
    "training",
    TrainingState,
    _T.DRAFT,
    (
        *rows((_T.DRAFT,), "submit", _T.SIGNING, "training.submitted", "operator, open_training"),
        *rows((_T.SIGNING,), "start", _T.RUNNING, "training.started", "authority worker: plan signed"),
        *rows((_T.RUNNING,), "complete", _T.COMPLETED, "training.completed", "worker: stop rule met"),
        *rows((_T.DRAFT, _T.SIGNING, _T.RUNNING), "stop", _T.STOPPED, "training.stopped", "operator, stop_training"),
        *rows(
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
        *rows((_R.DRAFT,), "open", _R.SIGNING, "round.opened", "worker, open_round"),
        *rows((_R.SIGNING,), "recruit", _R.RECRUITING, "round.recruiting", "authority worker: assignment signed"),
        *rows(
            (_R.RECRUITING,),
            "begin_collecting",
            _R.COLLECTING,
            "round.collecting",
            "worker: quorum joined and (all joined or due)",
        ),
        *rows(
            (_R.COLLECTING,),
            "begin_aggregating",
            _R.AGGREGATING,
            "round.aggregating",
            "worker: nobody undecided, or due; freezes the members",
        ),
        *rows((_R.AGGREGATING,), "publish", _R.PUBLISHED, "round.published", "authority worker: result signed"),
        *rows(
            (_R.SIGNING, _R.RECRUITING, _R.COLLECTING, _R.AGGREGATING),
            "fail",
            _R.FAILED,
            "round.failed",
            "worker: due, quorum or k lost, no finite result",
        ),
        # There is no abort from aggregating: nobody may discard a result that they dislike and draw again.
        *rows(
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
        *rows((_P.INVITED,), "join", _P.JOINED, "participant.joined", "device, join_round"),
        *rows((_P.JOINED,), "submit", _P.SUBMITTED, "update.received", "device, receive_update"),
        *rows((_P.SUBMITTED,), "accept", _P.ACCEPTED, "update.accepted", "intake worker"),
        *rows((_P.SUBMITTED,), "return", _P.JOINED, "update.refused", "intake worker, with code: may try again"),
        *rows((_P.SUBMITTED,), "reject", _P.REJECTED, "update.rejected", "intake worker, with code: the third refusal"),
        *rows(
            (_P.INVITED, _P.JOINED, _P.SUBMITTED),
            "drop",
            _P.DROPPED,
            "participant.dropped",
            "worker, at the due time",
        ),
        *rows(
            (_P.INVITED, _P.JOINED, _P.SUBMITTED, _P.ACCEPTED),
            "exclude",
            _P.EXCLUDED,
            "update.excluded",
            "worker: the device was revoked or suspended before the members were frozen",
        ),
    ),
)
