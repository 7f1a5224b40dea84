"""A training goes on from a version of an earlier one, with real agents: to its end, over trouble, and not twice."""

import pytest

from latticeward.agent.state import Stage
from latticeward.record_file import verify_record_file
from latticeward.starts import NamedVersion
from rounds.models import ModelVersion, Round, Submission, Training
from rounds.registry.selectors import lineage_of
from rounds.services import trainings
from rounds.services.records import record_file
from rounds.services.standing import revoke_model
from tests.simulation.federation import OPERATOR, FederationSimulator


@pytest.fixture
def four(simulator: FederationSimulator) -> FederationSimulator:
    simulator.enrol(4)
    return simulator


@pytest.fixture
def start(four: FederationSimulator) -> ModelVersion:
    """The last version of a training that every device took part in and measured."""
    training = four.train(rounds=1)
    four.run()
    assert [row.kind for row in four.rounds(training)] == ["training", "evaluation"]
    assert four.state_of(training) == "completed"
    return training.models.get()


def gave_to(simulator: FederationSimulator, start: ModelVersion, training: Training) -> list[bool]:
    """Per device, whether it remembers to have given to the version under this training's plan."""
    digest = bytes(start.weights_digest).hex()
    plan = bytes(training.plan_digest).hex()
    return [device.state.contributed.get(digest) == plan for device in simulator.devices]


def test_a_training_goes_on_from_a_measured_version_to_its_end(four: FederationSimulator, start: ModelVersion) -> None:
    training = four.train(rounds=2, start_from=start.id, server_optimiser={"name": "fedadam", "learning_rate": 0.05})
    four.run()
    assert four.state_of(training) == "completed"
    rounds = four.rounds(training)
    assert [(row.kind, row.state) for row in rounds] == [
        ("training", "published"),
        ("training", "published"),
        ("evaluation", "published"),
    ]
    assert all(set(four.outcomes(row).values()) == {"accepted"} for row in rounds)
    assert rounds[0].base_model == start
    assert gave_to(four, start, training) == [True] * 4
    last = rounds[1].model
    assert last is not None
    assert [row.training_id for row in lineage_of(last)] == [training.id, training.id, *[start.training_id] * 2]
    held = {device.state.model.model_id for device in four.devices if device.state.model}
    assert held == {str(last.id)}


def test_the_record_of_the_first_round_is_proven_without_a_server(
    four: FederationSimulator, start: ModelVersion
) -> None:
    training = four.train(rounds=1, start_from=start.id, evaluate_last=False)
    four.run()
    first = four.rounds(training)[0]
    proven = verify_record_file(record_file(first.id), anchor_fingerprint=four.devices[0].identity.anchor)
    assert proven.plan.start == NamedVersion(
        model_id=str(start.id), training_id=str(start.training_id), weights_digest=bytes(start.weights_digest)
    )
    assert proven.record.base_model_digest == bytes(start.weights_digest)


def test_everybody_dies_in_the_first_round_and_it_goes_on(four: FederationSimulator, start: ModelVersion) -> None:
    training = four.train(rounds=1, start_from=start.id)
    four.run(until=lambda: bool(four.rounds(training)) and four.current(training).state == "collecting")
    sent = Submission.objects.count()
    for device in four.devices:
        device.kill()
    four.restart_server()
    for device in four.devices:
        device.start()
    four.run()
    assert four.state_of(training) == "completed"
    assert Submission.objects.count() == sent + 8  # four updates and four measurements, none of them twice


def test_a_device_that_has_lost_the_version_fetches_it_again(four: FederationSimulator, start: ModelVersion) -> None:
    device = four.devices[0]
    device.kill()
    forgotten = device.state
    forgotten.model = None
    forgotten.save()
    device.start()
    training = four.train(rounds=1, start_from=start.id, evaluate_last=False)
    four.run()
    assert four.outcomes(four.rounds(training)[0])[device.name] == "accepted"


def test_a_version_withdrawn_before_the_first_round_ends_the_training_and_no_device_gives(
    four: FederationSimulator, start: ModelVersion
) -> None:
    training = four.train(rounds=1, start_from=start.id)
    revoke_model(model_id=start.id, actor=OPERATOR, reason="poisoned")
    four.run()
    training.refresh_from_db()
    assert (training.state, training.ended_by) == ("failed", "start_unusable")
    assert gave_to(four, start, training) == [False] * 4


def test_after_a_training_that_hospitals_gave_to_no_device_gives_to_the_version_again(
    four: FederationSimulator, start: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = four.train(rounds=1, start_from=start.id)
    four.run(until=lambda: four.state_of(first) == "completed")
    # A server that breaks its own rule: the devices hold it.
    monkeypatch.setattr(trainings, "require_start", lambda *_, **__: start)
    second = four.train(rounds=1, start_from=start.id)
    four.run()
    current = Round.objects.filter(training=second).order_by("number")[0]
    memories = [device.state.rounds[str(current.id)] for device in four.devices]
    assert {(memory.stage, memory.code) for memory in memories} == {(Stage.REFUSED, "replayed")}
    assert not Submission.objects.filter(participant__round__training=second).exists()


def test_a_hospital_that_joins_the_federation_later_takes_part_where_nobody_has_measured(
    simulator: FederationSimulator,
) -> None:
    simulator.enrol(3)
    earlier = simulator.train(rounds=1, evaluate_last=False)
    simulator.run(until=lambda: simulator.state_of(earlier) == "completed")
    start = earlier.models.get()
    newcomer = simulator.enrol(1)[0]
    training = simulator.train(rounds=1, start_from=start.id)
    simulator.run(until=lambda: simulator.state_of(training) == "completed")
    assert simulator.outcomes(simulator.rounds(training)[0])[newcomer.name] == "accepted"


def test_a_hospital_that_was_not_there_for_the_measurement_would_be_shown_by_the_difference(
    simulator: FederationSimulator,
) -> None:
    simulator.enrol(3)
    earlier = simulator.train(rounds=1)
    simulator.run(until=lambda: simulator.state_of(earlier) == "completed")
    simulator.enrol(1)
    training = simulator.train(rounds=1, start_from=earlier.models.get().id)
    simulator.run(until=lambda: bool(simulator.rounds(training)) and simulator.rounds(training)[0].state == "failed")
    assert simulator.rounds(training)[0].failure_code == "cohort_too_close"
