"""How states and codes are said to people: one row a state with its word, its shape, its tone and a sentence.

Colour never speaks alone: every row has a word and a shape of its own within its table. Public sentences of refusals
come from ``controlplane/errors.py``; only codes that are no error class are said here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controlplane.errors import PROBLEMS
from latticeward.lifecycle import (
    AliasMoveState,
    DeviceState,
    KeyState,
    ModelExportState,
    ModelState,
    ParticipantState,
    RotationState,
    RoundState,
    SuiteState,
    TrainingState,
)


@dataclass(frozen=True, slots=True)
class Word:
    """A state as it is shown. ``icon`` names a shape of the sprite; ``tone`` a colour of ``app.css``."""

    text: str
    icon: str
    tone: str
    sentence: str = ""


UNKNOWN: Final = Word("unknown", "question", "quiet", "Nothing is known about this yet.")

TRAINING: Final[Mapping[str, Word]] = {
    TrainingState.DRAFT: Word("draft", "circle-dashed", "quiet", "The plan is being written."),
    TrainingState.SIGNING: Word("signing", "pen", "active", "The plan waits for the authority's signature."),
    TrainingState.RUNNING: Word("running", "play", "active", "Rounds are being run."),
    TrainingState.COMPLETED: Word("completed", "check", "good", "The training reached its stop rule."),
    TrainingState.STOPPED: Word("stopped", "stop", "quiet", "An operator stopped the training."),
    TrainingState.FAILED: Word("failed", "cross", "bad", "The training ended without reaching its stop rule."),
}

ROUND: Final[Mapping[str, Word]] = {
    RoundState.DRAFT: Word("draft", "circle-dashed", "quiet", "The round is being prepared."),
    RoundState.SIGNING: Word("signing", "pen", "active", "The assignment waits for the authority's signature."),
    RoundState.RECRUITING: Word("recruiting", "hand", "active", "Devices are invited and join."),
    RoundState.COLLECTING: Word("collecting", "inbox", "active", "Hospitals train and send their updates."),
    RoundState.AGGREGATING: Word("aggregating", "sum", "active", "The members are fixed; the sum is computed."),
    RoundState.PUBLISHED: Word("published", "check", "good", "The result is signed and published."),
    RoundState.FAILED: Word("failed", "cross", "bad", "The round ended without a result."),
    RoundState.ABORTED: Word("aborted", "stop", "quiet", "The round was aborted."),
}

PARTICIPANT: Final[Mapping[str, Word]] = {
    ParticipantState.INVITED: Word("invited", "circle-dashed", "quiet", "Asked to join; has not answered yet."),
    ParticipantState.JOINED: Word("training", "play", "active", "Joined and trains on its own data."),
    ParticipantState.SUBMITTED: Word("verifying", "inbox", "active", "The update arrived and is being verified."),
    ParticipantState.ACCEPTED: Word("counted", "check", "good", "The update was verified and counted."),
    ParticipantState.REJECTED: Word("refused", "cross", "bad", "The update was refused for the last time."),
    ParticipantState.DROPPED: Word("late", "clock", "warn", "Given up on in this round; the next invites it again."),
    ParticipantState.EXCLUDED: Word("excluded", "stop", "bad", "Its update was taken out of the round again."),
}

# Not late: somebody ended the training under them.
STOPPED: Final = Word("stopped", "stop", "quiet", "The training was stopped before an update of it was counted.")
VERIFIED: Final = Word(
    "verified", "circle", "quiet", "The update was verified; the round ended without a result, so it counts in none."
)
NOT_COUNTED: Final = Word("not counted", "circle", "quiet", "The round ended before an update of it was counted.")

CREDENTIAL: Final[Mapping[str, Word]] = {
    DeviceState.PENDING: Word("pending", "hand", "warn", "Waits for a person's approval."),
    DeviceState.APPROVED: Word("approved", "pen", "active", "Approved; the certificate is being made."),
    DeviceState.ACTIVE: Word("active", "check", "good", "Certificate issued; takes part in rounds."),
    DeviceState.SUSPENDED: Word("suspended", "pause", "warn", "Takes no part until it is reinstated."),
    DeviceState.DECLINED: Word("declined", "cross", "quiet", "Was not let in."),
    DeviceState.REVOKED: Word("revoked", "stop", "bad", "Trust was taken away for good."),
}

CLAIM: Final[Mapping[str, Word]] = {
    "open": Word("open", "circle-dashed", "active", "May be used once, until it expires."),
    "reserved": Word("in use", "pen", "active", "A machine has begun to enrol with it."),
    "used": Word("used", "check", "good", "A machine enrolled with it."),
    "cancelled": Word("cancelled", "stop", "quiet", "An operator made it worthless."),
    "expired": Word("expired", "clock", "quiet", "Nobody used it in time."),
}

MODEL: Final[Mapping[str, Word]] = {
    ModelState.AVAILABLE: Word("available", "check", "good", "Published; may be aliased and started from."),
    ModelState.RETIRED: Word("retired", "circle", "quiet", "Superseded; hospitals keep it, nothing begins with it."),
    ModelState.REVOKED: Word("revoked", "stop", "bad", "Must not be used; it is handed out no more."),
}

ALIAS_MOVE: Final[Mapping[str, Word]] = {
    AliasMoveState.PROPOSED: Word("proposed", "hand", "warn", "Waits for a second person."),
    AliasMoveState.CONFIRMED: Word("confirmed", "check", "good", "A second person agreed, and the alias was moved."),
    AliasMoveState.DECLINED: Word("declined", "cross", "quiet", "A second person said no, or the version fell."),
    AliasMoveState.WITHDRAWN: Word("withdrawn", "stop", "quiet", "Taken back by the person who proposed it."),
    AliasMoveState.EXPIRED: Word("expired", "clock", "quiet", "Nobody decided in time."),
}

MODEL_EXPORT: Final[Mapping[str, Word]] = {
    ModelExportState.REQUESTED: Word("being made", "pen", "active", "The aggregation worker writes and seals it."),
    ModelExportState.READY: Word("ready", "inbox", "good", "Waits to be fetched, once."),
    ModelExportState.TAKEN: Word("taken", "check", "quiet", "Handed out; nothing of it is kept here."),
    ModelExportState.EXPIRED: Word("expired", "clock", "quiet", "Not fetched in time, and destroyed."),
    ModelExportState.FAILED: Word("failed", "cross", "bad", "It could not be made."),
}

# Unknown is not offline: a device that never called has shown nothing about its line.
CONNECTION: Final[Mapping[str, Word]] = {
    "online": Word("online", "dot", "good", "Called within the last 75 seconds."),
    "late": Word("late", "clock", "warn", "Has not called for over 75 seconds."),
    "offline": Word("offline", "cross", "bad", "Has not called for over ten minutes."),
    "unknown": Word("unknown", "question", "quiet", "Has never called."),
}

WORK: Final[Mapping[str, Word]] = {
    "idle": Word("idle", "circle", "quiet", "In no round at present."),
    "invited": Word("invited", "circle-dashed", "quiet", "Asked to join the present round."),
    "training": Word("training", "play", "active", "Trains for the present round."),
    "uploading": Word("verifying", "inbox", "active", "Its update arrived and is being verified."),
    "done": Word("counted", "check", "good", "Its update counts in the present round."),
    "failed": Word("refused", "cross", "bad", "Its last update was refused."),
    "late": Word("late", "clock", "warn", "Was given up on in the last round."),
    "excluded": Word("excluded", "stop", "bad", "Was taken out of the last round."),
}

WORK_OF: Final[Mapping[str, str]] = {
    ParticipantState.INVITED: "invited",
    ParticipantState.JOINED: "training",
    ParticipantState.SUBMITTED: "uploading",
    ParticipantState.ACCEPTED: "done",
    ParticipantState.REJECTED: "failed",
    ParticipantState.DROPPED: "late",
    ParticipantState.EXCLUDED: "excluded",
}

ROTATION: Final[Mapping[str, Word]] = {
    RotationState.RUNNING: Word("running", "play", "active", "Devices are being asked for new keys."),
    RotationState.PAUSED: Word("paused", "pause", "warn", "Nobody further is asked."),
    RotationState.COMPLETED: Word("completed", "check", "good", "Every device has new keys, or is no device any more."),
    RotationState.CANCELLED: Word("cancelled", "stop", "quiet", "Who had not renewed is no longer asked."),
}

SUITE: Final[Mapping[str, Word]] = {
    "available": Word("available", "circle", "quiet", "In the table, and not accepted here."),
    SuiteState.ACCEPTED: Word("accepted", "check", "good", "Makes new keys, plans and seals."),
    SuiteState.RETIRING: Word("retiring", "clock", "warn", "Its devices are migrated; from its date it makes nothing."),
    SuiteState.RETIRED: Word("retired", "stop", "quiet", "Makes nothing new; what was made before opens."),
}

DUE: Final[Mapping[str, Word]] = {
    "suite": Word("suite", "clock", "warn", "Its suite is retired, or will be."),
    "age": Word("age", "clock", "warn", "Older than its class allows."),
    "uses": Word("uses", "sum", "warn", "Used more often than its class allows."),
    "late": Word("late", "cross", "bad", "Should have renewed by itself. Look at the machine."),
}

KEY: Final[Mapping[str, Word]] = {
    KeyState.PRE_ACTIVE: Word("waiting", "circle-dashed", "quiet", "Registered; not in use yet."),
    KeyState.ACTIVE: Word("active", "check", "good", "In use."),
    KeyState.SUSPENDED: Word("suspended", "pause", "warn", "Not used until it is reinstated."),
    KeyState.DEACTIVATED: Word("deactivated", "circle", "quiet", "Superseded or retired; verifies what it signed."),
    KeyState.COMPROMISED: Word("compromised", "stop", "bad", "May have been in other hands; nothing relies on it."),
    KeyState.DESTROYED: Word("destroyed", "cross", "quiet", "Its secret is gone; the public part is kept."),
}

TABLES: Final[Mapping[str, Mapping[str, Word]]] = {
    "training": TRAINING,
    "round": ROUND,
    "participant": PARTICIPANT,
    "credential": CREDENTIAL,
    "key": KEY,
    "claim": CLAIM,
    "connection": CONNECTION,
    "work": WORK,
    "rotation": ROTATION,
    "suite": SUITE,
    "due": DUE,
    "model": MODEL,
    "alias_move": ALIAS_MOVE,
    "model_export": MODEL_EXPORT,
}

# Outcomes that no error class names.
_CODES: Final[Mapping[str, str]] = {
    "late": "No update arrived in time.",
    "quorum_not_met": "Too few hospitals' updates arrived in time.",
    "not_signed_in_time": "The authority did not sign in time. Look at the authority worker.",
    "not_aggregated_in_time": "The result was not computed in time. Look at the aggregation worker.",
    "exclusion_failed": "A device that lost trust could not be taken out of the sum, so nothing was opened. "
    "Look at the aggregation worker's log and at blob storage.",
    "record_refused": "The record was not that of the round, or broke the plan, so the authority signed nothing. "
    "Look at who may write to the database.",
    "rounds_failed_in_a_row": "Several rounds failed one after another.",
    "training_stopped": "An operator stopped the training.",
    "suite_retired": "The suite was retired, so nothing new is made in it. Plan the training in another suite.",
    "start_unusable": "The version that it starts from was taken out of use before the first round. Plan another.",
    "device_suspended": "The device was suspended before the round closed.",
    "device_revoked": "The device was revoked before the round closed.",
}
# By which rule a training was completed, as the sentence about it goes on.
STOP_RULES: Final[Mapping[str, str]] = {
    "rounds": "all rounds of the plan were run",
    "target": "the target metric was reached",
    "patience": "the metric no longer improved",
    "budget_seconds": "the plan's time was spent",
    "budget_bytes": "the plan's bytes were spent",
}
_ERRORS: Final[Mapping[str, str]] = {error.code: sentence for error, (_, sentence) in PROBLEMS.items()}

METRICS: Final[Mapping[str, str]] = {"auc": "AUC", "accuracy": "accuracy"}


def word_of(table: str, state: str) -> Word:
    """The row of a state; a stranger is shown as it is, never hidden."""
    return TABLES[table].get(state, Word(state or UNKNOWN.text, UNKNOWN.icon, UNKNOWN.tone))


def sentence_of_code(code: str) -> str:
    """What a refusal or failure code means, plainly; empty for no code."""
    if not code:
        return ""
    return _CODES.get(code) or _ERRORS.get(code) or "No further explanation is known for this code."


def metric_name(metric: str) -> str:
    """The metric's name as people say it."""
    return METRICS.get(metric, metric)
