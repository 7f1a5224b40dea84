"""When a round moves on, decided without a database."""

from datetime import UTC, datetime, timedelta

import pytest

from latticeward.lifecycle import RoundState
from rounds.policy import GRACE, Decision, Tally, next_event

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
BEFORE = NOW - timedelta(seconds=1)


def decide(state: RoundState, tally: Tally, due_at: datetime = LATER, quorum: int = 3) -> Decision | None:
    return next_event(state, tally, quorum=quorum, due_at=due_at, now=NOW)


def test_a_round_collects_at_once_when_all_have_joined() -> None:
    assert decide(RoundState.RECRUITING, Tally(joined=4)) == Decision("begin_collecting")


def test_a_round_waits_for_the_invited_until_it_is_due() -> None:
    assert decide(RoundState.RECRUITING, Tally(invited=1, joined=3)) is None
    assert decide(RoundState.RECRUITING, Tally(invited=1, joined=3), BEFORE) == Decision("begin_collecting")


def test_a_round_fails_when_too_few_joined_in_time() -> None:
    assert decide(RoundState.RECRUITING, Tally(invited=2, joined=2), BEFORE) == Decision("fail", "quorum_not_met")


@pytest.mark.parametrize("state", [RoundState.RECRUITING, RoundState.COLLECTING])
def test_a_round_fails_at_once_when_the_quorum_is_out_of_reach(state: RoundState) -> None:
    assert decide(state, Tally(joined=1, accepted=1)) == Decision("fail", "quorum_not_met")


def test_a_round_closes_at_once_when_nobody_is_undecided() -> None:
    assert decide(RoundState.COLLECTING, Tally(accepted=3)) == Decision("begin_aggregating")


def test_a_round_with_quorum_waits_for_stragglers_until_it_is_due() -> None:
    tally = Tally(joined=1, accepted=3)
    assert decide(RoundState.COLLECTING, tally) is None
    assert decide(RoundState.COLLECTING, tally, BEFORE) == Decision("begin_aggregating")


def test_what_arrived_in_time_may_be_decided_within_the_grace() -> None:
    tally = Tally(submitted=1, accepted=3)
    assert decide(RoundState.COLLECTING, tally, BEFORE) is None
    assert decide(RoundState.COLLECTING, tally, NOW - GRACE) == Decision("begin_aggregating")


def test_a_due_round_below_quorum_fails() -> None:
    assert decide(RoundState.COLLECTING, Tally(joined=2, accepted=2), BEFORE) == Decision("fail", "quorum_not_met")


WAIT = timedelta(minutes=5)


@pytest.mark.parametrize(
    ("tally", "due_at", "expected"),
    [
        (Tally(joined=2, accepted=2), BEFORE, None),
        (Tally(joined=1, accepted=3), BEFORE, Decision("begin_aggregating")),
        (Tally(joined=1, submitted=1, accepted=3), BEFORE, None),
        (Tally(joined=2, accepted=2), NOW - WAIT, Decision("fail", "quorum_not_met")),
        (Tally(submitted=2, accepted=2), NOW - WAIT, None),
        (Tally(submitted=2, accepted=2), NOW - WAIT - GRACE, Decision("fail", "quorum_not_met")),
        (Tally(joined=0, accepted=2), BEFORE, Decision("fail", "quorum_not_met")),
    ],
    ids=[
        "it waits for its quorum",
        "with its quorum it closes",
        "what has arrived may be decided within the grace",
        "the wait ends",
        "what arrived at its end may be decided",
        "and that ends too",
        "nobody can come any more",
    ],
)
def test_a_plan_that_waits_for_stragglers_waits_for_the_quorum_alone(
    tally: Tally, due_at: datetime, expected: Decision | None
) -> None:
    found = next_event(RoundState.COLLECTING, tally, quorum=3, due_at=due_at, now=NOW, straggler_wait=WAIT)
    assert found == expected


@pytest.mark.parametrize(
    ("state", "code"),
    [(RoundState.SIGNING, "not_signed_in_time"), (RoundState.AGGREGATING, "not_aggregated_in_time")],
)
def test_signing_and_aggregating_end_too(state: RoundState, code: str) -> None:
    assert decide(state, Tally(accepted=4), BEFORE) is None
    assert decide(state, Tally(accepted=4), NOW - GRACE) == Decision("fail", code)


@pytest.mark.parametrize("state", [RoundState.PUBLISHED, RoundState.FAILED, RoundState.ABORTED])
def test_a_finished_round_stays_as_it_is(state: RoundState) -> None:
    assert decide(state, Tally(accepted=4), NOW - GRACE) is None
