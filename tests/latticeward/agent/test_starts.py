"""A plan that starts from a version of another training: what the agent fetches, believes and refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latticeward.agent.models import load_newest
from latticeward.agent.state import HeldModel, Stage
from latticeward.starts import NamedVersion
from latticeward.updates.tensors import weights_digest
from tests.latticeward.agent.fakes import FakeServer, Life, heart_plan, uuid_of

EARLIER_TRAINING = "70000000-0000-4000-8000-000000000002"
WEIGHTS = np.full(36, 3, dtype=np.float32)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def life(tmp_path: Path, server: FakeServer) -> Life:
    return Life(tmp_path / "home", server)


@pytest.fixture
def start(server: FakeServer) -> str:
    """The last version of an earlier training, from which the server's plan starts."""
    return begin_with(server)


def begin_with(server: FakeServer, *, suite: str = "hybrid", **changes: Any) -> str:
    made = server.make_model(7, WEIGHTS, training_id=EARLIER_TRAINING, plan=heart_plan(title="Before", suite=suite))
    named = NamedVersion(model_id=made, training_id=EARLIER_TRAINING, weights_digest=weights_digest(WEIGHTS))
    server.plan = heart_plan(initial=replace(named, **changes).to_initial())
    return made


def refusal(life: Life, round_id: str) -> str:
    life.once()
    memory = life.state.rounds[round_id]
    assert (memory.stage, life.contributor.made) == (Stage.REFUSED, 0)
    assert "join" not in life.server.calls
    return memory.code


def test_the_first_round_begins_with_the_version_that_the_plan_names(
    life: Life, server: FakeServer, start: str
) -> None:
    first = server.open_round(1, base=start)
    life.once()
    assert server.calls == ["work", "assignment", "trust", "manifest", "body", "join"]
    assert life.state.rounds[first].stage is Stage.PREPARED
    assert np.array_equal(load_newest(life.home), WEIGHTS)
    assert life.state.highest_model == {EARLIER_TRAINING: 7}
    server.see(first, state="collecting")
    life.once()
    server.publish(first)
    life.once()
    assert life.state.rounds[first].stage is Stage.SETTLED
    assert life.state.highest_model == {EARLIER_TRAINING: 7, server.plan.training_id: 1}


def test_a_version_that_is_held_is_not_fetched_again(life: Life, server: FakeServer, start: str) -> None:
    server.open_round(1, base=start)
    life.once()
    server.see(next(iter(server.rounds)), state="aborted")
    server.calls.clear()
    again = server.open_round(2, base=start)
    life.once()
    assert life.state.rounds[again].stage is Stage.PREPARED
    assert "manifest" not in server.calls


def test_a_restart_in_the_middle_goes_on(life: Life, server: FakeServer, start: str) -> None:
    first = server.open_round(1, base=start)
    life.once()
    life = life.restarted()
    server.see(first, state="collecting")
    life.once()
    assert life.state.rounds[first].stage is Stage.SENT
    assert life.state.contributed == {weights_digest(WEIGHTS).hex(): server.plan.digest.hex()}
    life = life.restarted()
    server.publish(first)
    life.once()
    assert life.state.rounds[first].stage is Stage.SETTLED


@pytest.mark.parametrize(
    "changes", [{"weights_digest": bytes(32)}, {"training_id": uuid_of(0x70, 9)}], ids=["weights", "training"]
)
def test_a_manifest_of_something_else_than_the_plan_names_is_refused(
    life: Life, server: FakeServer, changes: dict[str, Any]
) -> None:
    start = begin_with(server, **changes)
    assert refusal(life, server.open_round(1, base=start)) == "wrong_context"


def test_an_assignment_with_another_digest_than_the_plan_is_refused(life: Life, server: FakeServer, start: str) -> None:
    assert refusal(life, server.open_round(1, base=start, base_model_digest=bytes(32))) == "wrong_context"


def test_a_round_without_a_base_is_none_of_such_a_plan(life: Life, server: FakeServer, start: str) -> None:
    digest = weights_digest(WEIGHTS)
    assert refusal(life, server.open_round(1, base=start, base_model=None, base_model_digest=digest)) == (
        "incompatible_plan"
    )


def test_another_version_of_the_earlier_training_is_refused(life: Life, server: FakeServer, start: str) -> None:
    other = server.make_model(8, 2 * WEIGHTS, training_id=EARLIER_TRAINING, plan=heart_plan(title="Before"))
    assert refusal(life, server.open_round(1, base=other)) == "wrong_context"


def test_a_version_behind_the_newest_seen_of_its_training_is_refused(
    life: Life, server: FakeServer, start: str
) -> None:
    life.state.highest_model[EARLIER_TRAINING] = 8
    assert refusal(life, server.open_round(1, base=start)) == "replayed"


def test_a_version_in_another_suite_is_refused(life: Life, server: FakeServer) -> None:
    start = begin_with(server, suite="constrained")
    assert refusal(life, server.open_round(1, base=start)) == "wrong_context"


def test_a_version_that_was_withdrawn_is_refused_with_the_server_s_code(
    life: Life, server: FakeServer, start: str
) -> None:
    first = server.open_round(1, base=start)
    del server.models[start]
    assert refusal(life, first) == "not_found"


def test_who_gave_to_the_version_under_another_plan_gives_to_no_second_one(
    life: Life, server: FakeServer, start: str
) -> None:
    life.state.contributed[weights_digest(WEIGHTS).hex()] = bytes(32).hex()
    assert refusal(life, server.open_round(1, base=start)) == "replayed"


def test_weights_at_hand_are_no_base_of_a_plan_that_does_not_name_them(life: Life, server: FakeServer) -> None:
    held = server.make_model(7, WEIGHTS, training_id=EARLIER_TRAINING)
    first = server.open_round(1, base=held)
    life.state.model = HeldModel(
        model_id=held, training_id=EARLIER_TRAINING, number=7, weights_digest=weights_digest(WEIGHTS).hex()
    )
    assert refusal(life, first) == "wrong_context"


def test_a_measurement_is_no_contribution(life: Life, server: FakeServer) -> None:
    base = server.make_model(1, WEIGHTS)
    life.state.contributed[weights_digest(WEIGHTS).hex()] = bytes(32).hex()  # given to under another plan
    remembered = dict(life.state.contributed)
    measured = server.open_round(2, base=base, kind="evaluation")
    life.once()
    server.see(measured, state="collecting")
    life.once()
    assert life.state.rounds[measured].stage is Stage.SENT
    assert life.state.contributed == remembered
