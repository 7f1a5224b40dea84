"""Decisions about devices: what each does to the device, its keys and the ledger, and what is not possible."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices import claims, selectors, services
from devices.claims import ClaimRow
from devices.models import Claim, Federation, Site
from keys.models import Key, Reason, Revocation
from keys.selectors import device_keys, key_standing, server_verify_key
from latticeward.claim_code import format_code, format_uri, parse_claim
from latticeward.crypto.signing import Purpose
from latticeward.errors import (
    InvalidTransitionError,
    InvalidValueError,
    NotFoundError,
    StateError,
    UnknownDeviceClassError,
    UnknownSiteError,
)
from tests.devices.machine import Machine, enrolled


def states(machine: Machine) -> set[str]:
    assert machine.device is not None
    return set(Key.objects.filter(subject_id=str(machine.device.id)).values_list("state", flat=True))


def test_founding_twice_changes_nothing(federation: Federation) -> None:
    keys, entries = Key.objects.count(), AuditEntry.objects.count()
    assert services.found_federation(slug="heart", name="Another name") == federation
    assert (Key.objects.count(), AuditEntry.objects.count()) == (keys, entries)


def test_an_installation_speaks_for_one_federation(federation: Federation) -> None:
    with pytest.raises(StateError):
        services.found_federation(slug="thyroid", name="Thyroid")
    assert Federation.objects.count() == 1


def test_suspending_and_reinstating_takes_the_keys_along(site: Site) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    services.suspend_device(device_id=machine.device.id, actor="user:1", why="odd updates")
    assert states(machine) == {"suspended"}
    assert selectors.encapsulation_keys(site.federation) == {}
    assert selectors.signing_keys([machine.device]) == {}
    services.reinstate_device(device_id=machine.device.id, actor="user:1")
    assert states(machine) == {"active"}
    device = machine.device
    assert selectors.signing_keys([device])[device.id].raw == machine.keys.public.signing.raw
    assert selectors.encapsulation_keys(site.federation)[device.id].raw == machine.keys.public.encapsulation.raw


@pytest.mark.parametrize("reason", Reason)
def test_revoking_ends_every_key_for_good_with_the_reason(site: Site, reason: Reason) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    services.revoke_device(device_id=machine.device.id, actor="user:2", reason=reason)
    assert states(machine) == {"compromised" if reason == Reason.KEY_COMPROMISE else "deactivated"}
    assert set(Revocation.objects.values_list("reason", "actor")) == {(str(reason), "user:2")}
    assert AuditEntry.objects.get(event="device.revoked").details["reason"] == reason
    for event in (services.suspend_device, services.reinstate_device, services.approve_device):
        with pytest.raises(InvalidTransitionError):
            event(device_id=machine.device.id, actor="user:1")


def test_a_compromise_says_from_when_nothing_may_be_believed(site: Site) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    since = datetime.now(UTC) - timedelta(days=2)
    services.revoke_device(
        device_id=machine.device.id, actor="user:2", reason=Reason.KEY_COMPROMISE, invalid_from=since
    )
    key = device_keys(str(machine.device.id), epoch=1)["signing"]
    standing = key_standing(Key.objects.select_related("revocation").get(pk=key.pk))
    assert standing.invalid_from == since
    assert standing.revoked_at is not None


def test_a_suspended_device_can_be_revoked(site: Site) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    services.suspend_device(device_id=machine.device.id, actor="user:1")
    services.revoke_device(device_id=machine.device.id, actor="user:1", reason=Reason.PRIVILEGE_WITHDRAWN)
    assert states(machine) == {"deactivated"}


def test_a_device_that_does_not_exist_cannot_be_approved(federation: Federation) -> None:
    with pytest.raises(NotFoundError):
        services.approve_device(device_id=uuid4(), actor="user:1")


def test_the_fleet_shows_what_people_need(site: Site) -> None:
    active, waiting = enrolled(site), Machine.with_claim(site)
    waiting.finish(waiting.begin())
    rows = {row.id: row for row in selectors.fleet_rows(selectors.fleet(site.federation))}
    assert active.device is not None and waiting.device is not None
    row = rows[str(active.device.id)]
    assert (row.state, row.site, row.suite, row.key_epoch) == ("active", "cleveland", "hybrid", 1)
    assert row.certificate_not_after_at is not None
    assert row.fingerprint == active.keys.public.signing.fingerprint
    assert rows[str(waiting.device.id)].certificate_not_after_at is None
    assert selectors.active_devices(site.federation) == [active.device]


def test_a_device_is_silent_when_it_was_not_heard_of_for_long(site: Site) -> None:
    machine = enrolled(site)
    device = services.get_device(machine.device.id)  # type: ignore[union-attr]
    now = datetime.now(UTC)
    assert not selectors.is_silent(device, now=now)
    assert selectors.is_silent(device, now=now + timedelta(minutes=2))
    device.state = "suspended"
    assert not selectors.is_silent(device, now=now + timedelta(minutes=2))


def test_both_forms_of_a_claim_carry_the_anchor_and_the_server(site: Site) -> None:
    _, code = claims.create_claim(site=site, device_class="workstation", actor="user:1")
    read = parse_claim(format_uri(code))
    assert read.anchor == server_verify_key(Purpose.TRUST).key_id
    assert (read.site, read.device_class, read.server) == ("cleveland", "workstation", "http://127.0.0.1:8750")
    assert parse_claim(format_code(code)).mac_key == code.mac_key


def test_a_claim_for_longer_than_a_day_or_a_strange_class_is_refused(site: Site) -> None:
    for lifetime in (timedelta(days=2), timedelta(0), timedelta(seconds=-1)):
        with pytest.raises(InvalidValueError):
            claims.create_claim(site=site, device_class="workstation", actor="user:1", lifetime=lifetime)
    with pytest.raises(UnknownDeviceClassError):
        claims.create_claim(site=site, device_class="toaster", actor="user:1")
    assert not Claim.objects.exists()


def test_an_order_in_csv_makes_all_codes_or_none(site: Site) -> None:
    rows = claims.parse_rows("site,device_class,count\ncleveland,workstation,2\ncleveland,gateway\n")
    assert rows == [ClaimRow("cleveland", "workstation", 2, line=2), ClaimRow("cleveland", "gateway", 1, line=3)]
    assert len(claims.create_claims(federation=site.federation, rows=rows, actor="user:1")) == 3
    refusals = {
        ClaimRow("nowhere", "gateway", line=9): (UnknownSiteError, "Line 9 .* 'nowhere'"),
        ClaimRow("cleveland", "toaster", line=9): (UnknownDeviceClassError, "Line 9 .* 'toaster'"),
        ClaimRow("cleveland", "gateway", 2, "ab" * 16): (InvalidValueError, "bound to a key is ordered once"),
        ClaimRow("cleveland", "gateway", 998): (InvalidValueError, "at most 1000 codes"),
    }
    for row, (error, text) in refusals.items():
        with pytest.raises(error, match=text):
            claims.create_claims(federation=site.federation, rows=[*rows, row], actor="user:1")
    assert Claim.objects.count() == 3


def test_an_order_may_come_from_a_spreadsheet_and_bind_codes_to_keys(site: Site) -> None:
    text = "\ufeffsite;device_class;fingerprint\r\ncleveland;gateway;AB01 ab01ab01ab01ab01ab01ab01ab01\r\n"
    (row,) = claims.parse_rows(text)
    assert row.fingerprint == " ".join(["ab01"] * 8)
    ((claim, _),) = claims.create_claims(federation=site.federation, rows=[row], actor="user:1")
    assert claim.bound_fingerprint == row.fingerprint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line"),
        ("site\ncleveland\n", "first line"),
        ("site,device_class,colour\ncleveland,gateway,red\n", "first line"),
        ("site,device_class,site\ncleveland,gateway,red\n", "first line"),
        ("site,device_class\n", "no line under its first"),
        ("site,device_class,count\ncleveland,x,0\n", "Line 2 .* count"),
        ("site,device_class,count\ncleveland,x,1\ncleveland,x,many\n", "Line 3 .* count"),
        ("site,device_class,count\ncleveland,x,²\n", "Line 2 .* count"),
        ("site,device_class\n,x\n", "Line 2 .* no hospital"),
        ("site,device_class\ncleveland\n", "Line 2 .* no device class"),
        ("site,device_class\ncleveland,x,1,2\n", "Line 2 .* more cells"),
        ("site,device_class,fingerprint\ncleveland,x,abc\n", "Line 2 .* fingerprint"),
        ('site,device_class\n"cleveland,x\n', "no CSV"),
    ],
)
def test_an_order_that_cannot_be_read_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        claims.parse_rows(text)


def test_a_used_claim_cannot_be_cancelled(site: Site) -> None:
    machine = enrolled(site)
    with pytest.raises(NotFoundError):
        claims.cancel_claim(claim_id=machine.claim.id, actor="user:1")


@pytest.mark.parametrize(
    ("reason", "hours"), [(Reason.PRIVILEGE_WITHDRAWN, -1), (Reason.KEY_COMPROMISE, 1)], ids=["no compromise", "future"]
)
def test_a_date_of_compromise_that_cannot_be_is_refused_and_revokes_nothing(
    site: Site, reason: Reason, hours: int
) -> None:
    device = enrolled(site).device
    assert device is not None
    invalid_from = timezone.now() + timedelta(hours=hours)
    with pytest.raises(InvalidValueError):
        services.revoke_device(device_id=device.id, actor="user:1", reason=reason, invalid_from=invalid_from)
    assert services.get_device(device.id).state == "active"
