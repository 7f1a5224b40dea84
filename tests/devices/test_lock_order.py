"""Who waits for a device holds nothing that a certificate in the making needs: neither its part in a job nor the feed.

Issuing locks devices first, then their parts in rotations, and the feed of the ledger last; so must everybody.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from controlplane.audit.models import AuditFeed
from devices import renewal, renewal_issuing, rotation, rotation_asking, services, sites
from devices.encipherment_issuing import issue_encipherments
from devices.models import Device, DeviceClass, RotatingDevice, Site
from devices.renewal_issuing import issue_renewals
from keys.models import Key, Reason
from tests.devices.enciphering import Enciphering
from tests.devices.machine import Machine, enrolled
from tests.devices.renewing import Renewing, ask, device_of
from tests.devices.test_renewal_races import wait_for_a_lock

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def site() -> Site:
    federation = services.found_federation(slug="heart", name="Heart federation")
    return sites.create_site(federation=federation, slug="cleveland", name="Cleveland", actor="user:1")


@pytest.fixture
def machines(site: Site) -> list[Machine]:
    return [enrolled(site) for _ in range(4)]


def in_a_thread(change: Callable[[], Any]) -> Any:
    def run() -> Any:
        try:
            return change()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(20)


def held() -> list[str]:
    """Of the rows that issuing needs after the devices', those that another connection has locked."""
    rows = {
        "the feed": AuditFeed.objects.all(),
        "a device": Device.objects.exclude(pk=Device.objects.order_by("id").values("pk")[:1]),
        "a part in a job": RotatingDevice.objects.all(),
    }
    return [
        name
        for name, some in rows.items()
        if some.count() != len(some.model._default_manager.select_for_update(skip_locked=True).filter(pk__in=some))
    ]


def held_while_waiting(change: Callable[[], Any]) -> list[str]:
    """What a change holds when it waits for the first of the devices; then it is let go on, and must end well."""

    def run() -> None:
        try:
            change()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            list(Device.objects.select_for_update().order_by("id")[:1])
            outcome = pool.submit(run)
            wait_for_a_lock()
            found = held()
        outcome.result(20)
    return found


def start(site: Site) -> rotation.Rotation:
    return rotation.start_rotation(federation=site.federation, scope="fleet", actor="user:1")


def test_a_job_asks_in_order(site: Site, machines: list[Machine]) -> None:
    start(site)
    assert held_while_waiting(rotation_asking.advance_rotations) == []
    assert set(RotatingDevice.objects.values_list("state", flat=True)) == {"asked"}


def test_a_job_lets_go_in_order(site: Site, machines: list[Machine]) -> None:
    start(site)
    for machine in machines:
        services.revoke_device(device_id=device_of(machine).id, actor="user:1", reason=Reason.SUPERSEDED)
    assert held_while_waiting(rotation_asking.advance_rotations) == []
    assert set(RotatingDevice.objects.values_list("state", flat=True)) == {"left"}


def test_a_job_is_cancelled_in_order(site: Site, machines: list[Machine]) -> None:
    job = start(site)
    rotation_asking.advance_rotations()
    assert held_while_waiting(lambda: rotation.cancel_rotation(rotation_id=job.id, actor="user:1")) == []
    assert not Device.objects.exclude(renewal_reason="").exists()


@pytest.mark.parametrize("work", ["enrolment", "renewal", "encipherment"])
def test_a_row_may_come_to_refer_to_a_device_while_its_certificate_is_made(site: Site, work: str) -> None:
    if work == "enrolment":
        machine = Machine.with_claim(site)
        machine.finish(machine.begin())
        services.approve_device(device_id=device_of(machine).id, actor="user:1")
        issue: Callable[[], int] = services.issue_approved
    elif work == "renewal":
        machine = enrolled(site)
        ask(machine)
        renewing = Renewing(machine)
        renewing.finish(renewing.begin())
        issue = issue_renewals
    else:
        machine = enrolled(site)
        asking = Enciphering(machine)
        asking.finish(asking.begin())
        issue = issue_encipherments

    def refer() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            # What the database does at the commit of such a row, when its transaction holds the feed.
            cursor.execute("SELECT 1 FROM devices_device WHERE id = %s FOR KEY SHARE NOWAIT", [device_of(machine).pk])

    with transaction.atomic():
        assert issue() == 1
        in_a_thread(refer)


def test_devices_that_are_due_are_asked_in_order(site: Site, machines: list[Machine]) -> None:
    DeviceClass.objects.update(rotate_after_uses=1)
    Key.objects.filter(purpose="signing").update(uses=2)
    assert held_while_waiting(lambda: rotation_asking.ask_due(site.federation)) == []
    assert set(Device.objects.values_list("renewal_reason", flat=True)) == {"policy_uses"}


def test_nobody_waits_for_the_feed_while_certificates_are_signed(
    machines: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine in machines:
        ask(machine)
        renewing = Renewing(machine)
        renewing.finish(renewing.begin())
    sign, free = renewal_issuing.issue_certificates, []

    def look_and_sign(*orders: Any, **named: Any) -> Any:
        free.append(in_a_thread(lambda: transaction.atomic(_lock_the_feed)()))
        return sign(*orders, **named)

    monkeypatch.setattr(renewal_issuing, "issue_certificates", look_and_sign)
    assert issue_renewals() == len(machines)
    assert free == [1]


def _lock_the_feed() -> int:
    return len(AuditFeed.objects.select_for_update(skip_locked=True))


def test_a_renewal_that_lapses_waits_for_its_keys_without_the_feed(machines: list[Machine]) -> None:
    machine = machines[0]
    ask(machine)
    renewing = Renewing(machine)
    renewing.finish(renewing.begin())
    row = device_of(machine).renewals.get()

    def run() -> None:
        try:
            renewal.lapse(row, code="key_usage", actor="system")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            list(Key.objects.select_for_update().filter(subject_id=str(row.device_id)))
            outcome = pool.submit(run)
            wait_for_a_lock()
            assert "the feed" not in held()
        outcome.result(20)
    assert not Key.objects.filter(subject_id=str(row.device_id), state="pre_active").exists()
