"""A fleet's year in one test: it enrols, rotates its keys, leaves a retired suite, and loses machines in mid-round."""

from datetime import timedelta

import pytest
from django.utils import timezone

from devices import rotation, services, suites
from devices.models import Device, Rotation, SuitePolicy
from keys.models import Key, Reason
from latticeward.agent.floor import Floor
from rounds.models import ModelStanza, Submission
from tests.simulation.federation import OPERATOR, FederationSimulator


def at_epoch(epoch: int) -> bool:
    return not Device.objects.exclude(key_epoch=epoch).exists()


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_a_fleet_rotates_leaves_a_suite_and_learns_on_without_what_was_revoked(
    simulator: FederationSimulator, count: int
) -> None:
    simulator.enrol(count, settings={"floor": Floor(suites=("hybrid", "high"))})
    federation = simulator.federation
    assert federation is not None

    # All keys of all devices are new, and every device did that by itself, once.
    rotation.start_rotation(federation=federation, scope="fleet", actor=OPERATOR, at_once=count)
    simulator.run(until=lambda: at_epoch(2))
    simulator.run(until=lambda: Rotation.objects.get().state == "completed")
    assert Key.objects.filter(owner="device", state="active", epoch=2).count() == 4 * count
    assert not Key.objects.filter(owner="device", state="active", epoch=1).exists()

    # A suite goes, and nobody is left in it when its date comes.
    suites.accept_suite(federation=federation, suite="high", actor=OPERATOR)
    rotation.retire_suite(
        federation=federation, suite="hybrid", retire_at=timezone.now() + timedelta(days=30), actor=OPERATOR
    )
    simulator.run(until=lambda: at_epoch(3))
    assert set(Device.objects.values_list("suite", flat=True)) == {"high"}
    SuitePolicy.objects.filter(suite="hybrid").update(retire_at=timezone.now())

    # In mid-round machines are lost, some of which have sent: the model is published without any of them.
    training = simulator.train(rounds=1, evaluate_last=False, cohort_bound=256, suite="high", quorum=count // 2)
    slow = simulator.devices[-1]  # the round waits for it, and so is still collecting when the others have sent
    slow.asleep = True
    simulator.run(until=lambda: training.rounds.filter(state="recruiting").exists())
    slow.asleep = False
    simulator.run(until=lambda: training.rounds.filter(state="collecting").exists())
    slow.asleep = True
    simulator.run(until=lambda: Submission.objects.filter(outcome="accepted").count() == count - 1)
    lost = simulator.devices[:: count // 10][:10] if count >= 20 else simulator.devices[::6]
    for device in lost:
        services.revoke_device(device_id=device.id, actor=OPERATOR, reason=Reason.KEY_COMPROMISE)
    slow.asleep = False
    simulator.run(until=lambda: simulator.state_of(training) == "completed")

    current = simulator.current(training)
    outcomes = simulator.outcomes(current)
    gone = {device.name for device in lost}
    assert len(gone) == (10 if count >= 20 else 2)
    assert {outcomes[name] for name in gone} == {"excluded"}
    assert {state for name, state in outcomes.items() if name not in gone} == {"accepted"}
    assert current.state == "published" and current.model is not None
    sealed = set(ModelStanza.objects.filter(model=current.model).values_list("device_id", flat=True))
    assert sealed == {device.id for device in simulator.devices if device.name not in gone}
