"""Signed requests: who is let in, and who is refused at once."""

import math
import os
import secrets
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext

from controlplane import live
from devices import authentication, nonces, services
from devices.authentication import Admit, Asked, authenticate, authenticate_all
from devices.models import Device, Site
from keys.models import Key, Reason
from latticeward.crypto.httpsig import RequestFacts
from latticeward.errors import (
    CertificateNotValidError,
    CertificateRevokedError,
    ClockSkewError,
    InvalidSignatureError,
    NotAuthenticatedError,
    NotPermittedError,
    ReplayError,
    WrongContextError,
)
from tests.devices.machine import Machine, enrolled


@pytest.fixture
def machine(site: Site) -> Machine:
    """Not heard of since the server's start."""
    machine = enrolled(site)
    authentication._seen.clear()
    Device.objects.update(last_seen_at=None)
    return machine


def device_of(machine: Machine) -> Device:
    assert machine.device is not None
    return machine.device


def test_an_active_device_is_let_in_and_seen(machine: Machine) -> None:
    found = authenticate(machine.facts())
    assert found.device == device_of(machine)
    seen_at = Device.objects.get().last_seen_at
    assert seen_at is not None and datetime.now(UTC) - seen_at < timedelta(seconds=5)


def test_being_seen_is_written_once_in_ten_seconds(machine: Machine) -> None:
    authenticate(machine.facts())
    first = Device.objects.get().last_seen_at
    authenticate(machine.facts())
    assert Device.objects.get().last_seen_at == first


def test_a_device_that_enrols_is_seen_and_its_next_request_need_not_write_it(site: Site) -> None:
    machine = enrolled(site)
    device = device_of(machine)
    assert device.last_seen_at == device.requested_at
    with CaptureQueriesContext(connection) as asked:
        authenticate(machine.facts())
    assert not [query for query in asked if query["sql"].startswith("UPDATE")]


def test_a_replayed_request_is_refused(machine: Machine) -> None:
    facts = machine.facts()
    authenticate(facts)
    with pytest.raises(ReplayError):
        authenticate(facts)


def test_two_devices_may_use_the_same_nonce(site: Site) -> None:
    nonce = secrets.token_bytes(16)
    for machine in (enrolled(site), enrolled(site)):
        authenticate(machine.facts(nonce=nonce))


def test_a_foreign_devices_signature_is_refused(site: Site) -> None:
    first, second = enrolled(site), enrolled(site)
    with pytest.raises(InvalidSignatureError):
        authenticate(first.facts(signed_by=second))


def test_a_stranger_and_an_unsigned_request_are_refused(site: Site, machine: Machine) -> None:
    with pytest.raises(NotAuthenticatedError):
        authenticate(Machine.with_claim(site).facts())
    signed = machine.facts()
    unsigned = RequestFacts.make("GET", signed.authority, signed.path, "", [])
    with pytest.raises(NotAuthenticatedError):
        authenticate(unsigned)


def test_a_request_to_another_server_is_refused(machine: Machine) -> None:
    with pytest.raises(WrongContextError):
        authenticate(machine.facts(authority="other.example"))


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_wrong_clock_is_told_by_how_many_seconds(machine: Machine, minutes: int) -> None:
    with pytest.raises(ClockSkewError, match=r"\d+ s"):
        authenticate(machine.facts(created_at=datetime.now(UTC) + timedelta(minutes=minutes)))


def test_a_restart_opens_no_window_for_replays(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machine.facts()
    monkeypatch.setattr(nonces, "_REMEMBERS_SINCE", int(datetime.now(UTC).timestamp()) + 1)
    with pytest.raises(ClockSkewError, match="before this server started"):
        authenticate(facts)


@pytest.mark.parametrize("ahead_seconds", [-250, -1, 0, 1, 20, 250, 299])
def test_a_request_is_not_taken_twice_across_a_restart_whatever_the_devices_clock(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, ahead_seconds: int
) -> None:
    captured = machine.facts(created_at=datetime.now(UTC) + timedelta(seconds=ahead_seconds))
    authenticate(captured)
    restart(monkeypatch)
    with pytest.raises((ReplayError, ClockSkewError)):
        authenticate(captured)


@pytest.mark.parametrize("with_restart", [False, True])
@pytest.mark.parametrize("ahead_seconds", [1, 20, 299])
def test_a_request_from_ahead_is_not_taken_twice_once_the_server_clock_has_come_to_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, ahead_seconds: int, with_restart: bool
) -> None:
    captured = machine.facts(created_at=datetime.now(UTC) + timedelta(seconds=ahead_seconds))
    authenticate(captured)
    if with_restart:
        restart(monkeypatch)
    later = datetime.now(UTC) + timedelta(seconds=ahead_seconds + 5)
    monkeypatch.setattr(nonces, "timezone", SimpleNamespace(now=lambda: later))
    with pytest.raises((ReplayError, ClockSkewError)):
        authenticate(captured, now=later)


def test_a_device_whose_clock_runs_ahead_is_heard_after_a_restart(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = datetime.now(UTC) + timedelta(seconds=60)
    authenticate(machine.facts(created_at=ahead))
    restart(monkeypatch)
    assert authenticate(machine.facts(created_at=ahead)).device == device_of(machine)
    assert nonces.SpentNonce.objects.count() == 2
    nonces.SpentNonce.objects.update(ends_at=datetime.now(UTC))
    nonces.forget_ended()
    assert not nonces.SpentNonce.objects.exists()


def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process without Redis forgets with its end, and how the next one begins."""
    cache.clear()
    nonces._taken_earlier.cache_clear()
    monkeypatch.setattr(nonces, "_REMEMBERS_SINCE", math.ceil(time.time()))


@pytest.mark.services
def test_with_redis_a_restart_forgets_no_nonce(
    machine: Machine, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVE_URL = os.environ["LATTICEWARD_TEST_LIVE_URL"]
    monkeypatch.setattr(live, "_client", None)
    captured = machine.facts(created_at=datetime.now(UTC) + timedelta(seconds=250))
    authenticate(captured)
    restart(monkeypatch)
    monkeypatch.setattr(live, "_client", None)
    with pytest.raises(ReplayError):
        authenticate(captured)


def test_a_suspended_device_is_refused_at_once_and_let_in_when_reinstated(machine: Machine) -> None:
    authenticate(machine.facts())
    services.suspend_device(device_id=device_of(machine).id, actor="user:1", why="odd updates")
    with pytest.raises(NotPermittedError):
        authenticate(machine.facts())
    with pytest.raises(NotPermittedError):
        authenticate(machine.facts(), admit=Admit.COLLECTING)
    services.reinstate_device(device_id=device_of(machine).id, actor="user:1")
    assert authenticate(machine.facts()).device.state == "active"


def test_a_revoked_device_is_refused_at_once(machine: Machine) -> None:
    authenticate(machine.facts())
    services.revoke_device(device_id=device_of(machine).id, actor="user:2", reason=Reason.KEY_COMPROMISE)
    for admit in Admit:
        with pytest.raises(CertificateRevokedError):
            authenticate(machine.facts(), admit=admit)


def test_a_refused_request_spends_no_nonce_and_notes_nothing(machine: Machine) -> None:
    services.suspend_device(device_id=device_of(machine).id, actor="user:1")
    facts = machine.facts()
    with pytest.raises(NotPermittedError):
        authenticate(facts)
    assert Device.objects.get().last_seen_at is None
    services.reinstate_device(device_id=device_of(machine).id, actor="user:1")
    authenticate(facts)


def test_an_expired_certificate_is_refused(machine: Machine) -> None:
    Key.objects.filter(owner="device").update(not_after_at=datetime.now(UTC))
    with pytest.raises(CertificateNotValidError):
        authenticate(machine.facts())


def test_a_machine_that_waits_may_collect_and_nothing_else(site: Site) -> None:
    machine = Machine.with_claim(site)
    device = machine.finish(machine.begin())
    assert authenticate(machine.facts(), admit=Admit.COLLECTING).device == device
    with pytest.raises(NotPermittedError):
        authenticate(machine.facts())


def test_a_declined_machine_may_learn_that_it_was_declined(site: Site) -> None:
    machine = Machine.with_claim(site)
    device = machine.finish(machine.begin())
    services.decline_device(device_id=device.id, actor="user:1")
    found = authenticate(machine.facts(), admit=Admit.COLLECTING).device
    assert machine.enrolment_id is not None
    assert services.collect(enrolment_id=machine.enrolment_id, device=found) == {"state": "declined"}


def test_strangers_do_not_fill_the_memory_of_keys(site: Site, machine: Machine) -> None:
    before = authentication._identity.cache_info().currsize
    for _ in range(3):
        with pytest.raises(NotAuthenticatedError):
            authenticate(Machine.with_claim(site).facts())
    assert authentication._identity.cache_info().currsize == before


def test_requests_looked_at_together_get_each_its_own_verdict(site: Site) -> None:
    good, suspended, stranger = enrolled(site), enrolled(site), Machine.with_claim(site)
    services.suspend_device(device_id=device_of(suspended).id, actor="user:1")
    once = good.facts()
    asked = [Asked(facts) for facts in (once, suspended.facts(), stranger.facts(), once, good.facts())]
    outcomes = authenticate_all(asked)
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "AuthenticatedDevice",
        "NotPermittedError",
        "NotAuthenticatedError",
        "ReplayError",
        "AuthenticatedDevice",
    ]


def test_a_batch_of_requests_asks_the_database_twice(site: Site, django_assert_num_queries: Any) -> None:
    machines = [enrolled(site) for _ in range(3)]
    authenticate_all([Asked(machine.facts()) for machine in machines])  # their keys are read once and for ever
    asked = [Asked(machine.facts()) for machine in machines]
    with django_assert_num_queries(2):
        authenticate_all(asked)
