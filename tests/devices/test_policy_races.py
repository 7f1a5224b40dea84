"""Two people who decide about suites and rotations at the same instant, in a database that lets them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from django.db import connection, transaction
from django.utils import timezone

from devices import rotation, services, sites, suites
from devices.models import Federation, RotatingDevice, Rotation
from latticeward.errors import LatticewardError
from tests.devices.machine import enrolled
from tests.devices.test_renewal_races import wait_for_a_lock

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def federation() -> Federation:
    return services.found_federation(slug="heart", name="Heart federation")


def one_after_the_other(first: Callable[[], object], second: Callable[[], object]) -> str:
    """Begin the second while the first has not committed; returns the code of its refusal, or nothing."""
    comes = Event()

    def come() -> str:
        comes.set()
        try:
            second()
        except LatticewardError as error:
            return error.code
        finally:
            connection.close()
        return ""

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            first()
            outcome = pool.submit(come)
            assert comes.wait(5)
            wait_for_a_lock()
        return outcome.result(20)


def retire(federation: Federation, suite: str) -> None:
    rotation.retire_suite(
        federation=federation, suite=suite, retire_at=timezone.now() + timedelta(days=9), actor="user:1"
    )


def test_of_two_suites_that_are_retired_at_once_one_stays(federation: Federation) -> None:
    suites.accept_suite(federation=federation, suite="high", actor="user:1")
    code = one_after_the_other(lambda: retire(federation, "hybrid"), lambda: retire(federation, "high"))
    assert (code, suites.staying_suites()) == ("wrong_state", ("high",))


def test_a_device_is_in_one_of_two_rotations_that_are_started_at_once(federation: Federation) -> None:
    enrolled(sites.create_site(federation=federation, slug="cleveland", name="Cleveland", actor="user:1"))

    def start() -> None:
        rotation.start_rotation(federation=federation, scope="fleet", actor="user:1")

    assert one_after_the_other(start, start) == "wrong_state"
    assert (Rotation.objects.count(), RotatingDevice.objects.count()) == (1, 1)
