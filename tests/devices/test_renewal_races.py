"""Renewals between processes that act at the same instant, in a database that lets them."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from django.db import connection, transaction

from devices import services, sites
from devices.renewal_issuing import issue_renewals
from keys.models import Key
from latticeward.errors import LatticewardError
from tests.devices.machine import Machine, enrolled
from tests.devices.renewing import Renewing, ask, device_of

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def machine() -> Machine:
    federation = services.found_federation(slug="heart", name="Heart federation")
    return enrolled(sites.create_site(federation=federation, slug="cleveland", name="Cleveland", actor="user:1"))


def test_a_copy_that_comes_while_the_certificate_is_made_suspends_the_device(machine: Machine) -> None:
    ask(machine)
    mine, copy = Renewing(machine), Renewing(machine)
    raw = copy.transcript()
    mine.finish(mine.begin())
    comes = Event()

    def come() -> str:
        comes.set()
        try:
            copy.begin(raw, epoch=1)
        except LatticewardError as error:
            return error.code
        finally:
            connection.close()
        return "begun"

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            assert issue_renewals() == 1
            outcome = pool.submit(come)
            assert comes.wait(5)
            wait_for_a_lock()
        assert outcome.result(20) == "renewal_conflict"
    device = device_of(machine)
    assert (device.state, device.renewals.get().state) == ("suspended", "conflicted")
    assert not Key.objects.filter(subject_id=str(device.id), state="active").exists()


def test_a_copy_that_comes_while_the_first_is_proven_suspends_the_device(machine: Machine) -> None:
    ask(machine)
    mine, copy = Renewing(machine), Renewing(machine)
    raw, proofs = copy.transcript(), mine.begin()

    def come() -> str:
        try:
            copy.begin(raw, epoch=1)
        except LatticewardError as error:
            return error.code
        finally:
            connection.close()
        return "begun"

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            mine.finish(proofs)
            outcome = pool.submit(come)
            wait_for_a_lock()
        assert outcome.result(20) == "renewal_conflict"
    device = device_of(machine)
    assert (device.state, device.renewals.get().state) == ("suspended", "conflicted")
    assert not Key.objects.filter(subject_id=str(device.id), epoch=2, state="pre_active").exists()


def wait_for_a_lock() -> None:
    """Return when another connection waits for a row that this one holds."""
    with connection.cursor() as cursor:
        for _ in range(2_000):
            cursor.execute("SELECT pg_sleep(0.005)")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waited")
