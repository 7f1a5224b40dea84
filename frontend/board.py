"""What the pages show, read in few queries: rounds and trainings as boards, and the numbers a live page starts from.

Nothing here decides or writes. The fleet is in ``fleet.py``, the ledger in ``ledger.py``.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet

from controlplane.audit.events import EVENTS
from controlplane.audit.models import AuditEntry, AuditFeed
from devices.models import Site
from frontend.comparison import Comparison, read_comparison
from frontend.promises import say_plan
from frontend.sentences import RoundFacts, say_round, say_training
from frontend.words import NOT_COUNTED, STOPPED, VERIFIED, Word, sentence_of_code, word_of
from keys.selectors import compromises
from latticeward.crypto.suites import Suite, get_suite
from latticeward.errors import PlanChangedError, UnsupportedSuiteError
from latticeward.lifecycle import PARTICIPANT, ROUND, DeviceState, ParticipantState, RoundState, TrainingState
from rounds.models import Participant, Round, Training
from rounds.selectors import metric_by_round
from rounds.services.coordination import straggler_wait

# The phases as people follow them; "draft" is over before anybody could see it.
PHASES: Final = (
    (RoundState.SIGNING, "Signing"),
    (RoundState.RECRUITING, "Recruiting"),
    (RoundState.COLLECTING, "Collecting"),
    (RoundState.AGGREGATING, "Aggregating"),
    (RoundState.PUBLISHED, "Published"),
)
_JOINED: Final = (ParticipantState.JOINED, ParticipantState.SUBMITTED, ParticipantState.ACCEPTED)
# Keys, signed bytes and records are large, and no page shows them.
_UNSHOWN: Final = (
    "assignment",
    "signed_assignment",
    "recipient_key",
    "wrapped_decapsulation_seed",
    "record",
    "base_model_digest",
)
_USUAL_OF_LAST: Final = 5
_REFUSALS: Final = ("submission.refused", "update.refused", "update.rejected", "update.excluded", "participant.dropped")
_SHOWN_REFUSALS: Final = 20
# Why everybody of a stopped training is dropped: no refusal of anybody, and said once, over all of them.
_STOPPED: Final = "training_stopped"


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of the stepper; ``status`` is done, current, failed or ahead."""

    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Seat:
    """One participant as a row."""

    participant: Participant
    word: Word
    explanation: str
    in_doubt: bool = False

    @property
    def site(self) -> str:
        return self.participant.device.site.name


@dataclass(frozen=True, slots=True)
class RoundBoard:
    """One round: its sentence, phases, quorum bar and participants."""

    round: Round
    word: Word
    sentence: str
    phases: tuple[Phase, ...]
    seats: tuple[Seat, ...]
    accepted: int
    total: int
    explanation: str

    @property
    def is_open(self) -> bool:
        return self.round.state not in ROUND.terminal

    @property
    def has_record(self) -> bool:
        return self.round.signed_record is not None


@dataclass(frozen=True, slots=True)
class TrainingBoard:
    """One training: its sentence, the round to look at, the rounds before, the metric and the comparison."""

    training: Training
    word: Word
    sentence: str
    suite: Suite | None
    current: RoundBoard | None
    rounds: tuple[Round, ...]
    metrics: tuple[dict[str, Any], ...]
    comparison: Comparison | None

    @property
    def is_running(self) -> bool:
        return self.training.state in (TrainingState.SIGNING, TrainingState.RUNNING)

    @property
    def promises(self) -> list[tuple[str, str]] | None:
        """What the plan promises, in words; None where the stored plan is not the signed one and promises nothing."""
        try:
            return say_plan(self.training.round_plan)
        except PlanChangedError:
            return None

    @property
    def best(self) -> dict[str, Any] | None:
        """The measured version with the highest value; of equals the first."""
        return max(self.metrics, key=lambda row: row["value"], default=None)

    @property
    def published(self) -> int:
        return sum(row.state == RoundState.PUBLISHED and row.kind == "training" for row in self.rounds)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that was turned away in a round: when, whose, with which code, and what that means."""

    at: datetime
    site: str
    event: str
    code: str
    sentence: str


def refusals_of(current: Round) -> list[Refusal]:
    """What was refused, rejected, dropped or excluded in a round, newest first; one query."""
    rows = AuditEntry.objects.filter(feed=current.feed, event__in=_REFUSALS).exclude(details__code=_STOPPED)
    entries = rows.order_by("-feed_seq")[:_SHOWN_REFUSALS]
    return [
        Refusal(
            at=entry.recorded_at,
            site=str(entry.details.get("site", "")),
            event=EVENTS[entry.event],
            code=str(entry.details.get("code", "")),
            sentence=sentence_of_code(str(entry.details.get("code", ""))),
        )
        for entry in entries
    ]


def rounds_of(training: Training) -> QuerySet[Round]:
    """A training's rounds, newest first, without the columns that no page shows."""
    return training.rounds.defer(*_UNSHOWN).order_by("-number")


def read_round(current: Round, *, now: datetime, usual_seconds: float | None = None) -> RoundBoard:
    """The board of one round; one query, two more if a participant was compromised."""
    participants = current.participants.select_related("device__site").order_by("device__site__name", "device__name")
    counts: Counter[str] = Counter()
    seats = []
    doubted = _doubted(participants)
    for participant in participants:
        counts[participant.state] += 1
        # An aborted round leaves its participants where they were: they do not train any more.
        over = current.state in ROUND.terminal and participant.state not in PARTICIPANT.terminal
        word = word_of("participant", participant.state)
        if over and participant.state != ParticipantState.ACCEPTED:
            word = NOT_COUNTED
        if participant.state == ParticipantState.ACCEPTED and current.state in (RoundState.FAILED, RoundState.ABORTED):
            word = VERIFIED
        if participant.code == _STOPPED:
            word = STOPPED
        explanation = sentence_of_code(participant.code) or word.sentence
        seats.append(Seat(participant, word, explanation, participant.device_id in doubted))
    total = len(seats) - counts[ParticipantState.EXCLUDED]
    accepted = counts[ParticipantState.ACCEPTED]
    facts = RoundFacts(
        number=current.number,
        kind=current.kind,
        state=current.state,
        quorum=current.quorum,
        total=total,
        joined=sum(counts[state] for state in _JOINED),
        accepted=accepted,
        opened_at=current.opened_at,
        due_at=current.state_due_at,
        waits_until=_waits_until(current, now),
        failure_code=current.failure_code,
        metric_name=current.metric_name,
        metric_value=current.metric_value if current.state == RoundState.PUBLISHED else None,
        usual_seconds=usual_seconds,
    )
    return RoundBoard(
        round=current,
        word=word_of("round", current.state),
        sentence=say_round(facts, now),
        phases=_phases(current, counts),
        seats=tuple(seats),
        accepted=accepted,
        total=total,
        explanation=sentence_of_code(current.failure_code),
    )


def _waits_until(current: Round, now: datetime) -> datetime | None:
    due_at = current.state_due_at
    if current.state != RoundState.COLLECTING or due_at is None or now < due_at:
        return None  # the plan is read only when it matters
    return due_at + straggler_wait(current)


def _doubted(participants: Iterable[Participant]) -> set[UUID]:
    """The devices of these participants that sent something after their keys were compromised."""
    revoked = [row for row in participants if row.device.state == DeviceState.REVOKED]
    since = compromises(str(row.device_id) for row in revoked) if revoked else {}
    return {
        row.device_id
        for row in revoked
        if (at := since.get(str(row.device_id))) and row.submissions.filter(received_at__gte=at).exists()
    }


def read_training(training: Training, *, now: datetime, with_metrics: bool = True) -> TrainingBoard:
    """The board of one training; three queries, two without the metrics (a training that has ended needs them)."""
    rounds = tuple(rounds_of(training))
    current = read_round(rounds[0], now=now, usual_seconds=_usual_seconds(rounds)) if rounds else None
    running = training.state == TrainingState.RUNNING
    metrics = tuple(metric_by_round(training)) if with_metrics or not running else ()
    published = sum(row.state == RoundState.PUBLISHED and row.kind == "training" for row in rounds)
    # Between two rounds of a running training the last round's end is the news, a failure above all.
    if current is not None and (current.is_open or running):
        sentence = current.sentence
    else:
        sentence = say_training(
            training.state,
            published=published,
            rounds_max=training.rounds_max,
            metric=training.metric,
            final=metrics[-1]["value"] if metrics else None,
            ended_by=training.ended_by,
        )
    return TrainingBoard(
        training=training,
        word=word_of("training", training.state),
        sentence=sentence,
        suite=suite_of(training.suite),
        current=current,
        rounds=rounds,
        metrics=metrics,
        comparison=comparison_of(training),
    )


def comparison_of(training: Training) -> Comparison | None:
    """The reference results of a training, if an operator's tool has attached them; one query."""
    if not training.comparison:
        return None
    names = dict(Site.objects.filter(federation_id=training.federation_id).values_list("slug", "name"))
    return read_comparison(training.comparison, names)


def suite_of(name: str) -> Suite | None:
    """The suite's row; None for one that this version does not know any more."""
    try:
        return get_suite(name)
    except UnsupportedSuiteError:
        return None


def topics_of(feeds: Iterable[str], trainings: Iterable[UUID | str] = ()) -> str:
    """What a live page listens to, with the numbers that it has shown; one or two queries.

    Call it before the page's data is read: an event in between is then replayed, which is harmless, and never missed.
    """
    wanted = list(feeds)
    followed = list(trainings)
    newest: dict[str, tuple[str, int]] = {}
    if followed:
        rows = Round.objects.filter(training_id__in=followed).order_by("number")
        for training_id, round_id, number in rows.values_list("training_id", "id", "number"):
            newest[str(training_id)] = (f"round:{round_id}", number)
    wanted += [feed for feed, _ in newest.values()]
    numbers = dict(AuditFeed.objects.filter(name__in=wanted).values_list("name", "last_seq"))
    parts = [f"{feed}@{numbers.get(feed, 0)}" for feed in wanted]
    parts += [f"training:{training}@{newest.get(str(training), ('', 0))[1]}" for training in followed]
    return ",".join(parts)


def _usual_seconds(rounds: tuple[Round, ...]) -> float | None:
    lengths = [
        (row.published_at - row.opened_at).total_seconds() for row in rounds if row.published_at and row.opened_at
    ][:_USUAL_OF_LAST]
    return median(lengths) if len(lengths) >= 2 else None


def _phases(current: Round, counts: Counter[str]) -> tuple[Phase, ...]:
    names = [str(state) for state, _ in PHASES]
    if current.state in names:
        reached, at = names.index(current.state), "current"
        if current.state == RoundState.PUBLISHED:
            at = "done"
    else:
        reached, at = _ended_in(current, counts), "ahead" if current.state == RoundState.DRAFT else "failed"
    return tuple(
        Phase(label, "done" if place < reached else at if place == reached else "ahead")
        for place, (_, label) in enumerate(PHASES)
    )


def _ended_in(current: Round, counts: Counter[str]) -> int:
    """The phase in which a round without a result stopped, from what it left behind."""
    if counts[ParticipantState.ACCEPTED] >= current.quorum and current.closed_at:
        return 3
    if current.state_due_at is None and counts[ParticipantState.ACCEPTED] + counts[ParticipantState.DROPPED] == 0:
        return 0
    return 2 if counts[ParticipantState.ACCEPTED] or counts[ParticipantState.REJECTED] else 1
