"""Sentences, words, topics, comparison and charts: everything that is pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.permissions import Role
from frontend.charts.bars import comparison_bars, quorum_bar
from frontend.comparison import read_comparison
from frontend.fleet import connection_of
from frontend.sentences import RoundFacts, say_duration, say_round, say_share, say_training
from frontend.templatetags.frontend import column_heads
from frontend.topics import TOPICS_LIMIT, may_hear, parse_topics
from frontend.words import STOP_RULES, TABLES, sentence_of_code, word_of
from latticeward.errors import MalformedMessageError
from latticeward.lifecycle import DEVICE, PARTICIPANT, ROUND, TRAINING
from tests.frontend.scene import COMPARISON

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
ID = "7f3f1a0e-8a0b-4b8e-9a53-0d6f0b0c1d2e"


def facts(**changes: Any) -> RoundFacts:
    values: dict[str, Any] = {
        "number": 7,
        "kind": "training",
        "state": "collecting",
        "quorum": 3,
        "total": 4,
        "joined": 4,
        "accepted": 3,
        "opened_at": NOW - timedelta(seconds=4),
        "due_at": NOW + timedelta(minutes=2),
        "failure_code": "",
        "metric_name": "auc",
        "metric_value": None,
        "usual_seconds": 6.0,
    }
    return RoundFacts(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Round 7: 3 of 4 updates, quorum 3 reached, about 2 s left"),
        ({"accepted": 2, "usual_seconds": None}, "Round 7: 2 of 4 updates, quorum 3 not yet reached, due in 2 min"),
        ({"usual_seconds": 3.0}, "Round 7: 3 of 4 updates, quorum 3 reached, due in 2 min"),
        (
            {"due_at": NOW, "usual_seconds": None},
            "Round 7: 3 of 4 updates, quorum 3 reached, the due time has passed",
        ),
        (
            {"accepted": 2, "due_at": NOW, "waits_until": NOW + timedelta(minutes=5), "usual_seconds": None},
            "Round 7: 2 of 4 updates, quorum 3 not yet reached, "
            "past its due time, waiting for stragglers for 5 min at most",
        ),
        (
            {"state": "recruiting", "joined": 1, "usual_seconds": None},
            "Round 7: 1 of 4 hospitals joined, quorum 3 not yet reached, due in 2 min",
        ),
        ({"state": "aggregating"}, "Round 7: 3 of 4 updates counted, the result is being signed"),
        (
            {"state": "published", "metric_value": 0.8744},
            "Round 7: published with 3 of 4 updates, AUC 0.874",
        ),
        (
            {"state": "failed", "failure_code": "quorum_not_met"},
            "Round 7: failed. Too few hospitals' updates arrived in time.",
        ),
        ({"state": "aborted"}, "Round 7: aborted. The round was aborted."),
        (
            {"state": "signing", "kind": "evaluation"},
            "Evaluation round 7: the assignment waits for the authority's signature",
        ),
    ],
)
def test_a_round_is_said_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert say_round(facts(**changes), NOW) == sentence


@pytest.mark.parametrize("state", [str(state) for state in TRAINING.states])
def test_every_training_state_has_a_sentence(state: str) -> None:
    assert say_training(state, published=2, rounds_max=15, metric="auc", final=0.9)


@pytest.mark.parametrize("rule", sorted(STOP_RULES))
def test_a_completed_training_says_by_which_rule(rule: str) -> None:
    said = say_training("completed", published=4, rounds_max=15, metric="auc", final=0.9, ended_by=rule)
    assert said == f"Completed: 4 of 15 rounds published, {STOP_RULES[rule]}, pooled AUC 0.900"


@pytest.mark.parametrize(
    ("length", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3 * 3600, "3 h"), (3 * 86400, "3 days"), (-5, "0 s")],
)
def test_durations_have_one_unit(length: float, text: str) -> None:
    assert say_duration(timedelta(seconds=length)) == text


@pytest.mark.parametrize(
    ("table", "machine"),
    [("training", TRAINING), ("round", ROUND), ("participant", PARTICIPANT), ("credential", DEVICE)],
)
def test_every_state_of_the_tables_has_a_word_and_no_stranger_is_hidden(table: str, machine: Any) -> None:
    assert set(TABLES[table]) == {str(state) for state in machine.states}
    assert word_of(table, "novel").text == "novel"


@pytest.mark.parametrize("table", TABLES)
def test_colour_never_speaks_alone(table: str) -> None:
    rows = list(TABLES[table].values())
    assert len({row.text for row in rows}) == len(rows)
    for row in rows:
        same_shape = [other for other in rows if other.icon == row.icon]
        assert len({other.tone for other in same_shape}) == 1, "one shape in two colours would need colour to be read"


@pytest.mark.parametrize(
    ("share", "said"), [(0.0, "0 %"), (1.4e-7, "< 0.01 %"), (0.0001, "0.01 %"), (0.12345, "12.3 %"), (1.0, "100 %")]
)
def test_a_share_is_said_without_an_exponent(share: float, said: str) -> None:
    assert say_share(share) == said


def test_codes_of_errors_and_of_outcomes_have_plain_sentences() -> None:
    assert sentence_of_code("norm_exceeded").endswith("plan's range.")
    assert sentence_of_code("late") == "No update arrived in time."
    assert sentence_of_code("") == ""
    assert sentence_of_code("made_up")


@pytest.mark.parametrize(
    ("seconds", "state"), [(None, "unknown"), (0, "online"), (74, "online"), (76, "late"), (601, "offline")]
)
def test_a_device_that_never_called_is_unknown_and_not_offline(seconds: int | None, state: str) -> None:
    assert connection_of(None if seconds is None else NOW - timedelta(seconds=seconds), NOW) == state


def test_topics_are_read_with_their_numbers() -> None:
    topics = parse_topics(f"federation:{ID}@4,round:{ID}@12,training:{ID}@7")
    assert topics.feeds == {f"federation:{ID}": 4, f"round:{ID}": 12}
    assert topics.trainings == {ID: 7}


def test_a_page_cannot_follow_without_end() -> None:
    with pytest.raises(MalformedMessageError):
        parse_topics(",".join([f"round:{ID}@1"] * (TOPICS_LIMIT + 1)))


def test_what_a_role_hears() -> None:
    clinician = frozenset({Role.CLINICIAN})
    assert may_hear(clinician, "round.opened")
    for event in ("key.generated", "device.requested", "round_key.destroyed", "certificate.issued", "user.signed_in"):
        assert not may_hear(clinician, event)
        assert may_hear(frozenset({Role.COMPLIANCE}), event)
    assert not may_hear(frozenset(), "round.opened")


def test_the_quorum_bar_marks_quorum_and_total_apart() -> None:
    drawn = str(quorum_bar(accepted=2, quorum=3, total=4))
    assert "quorum 3</text>" in drawn and "total 4</text>" in drawn
    assert drawn.count("slot-filled") == 2
    assert 'x1="75%"' in drawn


def test_the_quorum_bar_says_both_when_they_are_the_same() -> None:
    assert "quorum 4, total 4" in str(quorum_bar(accepted=0, quorum=4, total=4))


@pytest.mark.parametrize("numbers", [(0, 2, 0), (0, 1, 1), (300, 200, 300)])
def test_the_quorum_bar_draws_odd_numbers(numbers: tuple[int, int, int]) -> None:
    accepted, quorum, total = numbers
    assert "<svg" in str(quorum_bar(accepted=accepted, quorum=quorum, total=total))


NAMES = {"switzerland": "Switzerland", "va-long-beach": "VA Long Beach"}


def test_the_comparison_names_hospitals_and_keeps_its_warning() -> None:
    comparison = read_comparison(COMPARISON, NAMES)
    assert comparison is not None
    assert [bar.kind for bar in comparison.bars] == ["federated", "central", *["single"] * 4]
    assert comparison.bars[2].hospital == "Switzerland"
    assert {row.hospital: bool(row.warning) for row in comparison.at_hospitals} == {
        "Switzerland": True,
        "VA Long Beach": False,
        "cleveland": False,
        "hungary": False,
    }
    drawn = str(comparison_bars(comparison.bars, metric="auc"))
    assert "0.5 (chance)" in drawn and "Switzerland alone" in drawn
    assert "style=" not in drawn


def test_a_hospital_without_a_value_says_why() -> None:
    found = {"x": {"value": None, "examples": 4, "small_sample": True}}
    comparison = read_comparison({"pooled": 0.8, "by_site": found}, {})
    assert comparison is not None
    assert comparison.at_hospitals[0].warning.startswith("No value")


def test_a_value_below_chance_moves_the_axis() -> None:
    comparison = read_comparison({"metric": "auc", "pooled": 0.8, "single": {"x": 0.43}}, {})
    assert comparison is not None
    assert ">0.4</text>" in str(comparison_bars(comparison.bars, metric="auc"))


def test_hospital_names_are_escaped_in_charts() -> None:
    comparison = read_comparison({"single": {"x": 0.7}}, {"x": "<script>"})
    assert comparison is not None
    assert "<script>" not in str(comparison_bars(comparison.bars, metric="auc"))


@pytest.mark.parametrize("stored", [None, {}, {"pooled": "high"}])
def test_no_numbers_make_no_comparison(stored: dict[str, Any] | None) -> None:
    assert read_comparison(stored, NAMES) is None


def test_column_heads_keep_their_roles_and_escape_names() -> None:
    heads = column_heads("Hospital", "number:Devices", "hidden:Action", "<b>")
    assert heads.startswith('<thead role="rowgroup"><tr role="row">')
    assert heads.count('role="columnheader"') == 4
    assert '<th scope="col" role="columnheader" class="number">Devices</th>' in heads
    assert '<span class="visually-hidden">Action</span>' in heads
    assert "&lt;b&gt;" in heads and "<b>" not in heads
    with pytest.raises(KeyError):
        column_heads("colour:Red")
