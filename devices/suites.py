"""Which suites make new things here, and which one a device's keys are to be made for.

The code's table of suites is the upper bound; the settings name those that a new installation accepts; the federation's
own policy accepts more of the table, and retires. A suite that is *retiring* is used until its date while its devices
are migrated; from the date on it makes nothing new: no enrolment, renewal, plan or seal. What was made before opens and
verifies for ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.prepared import PreparedSelect
from controlplane.transitions import apply_transition
from devices.models import Device, DeviceClass, Federation, SuitePolicy
from latticeward.crypto.negotiation import negotiate, strongest
from latticeward.crypto.selftest import run_selftest
from latticeward.crypto.suites import MAKEABLE, SUITES, Suite, get_suite
from latticeward.enrolment_messages import EnrolmentTranscript
from latticeward.errors import InvalidValueError, NotFoundError, StaleStateError, StateError, UnsupportedSuiteError
from latticeward.lifecycle import SUITE, DeviceState, SuiteState


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteStanding:
    """One suite as the federation has it: a state of ``SuiteState``, or ``available`` for one not accepted here."""

    suite: Suite
    state: str
    retire_at: datetime | None
    devices: int


_POLICIES: Final = PreparedSelect(lambda: SuitePolicy.objects.values_list("suite", "state", "retire_at"))


def accepted_suites(*, now: datetime | None = None) -> tuple[str, ...]:
    """The suites that make new things now, by id, in the order of the code's table; one query."""
    now = now or timezone.now()
    standing = dict.fromkeys(settings.ACCEPTED_SUITES, True)
    for name, state, retire_at in _POLICIES():
        over = state == SuiteState.RETIRED or (retire_at is not None and retire_at <= now)
        standing[name] = not over
    return tuple(name for name in SUITES if standing.get(name, False))


def staying_suites(*, now: datetime | None = None) -> tuple[str, ...]:
    """Of the accepted suites those that no retirement has been announced for; two queries."""
    going = set(SuitePolicy.objects.filter(state=SuiteState.RETIRING).values_list("suite", flat=True))
    return tuple(name for name in accepted_suites(now=now) if name not in going)


def require_accepted(suite: str) -> None:
    """Refuse to make something new in a suite that the federation does not accept (any more).

    Raises:
        UnsupportedSuiteError: not accepted, retired, or below the floor.
    """
    negotiate([suite], accepted_suites(), settings.SUITE_FLOOR)


def choose_suite(transcript: EnrolmentTranscript, device_class: DeviceClass) -> Suite:
    """The default of the class where everybody accepts it, else the best; never below anybody's floor.

    Raises:
        UnsupportedSuiteError: nothing in common, or the keys are made for another suite than those that are offered.
    """
    keys = transcript.keys
    made_for = (keys.encapsulation.algorithm, keys.signing.algorithm, keys.authentication.algorithm)
    offered = [SUITES[name] for name in transcript.suites if name in SUITES]
    fit = [suite.id for suite in offered if (suite.kem, suite.signature, suite.authentication) == made_for]
    if offered and not fit:
        raise UnsupportedSuiteError("the device's keys are not made for any suite that it offers")
    floor = strongest((settings.SUITE_FLOOR, device_class.suite_floor, transcript.floor))
    return negotiate(fit, accepted_suites(), floor, default=device_class.default_suite)


def next_suite(device_class: DeviceClass, *, present: str, accepted: Iterable[str]) -> str:
    """What a device of a class is to make its next keys for: its present suite where that stays, else the best common.

    Args:
        accepted: as of ``staying_suites``, so that nobody is moved to a suite that goes as well.

    Raises:
        UnsupportedSuiteError: nothing is left that the class and the federation accept.
    """
    left = list(accepted)
    floor = strongest((settings.SUITE_FLOOR, device_class.suite_floor))
    default = present if present in left else device_class.default_suite
    return negotiate(left, left, floor, default=default).id


def suits(device: Device, suite: str) -> bool:
    """Whether a device's keys are of the algorithms of a suite, so that it can take part in plans of it."""
    own, wanted = get_suite(device.suite), get_suite(suite)
    return (own.kem, own.signature) == (wanted.kem, wanted.signature)


def standings(federation: Federation) -> list[SuiteStanding]:
    """Every suite of the table that may make something, with what the federation says of it; two queries."""
    rows = {row.suite: row for row in federation.suite_policies.all()}
    used = dict(
        Device.objects.filter(site__federation=federation, state__in=(DeviceState.ACTIVE, DeviceState.SUSPENDED))
        .values_list("suite")
        .annotate(Count("id"))
    )
    found = []
    for suite in SUITES.values():
        row = rows.get(suite.id)
        if suite.status not in MAKEABLE and row is None:
            continue
        state = row.state if row else SuiteState.ACCEPTED if suite.id in settings.ACCEPTED_SUITES else "available"
        retire_at = row.retire_at if row else None
        found.append(SuiteStanding(suite=suite, state=state, retire_at=retire_at, devices=used.get(suite.id, 0)))
    return found


def accept_suite(*, federation: Federation, suite: str, actor: str) -> SuitePolicy:
    """Let a suite of the code's table make new things, once its self-test has passed; doing it again changes nothing.

    Raises:
        UnsupportedSuiteError: no such suite, or one that the code lets make nothing new, or below the floor.
        StateError: it was retired: that is for good.
        SelfTestError: a primitive of it is missing or wrong here.
    """
    row = federation.suite_policies.filter(suite=suite).first()
    if row is not None and row.state == SuiteState.RETIRED:
        raise StateError(f"the suite {suite} was retired")
    get_suite(suite).require_makeable()
    negotiate([suite], [suite], settings.SUITE_FLOOR)
    if row is not None or suite in settings.ACCEPTED_SUITES:
        return row or _policy(federation, suite)
    run_selftest((suite,))
    with transaction.atomic():
        row = _policy(federation, suite)
        record("suite.accepted", actor=actor, feed=federation.feed, subject=("suite", row.id), details={"suite": suite})
    return row


def lock_policy(federation: Federation) -> None:
    """Let nobody else retire a suite or start a rotation until this transaction ends.

    Each looks at everything there is before it decides: of two at once the second must see what the first did, or two
    people retire the last two suites, or give one device to two jobs.
    """
    # Rows that refer to the federation can still be written: they need its key only.
    Federation.objects.select_for_update(no_key=True).get(pk=federation.pk)


def announce_retirement(
    *, federation: Federation, suite: str, retire_at: datetime | None, actor: str, why: str
) -> SuitePolicy:
    """Say from when on a suite makes nothing new; the job that migrates its devices is the caller's.

    Args:
        retire_at: None is now: every device that uses it can renew, and make nothing else, until it has other keys.
            That must be said, not be the accident of a date that was mistyped, since it cannot be taken back.

    Raises:
        InvalidValueError: the date is over.
        UnsupportedSuiteError: the federation does not accept it, so there is nothing to retire.
        StateError: it is retiring or retired already, or no other suite is left.
    """
    now = timezone.now()
    if retire_at is not None and retire_at <= now:
        raise InvalidValueError(
            "That date is over, and a retirement cannot be taken back. Name a later one, or say now."
        )
    retire_at = retire_at or now
    with transaction.atomic():
        lock_policy(federation)
        if suite not in accepted_suites():
            raise UnsupportedSuiteError(f"the suite {suite} is not accepted here")
        if not set(staying_suites()) - {suite}:
            raise StateError(f"no suite would be left after {suite}: accept another first")
        row = _policy(federation, suite)
        apply_transition(
            row,
            SUITE,
            "announce",
            actor=actor,
            feed=federation.feed,
            details={"suite": suite, "retire_at": retire_at.isoformat().replace("+00:00", "Z"), "why": why},
            retire_at=retire_at,
            changed_at=now,
        )
    return row


def keep_suite(*, federation: Federation, suite: str, actor: str) -> SuitePolicy:
    """Take a retirement back before its date.

    Raises:
        NotFoundError: there is no policy of this suite.
        InvalidTransitionError: it is not retiring.
        StateError: its date has come.
    """
    row = federation.suite_policies.filter(suite=suite).first()
    if row is None:
        raise NotFoundError(f"nothing was decided about the suite {suite}")
    if row.retire_at is not None and row.retire_at <= timezone.now():
        raise StateError(f"the suite {suite} is over since {row.retire_at.isoformat()}: that is for good")
    apply_transition(
        row,
        SUITE,
        "keep",
        actor=actor,
        feed=federation.feed,
        details={"suite": suite},
        retire_at=None,
        changed_at=timezone.now(),
    )
    return row


def retire_due(*, now: datetime | None = None) -> None:
    """Move suites whose date has come to their end; ``accepted_suites`` has gone by the date itself."""
    now = now or timezone.now()
    due = SuitePolicy.objects.filter(state=SuiteState.RETIRING, retire_at__lte=now).select_related("federation")
    for row in due:
        try:
            apply_transition(
                row,
                SUITE,
                "retire",
                actor="system",
                feed=row.federation.feed,
                details={"suite": row.suite},
                changed_at=now,
            )
        except StaleStateError:
            continue


def _policy(federation: Federation, suite: str) -> SuitePolicy:
    return SuitePolicy.objects.get_or_create(
        federation=federation, suite=suite, defaults={"changed_at": timezone.now()}
    )[0]
