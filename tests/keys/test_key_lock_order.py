"""Transactions over several keys lock them by primary key, in a database where they would wait for each other."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import UUID

import pytest
from django.db import OperationalError, connection, transaction

from devices import services, sites
from devices.encipherment_issuing import issue_encipherments
from devices.models import Site
from devices.renewal_issuing import issue_renewals
from keys import offline, usage
from keys.models import Key, Reason
from tests.devices.enciphering import Enciphering, enciphered
from tests.devices.machine import Machine, enrolled
from tests.devices.renewing import Renewing, ask, device_of
from tests.devices.test_renewal_races import wait_for_a_lock

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]
# Four keys each: that another order begins with the very first of them all has odds of one in sixteen.
MACHINES = 4


@pytest.fixture
def site() -> Site:
    federation = services.found_federation(slug="heart", name="Heart federation")
    return sites.create_site(federation=federation, slug="cleveland", name="Cleveland", actor="user:1")


def held_before_the_first(rows: Collection[UUID], change: Callable[[], object]) -> set[UUID]:
    """Which of some keys a change holds while it waits for the first; then it is let go on, and must end well."""

    def run() -> None:
        try:
            change()
        finally:
            connection.close()

    first, *rest = Key.objects.filter(pk__in=rows).order_by("pk").values_list("pk", flat=True)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Key.objects.select_for_update().get(pk=first)
            outcome = pool.submit(run)
            wait_for_a_lock()
            free = Key.objects.select_for_update(skip_locked=True).filter(pk__in=rest)
            held = set(rest) - set(free.values_list("pk", flat=True))
        outcome.result(20)
    return held


def keys_of(*machines: Machine) -> list[UUID]:
    subjects = [str(device_of(machine).id) for machine in machines]
    return list(Key.objects.filter(subject_id__in=subjects).values_list("pk", flat=True))


def test_uses_are_added_in_order(site: Site) -> None:
    rows = keys_of(*(enrolled(site) for _ in range(MACHINES)))
    usage.flush_uses()
    for key in Key.objects.filter(pk__in=rows).order_by("-pk"):
        usage.count_use(key.key_id)
    assert held_before_the_first(rows, usage.flush_uses) == set()
    assert set(Key.objects.filter(pk__in=rows).values_list("uses", flat=True)) == {1}


def test_renewals_are_issued_in_order(site: Site) -> None:
    machines = [enrolled(site) for _ in range(MACHINES)]
    for machine in machines:
        ask(machine)
        renewing = Renewing(machine)
        renewing.finish(renewing.begin())
    assert held_before_the_first(keys_of(*machines), issue_renewals) == set()
    assert {device_of(machine).key_epoch for machine in machines} == {2}


@pytest.mark.parametrize("act", ["suspend", "reinstate", "revoke", "compromise"])
def test_trust_is_taken_and_given_back_in_order(site: Site, act: str) -> None:
    acts: dict[str, Callable[[UUID], object]] = {
        "suspend": lambda pk: services.suspend_device(device_id=pk, actor="user:1"),
        "reinstate": lambda pk: services.reinstate_device(device_id=pk, actor="user:1"),
        "revoke": lambda pk: services.revoke_device(device_id=pk, actor="user:1", reason=Reason.SUPERSEDED),
        "compromise": lambda pk: services.revoke_device(device_id=pk, actor="user:1", reason=Reason.KEY_COMPROMISE),
    }
    for _ in range(MACHINES):
        machine = enrolled(site)
        renewal = Renewing(machine)
        ask(machine)
        renewal.finish(renewal.begin())
        issue_renewals()
        ask(machine)
        waiting = Renewing(renewal.switched())  # so that there are superseded, active and waiting keys
        waiting.finish(waiting.begin())
        device = device_of(machine)
        if act == "reinstate":
            acts["suspend"](device.id)
        assert held_before_the_first(keys_of(machine), lambda pk=device.id: acts[act](pk)) == set()


def test_encipherment_certificates_are_issued_in_order(site: Site) -> None:
    for _ in range(MACHINES):
        machine = enrolled(site)
        enciphered(machine)
        asking = Enciphering(machine)
        asking.finish(asking.begin())
        rows = Key.objects.filter(subject_id=str(device_of(machine).id), purpose="encipherment")
        assert held_before_the_first(list(rows.values_list("pk", flat=True)), issue_encipherments) == set()
        assert sorted(rows.values_list("state", flat=True)) == ["active", "deactivated"]


def test_a_key_may_be_referred_to_while_its_uses_are_added(site: Site) -> None:
    machine = enrolled(site)
    row = Key.objects.get(subject_id=str(device_of(machine).id), purpose="authentication")

    def refer() -> bool:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                # What the database does for every row that comes to refer to this one.
                cursor.execute("SELECT 1 FROM keys_key WHERE id = %s FOR KEY SHARE NOWAIT", [row.pk])
            return True
        except OperationalError:
            return False
        finally:
            connection.close()

    usage.count_use(row.key_id)
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        usage.flush_uses()
        assert pool.submit(refer).result(20)


def test_the_offline_keys_leave_and_return_in_order(site: Site) -> None:
    enrolled(site)
    rows = list(Key.objects.filter(purpose__in=("root", "trust")).values_list("pk", flat=True))
    file = offline.export_offline(passphrase="correct horse battery staple", actor="user:1")
    for change in (offline.remove_offline, offline.restore_offline):
        act = partial(change, file=file, passphrase="correct horse battery staple", actor="user:1")
        assert held_before_the_first(rows, act) == set()
