"""Issuing by the batch: a morning's machines share the authority's statements, and none keeps the others up."""

from typing import Any

import pytest
from django.core.cache import cache

from devices import services, tasks
from devices.models import Device, Site
from keys.models import Key, Statement
from latticeward.lifecycle import DeviceState
from tests.devices.machine import Machine

pytestmark = pytest.mark.django_db


def approved(site: Site, count: int) -> list[Device]:
    machines = [Machine.with_claim(site) for _ in range(count)]
    for machine in machines:
        services.approve_device(device_id=machine.finish(machine.begin()).id, actor="user:1")
    return [machine.device for machine in machines if machine.device is not None]


def states() -> set[str]:
    return set(Device.objects.values_list("state", flat=True))


def test_one_call_makes_the_certificates_of_all_that_wait(site: Site) -> None:
    approved(site, 3)
    tasks.issue_devices()
    assert states() == {DeviceState.ACTIVE}
    assert Statement.objects.filter(kind="device").count() == 3
    tasks.issue_devices()  # another message, which comes after the work is done
    assert Statement.objects.filter(kind="device").count() == 3


def test_one_message_is_sent_for_all_that_are_approved_before_it_is_taken_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.clear()
    sent: list[None] = []
    monkeypatch.setattr(tasks.issue_devices, "delay", lambda: sent.append(None))
    tasks.ask_to_issue()
    tasks.ask_to_issue()
    assert len(sent) == 1
    approved(site, 1)
    tasks.issue_devices()
    tasks.ask_to_issue()  # who comes after the worker looked is told of by another message
    assert len(sent) == 2


def test_a_longer_queue_than_a_batch_is_worked_off_by_one_call(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "ISSUING_BATCH", 2)
    approved(site, 5)
    tasks.issue_devices()
    assert states() == {DeviceState.ACTIVE}


def test_a_device_without_its_keys_keeps_none_of_the_others_up(site: Site) -> None:
    devices = approved(site, 3)
    Key.objects.filter(subject_id=str(devices[1].id), purpose="signing").delete()
    assert services.issue_approved() == 2
    assert Device.objects.get(state=DeviceState.APPROVED).id == devices[1].id


def test_three_devices_take_no_more_statements_than_two(site: Site, django_assert_max_num_queries: Any) -> None:
    approved(site, 2)
    with django_assert_max_num_queries(40) as two:
        services.issue_approved()
    approved(site, 3)
    with django_assert_max_num_queries(len(two)):
        assert services.issue_approved() == 3
