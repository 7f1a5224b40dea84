"""The next step for every state of a round, of a participant, and of the memory."""

import pytest

from latticeward.agent.decisions import Step, next_step
from latticeward.agent.state import RoundMemory, Stage
from latticeward.agent.work import WorkRound
from latticeward.lifecycle import ParticipantState, RoundState

ROUND = "f0000000-0000-4000-8000-000000000001"


def step(state: str, participant: str, stage: Stage | None) -> Step:
    seen = WorkRound(
        round_id=ROUND,
        training_id="t",
        number=1,
        kind="training",
        state=state,
        participant=participant,
        base_model=None,
        code=None,
    )
    memory = RoundMemory(
        round_id=ROUND, training_id="t", number=1, kind="training", base_model_digest="", stage=stage or Stage.SETTLED
    )
    return next_step(seen, None if stage is None else memory)


@pytest.mark.parametrize(
    ("state", "participant", "stage", "expected"),
    [
        ("recruiting", "invited", None, Step.TAKE),
        ("collecting", "invited", None, Step.TAKE),
        ("recruiting", "invited", Stage.ACCEPTED, Step.TAKE),
        ("collecting", "joined", Stage.ACCEPTED, Step.TAKE),
        ("aggregating", "invited", None, Step.WAIT),
        ("recruiting", "joined", Stage.PREPARED, Step.WAIT),
        ("collecting", "joined", Stage.PREPARED, Step.SEND),
        ("aggregating", "accepted", Stage.PREPARED, Step.SEND),
        ("collecting", "submitted", Stage.SENT, Step.WAIT),
        ("collecting", "joined", Stage.SENT, Step.LEAVE),
        ("collecting", "rejected", Stage.SENT, Step.LEAVE),
        ("collecting", "excluded", Stage.PREPARED, Step.LEAVE),
        ("aggregating", "accepted", Stage.SENT, Step.WAIT),
        ("published", "accepted", Stage.SENT, Step.SETTLE),
        ("published", "dropped", Stage.PREPARED, Step.SETTLE),
        ("published", "dropped", None, Step.WAIT),
        ("failed", "dropped", Stage.SENT, Step.LEAVE),
        ("aborted", "joined", None, Step.WAIT),
    ],
)
def test_the_step(state: str, participant: str, stage: Stage | None, expected: Step) -> None:
    assert step(state, participant, stage) is expected


@pytest.mark.parametrize("stage", [Stage.SETTLED, Stage.REFUSED])
def test_nothing_is_done_for_a_round_that_is_over(stage: Stage) -> None:
    for state in RoundState:
        for participant in ParticipantState:
            assert step(state, participant, stage) is Step.WAIT


def test_bytes_are_sent_only_once_they_are_written() -> None:
    for state in RoundState:
        for participant in ParticipantState:
            for stage in (None, Stage.ACCEPTED, Stage.SENT):
                assert step(state, participant, stage) is not Step.SEND


def test_a_state_of_a_newer_server_makes_the_agent_wait() -> None:
    assert step("unmasking", "joined", None) is Step.WAIT
    assert step("recruiting", "paused", None) is Step.WAIT
