"""A whole federation and everything that happens to one: after each scenario the auditor finds the same bits.

| what goes wrong | scenario |
|---|---|
| devices | stragglers, drop-outs before and after they sent, kills, wrong clocks, all of them gone |
| trust | suspension in the middle of a round, quorum lost by it |
| messages | lost, ten times each, answers that never arrive |
| the server | down over a deadline, restarted, a worker killed between storing and committing, the authority away |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit.models import AuditEntry
from latticeward.agent.state import Stage
from latticeward.errors import ConsistencyProofError
from rounds.models import Contribution, Round, Submission, Training, Upload
from rounds.policy import GRACE
from rounds.services import acceptance
from tests.simulation.broker import WorkerKilled
from tests.simulation.federation import FederationSimulator

# Nobody's patience: far beyond any stage of these plans, and what a stage may overrun by.
PAST_DUE = {"minutes": 10}
LONGEST_END = timedelta(seconds=60)


@pytest.fixture
def four(simulator: FederationSimulator) -> FederationSimulator:
    simulator.enrol(4)
    return simulator


def collecting(simulator: FederationSimulator, **overrides: Any) -> tuple[Training, Round]:
    """A training whose first round collects, with everybody joined and nobody's update sent."""
    training = simulator.train(**overrides)
    simulator.run(until=lambda: bool(simulator.rounds(training)) and simulator.current(training).state == "collecting")
    assert not Submission.objects.exists()
    return training, simulator.current(training)


def require_same_model(simulator: FederationSimulator, training: Training) -> None:
    newest = [current.model for current in simulator.rounds(training) if current.model][-1]
    held = {device.state.model.weights_digest for device in simulator.devices if device.state.model}
    assert held == {bytes(newest.weights_digest).hex()}


# --- as it should go -------------------------------------------------------------------------------------------------


def test_a_training_runs_to_its_end_and_everybody_holds_the_same_model(four: FederationSimulator) -> None:
    training = four.train(rounds=2)
    four.run()
    assert four.state_of(training) == "completed"
    assert [(row.kind, row.state) for row in four.rounds(training)] == [
        ("training", "published"),
        ("training", "published"),
        ("evaluation", "published"),
    ]
    assert all(set(four.outcomes(row).values()) == {"accepted"} for row in four.rounds(training))
    require_same_model(four, training)
    for device in four.devices:
        assert device.state.checkpoint is not None and not device.state.unproven  # every receipt was proven


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_many_devices_take_part_in_one_process(simulator: FederationSimulator, count: int) -> None:
    simulator.enrol(count)
    training = simulator.train(rounds=1, evaluate_last=False, cohort_bound=256)
    simulator.run(until=lambda: simulator.state_of(training) == "completed")
    assert list(simulator.outcomes(simulator.current(training)).values()) == ["accepted"] * count


# --- devices that are late, or gone ----------------------------------------------------------------------------------


def test_a_straggler_is_dropped_at_the_due_time_and_takes_part_again_in_the_next_round(
    four: FederationSimulator,
) -> None:
    training, first = collecting(four, rounds=2)
    straggler = four.devices[0]
    straggler.asleep = True
    four.run()
    assert four.current(training).state == "collecting"  # the others have sent and wait
    four.time_passes(**PAST_DUE)
    four.run(until=lambda: four.rounds(training)[0].state == "published")
    assert four.outcomes(first)[straggler.name] == "dropped"
    straggler.asleep = False
    four.run()
    assert four.state_of(training) == "completed"
    assert straggler.state.rounds[str(first.id)].stage is Stage.SETTLED
    assert four.outcomes(four.rounds(training)[1])[straggler.name] == "accepted"
    require_same_model(four, training)
    assert four.audit() == 3


def test_a_late_update_counts_in_no_round(four: FederationSimulator) -> None:
    training, first = collecting(four, rounds=2)
    straggler = four.devices[0]
    four.fault("request", "/submissions", who=straggler.name, method="POST")
    four.run(until=lambda: Submission.objects.count() == 3)
    straggler.asleep = True
    four.time_passes(**PAST_DUE)
    four.run(until=lambda: len(four.rounds(training)) == 2)
    straggler.asleep = False
    four.run()
    assert four.outcomes(first)[straggler.name] == "dropped"
    ours = Submission.objects.filter(participant__device_id=straggler.id)
    assert not ours.filter(participant__round=first).exists()
    assert four.state_of(training) == "completed"


def test_a_plan_that_waits_counts_a_straggler_in_its_own_round(four: FederationSimulator) -> None:
    stragglers = {"rule": "wait", "seconds": 3600}
    training, first = collecting(four, rounds=1, quorum=4, evaluate_last=False, stragglers=stragglers)
    straggler = four.devices[0]
    straggler.asleep = True
    four.run()
    four.time_passes(**PAST_DUE)
    four.run()
    assert four.current(training).state == "collecting"  # due, and one update short of its quorum
    straggler.asleep = False
    four.run(until=lambda: four.state_of(training) == "completed")
    assert set(four.outcomes(first).values()) == {"accepted"}
    assert len(four.rounds(training)) == 1


def test_a_wait_for_stragglers_ends_and_what_comes_then_is_refused(four: FederationSimulator) -> None:
    stragglers = {"rule": "wait", "seconds": 3600}
    training, _ = collecting(four, rounds=1, quorum=4, stragglers=stragglers)
    straggler = four.devices[0]
    straggler.asleep = True
    four.run()
    four.time_passes(hours=2)
    straggler.asleep = False
    straggler.step()  # before the heartbeat has ended the round
    assert not Submission.objects.filter(participant__device_id=straggler.id).exists()
    four.run(until=lambda: four.rounds(training)[0].state == "failed")
    assert four.rounds(training)[0].failure_code == "quorum_not_met"
    four.run(until=lambda: four.state_of(training) == "completed")  # the next round from the same base, all of them
    assert set(four.outcomes(four.current(training)).values()) == {"accepted"}


def test_a_device_that_dies_before_it_sends_is_dropped_and_the_others_publish(four: FederationSimulator) -> None:
    training, first = collecting(four, rounds=1, evaluate_last=False)
    four.devices[0].kill()
    four.run()
    four.time_passes(**PAST_DUE)
    four.run(until=lambda: four.state_of(training) == "completed")
    assert sorted(four.outcomes(first).values()) == ["accepted"] * 3 + ["dropped"]
    assert four.audit() == 1


def test_a_device_that_dies_after_it_sent_counts_and_learns_of_it_when_it_is_back(four: FederationSimulator) -> None:
    training, first = collecting(four, rounds=1, evaluate_last=False)
    device = four.devices[0]
    four.fault("kill", "/submissions", who=device.name, method="POST")
    four.run(until=lambda: four.state_of(training) == "completed")
    assert not device.is_running
    assert four.outcomes(first)[device.name] == "accepted"
    assert device.state.rounds[str(first.id)].stage is Stage.PREPARED  # the receipt never reached it
    device.start()
    four.run()
    assert device.state.rounds[str(first.id)].stage is Stage.SETTLED
    require_same_model(four, training)


def test_a_restart_before_sending_repeats_the_same_bytes(four: FederationSimulator) -> None:
    training, first = collecting(four, rounds=1, evaluate_last=False)
    device = four.devices[0]
    prepared = device.state.recall(str(first.id), "submission.bin")
    device.kill()
    device.start()
    four.run(until=lambda: four.state_of(training) == "completed")
    assert device.state.recall(str(first.id), "submission.bin") == prepared
    assert Submission.objects.filter(participant__device_id=device.id).count() == 1


def test_all_drop_out_and_the_training_fails_after_three_rounds(four: FederationSimulator) -> None:
    training, _ = collecting(four, rounds=2)
    for device in four.devices:
        device.kill()
    for _ in range(3):
        four.time_passes(**PAST_DUE)
        four.run()
    assert [(row.state, row.failure_code) for row in four.rounds(training)] == [("failed", "quorum_not_met")] * 3
    assert four.state_of(training) == "failed"


@pytest.mark.parametrize("seconds", [-50, 50])
def test_clocks_that_are_a_little_off_hinder_nobody(simulator: FederationSimulator, seconds: int) -> None:
    simulator.enrol(3)
    simulator.enrol(1, clock_offset=timedelta(seconds=seconds))
    training = simulator.train(rounds=1)
    simulator.run()
    assert simulator.state_of(training) == "completed"
    assert set(simulator.outcomes(simulator.current(training)).values()) == {"accepted"}


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_device_with_a_wrong_clock_is_left_out_and_comes_back_when_it_is_set(
    four: FederationSimulator, minutes: int
) -> None:
    device = four.devices[0]
    device.clock_offset = timedelta(minutes=minutes)
    training = four.train(rounds=2)
    four.run()
    assert device.transients > 0 and device.ended is None  # told to come back, and not lost
    four.time_passes(**PAST_DUE)
    four.run(until=lambda: len(four.rounds(training)) > 1 or four.current(training).state == "collecting")
    device.clock_offset = timedelta(0)
    four.time_passes(**PAST_DUE)
    four.run()
    four.time_passes(**PAST_DUE)
    four.run()
    assert four.state_of(training) == "completed"
    assert four.outcomes(four.current(training))[device.name] == "accepted"


# --- trust that ends in the middle -----------------------------------------------------------------------------------


def test_a_device_suspended_in_the_middle_is_taken_out_of_the_sum(four: FederationSimulator) -> None:
    training, first = collecting(four, rounds=1, evaluate_last=False)
    four.devices[3].asleep = True
    four.run(until=lambda: Contribution.objects.count() == 3)
    four.suspend(four.devices[0])
    four.devices[3].asleep = False
    four.run(until=lambda: four.state_of(training) == "completed")
    outcomes = four.outcomes(first)
    assert outcomes.pop(four.devices[0].name) == "excluded"
    assert set(outcomes.values()) == {"accepted"}
    assert Contribution.objects.count() == 3
    assert four.audit() == 1


def test_a_quorum_lost_by_a_suspension_fails_the_round_and_a_reinstatement_brings_the_next_one(
    four: FederationSimulator,
) -> None:
    training, _ = collecting(four, rounds=1, quorum=4, evaluate_last=False)
    four.devices[3].asleep = True
    four.run(until=lambda: Contribution.objects.count() == 3)
    four.suspend(four.devices[0])
    four.run(until=lambda: four.rounds(training)[0].state == "failed")
    assert four.rounds(training)[0].failure_code == "quorum_not_met"
    four.devices[3].asleep = False
    four.reinstate(four.devices[0])
    four.run(until=lambda: four.state_of(training) == "completed")
    assert set(four.outcomes(four.current(training)).values()) == {"accepted"}


def test_the_way_out_of_a_cohort_that_is_too_close_is_the_same_cohort_again(four: FederationSimulator) -> None:
    """As docs/operations.md says it: without one of the four a second training from the same start opens no sum."""
    first = four.train(rounds=1, evaluate_last=False)
    four.run(until=lambda: four.state_of(first) == "completed")
    four.suspend(four.devices[0])
    second = four.train(rounds=1, evaluate_last=False)
    four.run(until=lambda: four.state_of(second) == "failed")
    assert [row.failure_code for row in four.rounds(second)] == ["cohort_too_close"] * 3
    four.reinstate(four.devices[0])
    third = four.train(rounds=1, evaluate_last=False)
    four.run(until=lambda: four.state_of(third) == "completed")
    assert four.audit() == 2


# --- messages --------------------------------------------------------------------------------------------------------


def test_messages_that_are_all_lost_delay_a_training_and_change_nothing(four: FederationSimulator) -> None:
    training = four.train(rounds=1)
    with losing_what_doors_enqueue(four):
        four.run(until=lambda: four.state_of(training) == "completed", steps=200)
    assert set(four.outcomes(four.current(training)).values()) == {"accepted"}


@contextmanager
def losing_what_doors_enqueue(simulator: FederationSimulator) -> Iterator[None]:
    """Only what the heartbeat's sweep finds is done: every message of a door is lost before the beat."""
    beat = simulator.beat

    def beat_alone() -> None:
        simulator.broker.lose_all()
        simulator.time_passes(seconds=3)  # the sweep leaves alone what is most likely under way
        beat()

    simulator.beat = beat_alone  # type: ignore[method-assign]
    yield
    simulator.beat = beat  # type: ignore[method-assign]


def test_every_message_ten_times_counts_everything_once(four: FederationSimulator) -> None:
    four.broker.copies = 3  # and each of the three enqueues three more, level by level
    training = four.train(rounds=1)
    four.run(until=lambda: four.state_of(training) == "completed")
    assert four.broker.done["process_update"] >= 10
    assert Contribution.objects.count() == 8
    assert AuditEntry.objects.filter(event="update.accepted").count() == 8
    assert len(four.rounds(training)) == 2


@pytest.mark.parametrize("kind", ["request", "answer"])
def test_calls_that_are_lost_on_either_way_are_repeated_and_count_once(four: FederationSimulator, kind: str) -> None:
    parts = ("/join", "/submissions", "/work", "/manifest", "/record", "/proof", "/assignment")
    for part in parts:
        four.fault(kind, part, times=2)
    training = four.train(rounds=1)
    four.run(until=lambda: four.state_of(training) == "completed" and not any(d.state.unproven for d in four.devices))
    assert not any(fault.times for fault in four.web.faults)
    assert sum(device.transients for device in four.devices) == 2 * len(parts)
    assert all(set(four.outcomes(row).values()) == {"accepted"} for row in four.rounds(training))
    assert Submission.objects.count() == Contribution.objects.count() == 8


# --- the server ------------------------------------------------------------------------------------------------------


def test_a_server_restarted_in_the_middle_goes_on_where_it_was(four: FederationSimulator) -> None:
    training, first = collecting(four, rounds=1)
    for device in four.devices[:2]:
        device.step()  # sent, and the message to the workers waits in memory
    four.web.down = True
    for device in four.devices:
        device.step()
    four.restart_server()
    assert Submission.objects.filter(outcome="").count() == 2
    four.time_passes(seconds=5)
    four.run(until=lambda: four.state_of(training) == "completed")
    assert set(four.outcomes(first).values()) == {"accepted"}
    assert four.audit() == 2


@pytest.mark.parametrize("sent", [2, 3])
def test_a_deadline_that_passes_while_the_server_is_down_ends_the_round_at_its_first_breath(
    four: FederationSimulator, sent: int
) -> None:
    training, first = collecting(four, rounds=1, evaluate_last=False)
    for device in four.devices[sent:]:
        device.asleep = True
    four.run(until=lambda: Contribution.objects.count() == sent)
    four.web.down = True
    four.time_passes(**PAST_DUE)
    four.restart_server()
    four.beat()
    ended = four.rounds(training)[0]
    assert ended.state == ("published" if sent == 3 else "failed")
    assert sorted(four.outcomes(first).values()) == ["accepted"] * sent + ["dropped"] * (4 - sent)


def test_a_worker_killed_between_storing_and_committing_loses_and_doubles_nothing(
    four: FederationSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = []
    swap = acceptance.swap_partial

    def die_twice(*arguments: Any, **named: Any) -> Any:
        if len(deaths) < 2:
            deaths.append(1)
            raise WorkerKilled
        return swap(*arguments, **named)

    monkeypatch.setattr(acceptance, "swap_partial", die_twice)
    training = four.train(rounds=1)
    four.run(until=lambda: four.state_of(training) == "completed")
    assert len(deaths) == 2
    assert Contribution.objects.count() == 8


@pytest.mark.parametrize("queue", ["intake", "aggregate", "authority"])
def test_a_worker_that_is_away_for_a_while_delays_a_round_and_no_more(four: FederationSimulator, queue: str) -> None:
    training, first = collecting(four, rounds=1)
    four.broker.away.add(queue)
    four.run()
    assert four.current(training).state in ("collecting", "aggregating")
    four.broker.away.clear()
    four.run(until=lambda: four.state_of(training) == "completed")
    assert set(four.outcomes(first).values()) == {"accepted"}


@pytest.mark.parametrize(
    ("queue", "code"), [("intake", "quorum_not_met"), ("authority", "not_aggregated_in_time")], ids=str
)
def test_a_worker_that_stays_away_fails_the_round_within_a_minute_of_its_last_deadline(
    four: FederationSimulator, queue: str, code: str
) -> None:
    training, first = collecting(four, rounds=1)
    four.broker.away.add(queue)
    four.run()
    due = Round.objects.get(pk=first.pk).state_due_at
    four.time_passes(seconds=(due - first.opened_at).total_seconds() + GRACE.total_seconds() + 1)
    assert GRACE < LONGEST_END
    four.run(until=lambda: four.rounds(training)[0].state == "failed")
    assert four.rounds(training)[0].failure_code == code


def test_a_round_that_nobody_signs_fails_by_its_due_time(four: FederationSimulator) -> None:
    training = four.train(rounds=1)
    four.broker.drain(before=lambda name: four.broker.away.add("authority") if name.endswith("advance_training") else 0)
    opened = four.current(training)
    assert opened.state == "signing"
    four.time_passes(seconds=30 + GRACE.total_seconds() + 1)
    four.run(until=lambda: four.rounds(training)[0].state == "failed")
    assert four.rounds(training)[0].failure_code == "not_signed_in_time"
    four.broker.away.clear()
    four.run(until=lambda: four.state_of(training) == "completed")  # the next round makes up for it


def test_a_ledger_that_was_changed_behind_the_devices_stops_them(four: FederationSimulator) -> None:
    training = four.train(rounds=1, evaluate_last=False)
    four.run()
    device = four.devices[0]
    state = device.state
    assert state.checkpoint is not None
    # As if the server had shown this device another history before.
    state.checkpoint = type(state.checkpoint)(size=state.checkpoint.size, root="11" * 32)
    state.save()
    device.start()
    again = four.train(rounds=1, evaluate_last=False)
    four.run(until=lambda: four.state_of(again) == "completed" and device.ended is not None)
    assert isinstance(device.ended, ConsistencyProofError)
    assert four.state_of(training) == "completed"


# --- uploads in chunks -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("latticeward.uploads", "rounds.upload_endpoints", "latticeward.agent.transports.chunked"):
        monkeypatch.setattr(f"{name}.CHUNK_BYTES", 1000)


def chunks_put(simulator: FederationSimulator, who: str) -> int:
    return sum(call[:2] == (who, "PUT") for call in simulator.web.calls)


@pytest.mark.usefixtures("small_chunks")
def test_an_agent_killed_in_the_middle_of_an_upload_sends_the_rest_after_its_restart(
    simulator: FederationSimulator,
) -> None:
    simulator.enrol(4, settings={"chunks_above_bytes": 0})
    device = simulator.devices[0]
    simulator.fault("kill", "/uploads/", who=device.name, method="PUT", skip=2)
    training, first = collecting(simulator, rounds=1, evaluate_last=False)
    simulator.run(until=lambda: not device.is_running)
    assert Upload.objects.filter(participant__device_id=device.id).exists()
    device.start()
    simulator.run(until=lambda: simulator.state_of(training) == "completed")
    assert set(simulator.outcomes(first).values()) == {"accepted"}
    assert chunks_put(simulator, device.name) == chunks_put(simulator, simulator.devices[1].name)  # none twice
    assert not Upload.objects.exists()


@pytest.mark.usefixtures("small_chunks")
def test_a_server_restarted_in_the_middle_of_an_upload_has_kept_what_came(simulator: FederationSimulator) -> None:
    simulator.enrol(4, settings={"chunks_above_bytes": 0})
    device = simulator.devices[0]
    simulator.fault("request", "/uploads/", who=device.name, method="PUT", skip=3, times=1)
    training, first = collecting(simulator, rounds=1, evaluate_last=False)
    device.step()
    assert Upload.objects.filter(participant__device_id=device.id).exists()
    simulator.restart_server()
    simulator.run(until=lambda: simulator.state_of(training) == "completed")
    assert set(simulator.outcomes(first).values()) == {"accepted"}
    assert chunks_put(simulator, device.name) == chunks_put(simulator, simulator.devices[1].name)
