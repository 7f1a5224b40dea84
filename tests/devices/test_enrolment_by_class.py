"""What a machine may do when it enrols is decided by its class and its claim, not by what it says."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection
from pytest_django import Settings

from controlplane.audit.models import AuditEntry
from devices import claims, classes, enrolment, services, sites
from devices.models import Claim, Device, Enrolment, Site
from keys.models import Certificate, Key
from latticeward.claim_code import ClaimCode
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment import FinishProofs
from latticeward.errors import ClaimRefusedError, KeyUsageError, UnsupportedSuiteError, WrongContextError
from tests.devices.machine import Machine, enrolled

EVERY_SUITE = ("constrained", "hybrid", "high")


def machine_of(site: Site, device_class: str, **named: object) -> Machine:
    claim, code = claims.create_claim(site=site, device_class=device_class, actor="user:1", **named)  # type: ignore[arg-type]
    return Machine(site=site, code=code, claim=claim)


def begin(machine: Machine, suites: tuple[str, ...], floor: str) -> FinishProofs:
    slug = machine.claim.device_class.slug
    return machine.begin(machine.transcript(device_class=slug, suites=suites, floor=floor))


def change(site: Site, slug: str, **changes: object) -> None:
    row = classes.get_class(federation=site.federation, slug=slug)
    classes.change_class(class_id=row.id, changes=changes, actor="user:1")


@pytest.fixture
def every_suite(settings: Settings) -> None:
    settings.ACCEPTED_SUITES, settings.SUITE_FLOOR = EVERY_SUITE, "constrained"


@pytest.mark.usefixtures("every_suite")
@pytest.mark.parametrize(
    ("device_class", "offered", "floor", "chosen"),
    [
        ("wearable-hub", ("hybrid", "constrained"), "constrained", "constrained"),
        ("wearable-hub", ("hybrid",), "constrained", "hybrid"),
        ("wearable-hub", ("hybrid", "constrained"), "hybrid", "hybrid"),
        ("workstation", ("constrained", "hybrid"), "constrained", "hybrid"),
        ("workstation", ("high", "hybrid", "tomorrow"), "hybrid", "hybrid"),
    ],
)
def test_the_default_of_the_class_is_chosen_where_all_accept_it(
    site: Site, device_class: str, offered: tuple[str, ...], floor: str, chosen: str
) -> None:
    begin(machine_of(site, device_class), offered, floor)
    assert Enrolment.objects.get().suite == chosen


@pytest.mark.usefixtures("every_suite")
def test_an_offer_below_the_floor_of_the_class_is_refused_and_leaves_nothing(site: Site) -> None:
    machine = machine_of(site, "workstation")
    with pytest.raises(UnsupportedSuiteError, match="floor hybrid"):
        begin(machine, ("constrained",), "constrained")
    assert not Enrolment.objects.exists()
    assert Claim.objects.get().reserved_for == ""


def test_a_class_cannot_lower_the_floor_of_the_federation(site: Site) -> None:
    with pytest.raises(UnsupportedSuiteError):
        begin(machine_of(site, "wearable-hub"), ("constrained",), "constrained")


@pytest.mark.usefixtures("every_suite")
def test_a_class_may_ask_for_more_than_the_federation(db: None, settings: Settings) -> None:
    settings.AUTHORITY_PROFILE = "cnsa2"
    federation = services.found_federation(slug="heart", name="Heart federation")
    site = sites.create_site(federation=federation, slug="cleveland", name="Cleveland", actor="user:1")
    change(site, "imaging", suite_floor="high", default_suite="high")
    with pytest.raises(UnsupportedSuiteError, match="floor high"):
        begin(machine_of(site, "imaging"), ("hybrid", "high"), "hybrid")
    machine = machine_of(site, "imaging")
    machine.keys = DeviceKeys.generate("high")
    assert machine.finish(begin(machine, ("hybrid", "high"), "hybrid")).suite == "high"


def test_a_class_that_approves_by_itself_says_so_in_the_ledger(site: Site) -> None:
    change(site, "gateway", auto_approve=True)
    machine = machine_of(site, "gateway")
    assert machine.finish(begin(machine, ("hybrid",), "hybrid")).state == "approved"
    entry = AuditEntry.objects.get(event="device.approved")
    assert (entry.actor, entry.details["why"]) == ("system", "policy of the class gateway")


def test_a_claim_can_ask_for_a_person_where_its_class_would_not(site: Site) -> None:
    change(site, "gateway", auto_approve=True)
    machine = machine_of(site, "gateway", auto_approve=False)
    assert machine.finish(begin(machine, ("hybrid",), "hybrid")).state == "pending"


def test_what_a_class_says_at_the_time_of_use_counts(site: Site) -> None:
    change(site, "gateway", auto_approve=True)
    machine = machine_of(site, "gateway")
    change(site, "gateway", auto_approve=False)
    assert machine.finish(begin(machine, ("hybrid",), "hybrid")).state == "pending"


def test_the_certificate_lives_as_long_as_the_class_says(site: Site) -> None:
    change(site, "gateway", certificate_days=7)
    machine = machine_of(site, "gateway")
    device = machine.finish(begin(machine, ("hybrid",), "hybrid"))
    services.approve_device(device_id=device.id, actor="user:1")
    services.issue(device_id=device.id)
    certificate = Certificate.objects.get(key__subject_id=str(device.id))
    assert certificate.not_after_at - certificate.not_before_at == timedelta(days=7)


def test_a_bound_code_is_good_for_its_key_only(site: Site) -> None:
    keys = DeviceKeys.generate()
    machine = machine_of(site, "workstation", bound_to=keys.public.signing.fingerprint.upper())
    with pytest.raises(KeyUsageError, match="bound to another"):
        machine.begin()
    assert not Enrolment.objects.exists()
    machine.keys = keys
    assert machine.finish(machine.begin()).state == "pending"


def test_a_device_that_asks_for_another_site_is_refused_and_its_code_stays_good(site: Site) -> None:
    sites.create_site(federation=site.federation, slug="hungary", name="Hungary", actor="user:1")
    machine = machine_of(site, "workstation")
    with pytest.raises(WrongContextError):
        machine.begin(machine.transcript(site="hungary"))
    assert not Enrolment.objects.exists()
    assert machine.finish(machine.begin()).site == site


@pytest.mark.parametrize("role", ["authentication", "classical", "signing", "decapsulation"])
def test_a_key_that_is_registered_is_refused_to_its_own_device_and_to_others(site: Site, role: str) -> None:
    known = enrolled(site)
    other = machine_of(site, "workstation")
    other.keys = replace(other.keys, **{role: getattr(known.keys, role)})
    again = machine_of(site, "workstation")
    again.keys = known.keys
    for machine in (other, again):
        with pytest.raises(KeyUsageError, match="registered already"):
            machine.begin()
    assert Device.objects.count() == 1
    assert Claim.objects.filter(consumed_at=None, reserved_for="").count() == 2


def test_unknown_ids_cannot_lock_real_codes(site: Site) -> None:
    machine = machine_of(site, "workstation")
    real = machine.code
    for _ in range(100):
        machine.code = ClaimCode(lookup_id=secrets.token_bytes(5), secret=secrets.token_bytes(16), anchor=real.anchor)
        with pytest.raises(ClaimRefusedError):
            machine.begin(b"\xa1\x68claim_id\x45" + machine.code.lookup_id, bytes(32))
    assert enrolment.refusals_of([machine.claim]) == {}
    assert enrolment.refusals_of_unknown() == 100
    machine.code = real
    assert machine.finish(machine.begin()).state == "pending"


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_machines_that_race_for_one_code_exactly_one_comes_in() -> None:
    federation = services.found_federation(slug="heart", name="Heart federation")
    site = sites.create_site(federation=federation, slug="cleveland", name="Cleveland", actor="user:1")
    claim, code = claims.create_claim(site=site, device_class="workstation", actor="user:1")
    machines = [Machine(site=site, code=code, claim=claim) for _ in range(6)]

    def race(machine: Machine) -> str:
        try:
            return machine.finish(machine.begin()).state
        except ClaimRefusedError as error:
            return error.code
        finally:
            connection.close()

    with ThreadPoolExecutor(len(machines)) as pool:
        outcomes = list(pool.map(race, machines))
    assert sorted(outcomes) == ["claim_refused"] * 5 + ["pending"]
    assert Device.objects.count() == 1
    assert Key.objects.filter(owner="device").count() == 4


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_two_whole_redemptions_that_end_at_once_one_wins() -> None:
    """Both have an answer to their first message, because the first reservation ran out; both now finish."""
    federation = services.found_federation(slug="heart", name="Heart federation")
    site = sites.create_site(federation=federation, slug="cleveland", name="Cleveland", actor="user:1")
    slow = Machine.with_claim(site)
    quick = Machine(site=site, code=slow.code, claim=slow.claim)
    proofs = [slow.begin()]
    Claim.objects.update(reserved_until=slow.claim.created_at)
    proofs.append(quick.begin())

    def finish(pair: tuple[Machine, FinishProofs]) -> str:
        try:
            return pair[0].finish(pair[1]).state
        except ClaimRefusedError as error:
            return error.code
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(finish, zip((slow, quick), proofs, strict=True)))
    assert outcomes == ["claim_refused", "pending"]
    assert Device.objects.get().id == quick.device.id  # type: ignore[union-attr]
