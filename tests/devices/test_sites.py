"""Hospitals: their time zone and contact, and what of it the ledger may keep."""

from uuid import uuid4

import pytest

from controlplane.audit.models import AuditEntry
from devices import renewal, sites
from devices.authentication import authenticate
from devices.models import Federation, Site
from latticeward.errors import InvalidValueError, NotFoundError
from tests.devices.machine import enrolled
from tests.devices.renewing import Renewing, ask

CONTACT = {"contact_name": "Ada Byron", "contact_email": "ada@hospital.example", "contact_phone": "+49 30 123-45"}


def test_a_site_has_a_zone_and_a_contact(federation: Federation) -> None:
    made = sites.create_site(
        federation=federation, slug="charite", name="Charité", time_zone="Europe/Berlin", actor="user:1", **CONTACT
    )
    again = sites.create_site(federation=federation, slug="charite", name="Another", actor="user:2")
    assert again == made
    assert sites.facts_of(Site.objects.get(pk=made.pk)) == sites.SiteFacts(
        name="Charité", time_zone="Europe/Berlin", **CONTACT
    )


def test_a_change_is_recorded_without_the_persons_data(site: Site) -> None:
    sites.change_site(site_id=site.id, changes={**CONTACT, "time_zone": "America/New_York"}, actor="user:1")
    entry = AuditEntry.objects.get(event="site.changed")
    assert entry.actor == "user:1"
    assert (entry.details["from"], entry.details["to"]) == ({"time_zone": "UTC"}, {"time_zone": "America/New_York"})
    assert entry.details["changed"] == ["contact_email", "contact_name", "contact_phone", "time_zone"]
    assert not any(value in str(AuditEntry.objects.values_list("details", flat=True)) for value in CONTACT.values())


def test_changing_nothing_is_no_event(site: Site) -> None:
    sites.change_site(site_id=site.id, changes={"name": site.name}, actor="user:1")
    assert not AuditEntry.objects.filter(event="site.changed").exists()


def test_two_hospitals_have_two_names_since_records_know_them_by_nothing_else(site: Site) -> None:
    for name in (site.name, site.name.upper()):
        with pytest.raises(InvalidValueError, match="Another hospital has this name"):
            sites.create_site(federation=site.federation, slug="other", name=name, actor="user:1")
    other = sites.create_site(federation=site.federation, slug="other", name="Other", actor="user:1")
    with pytest.raises(InvalidValueError, match="Another hospital has this name"):
        sites.change_site(site_id=other.id, changes={"name": site.name}, actor="user:1")
    assert sites.create_site(federation=site.federation, slug=site.slug, name=site.name, actor="user:1") == site
    sites.change_site(site_id=site.id, changes={"name": site.name.upper()}, actor="user:1")


def test_what_a_device_does_is_recorded_under_the_present_name_of_its_hospital(site: Site) -> None:
    machine = enrolled(site)
    authenticate(machine.facts())  # this process has seen the device; another one renames its hospital
    Site.objects.filter(pk=site.pk).update(name="Cleveland Clinic Foundation")
    ask(machine)
    device = authenticate(machine.facts()).device
    renewal.begin_renewal(device=device, epoch=1, transcript=Renewing(machine).transcript())
    assert AuditEntry.objects.get(event="renewal.begun").details["site"] == "Cleveland Clinic Foundation"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("name", "  ", "name of 1 to 200"),
        ("time_zone", "Europe/Atlantis", "no time zone 'Europe/Atlantis'"),
        ("time_zone", "../../etc/passwd", "no time zone"),
        ("time_zone", "", "no time zone"),
        ("contact_email", "ada", "e-mail"),
        ("contact_email", f"{'a' * 60}@{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 60}.example", "e-mail"),
        ("contact_phone", "call me", "telephone"),
        ("contact_name", "a" * 101, "at most 100"),
    ],
)
def test_facts_that_cannot_be_are_refused(site: Site, name: str, value: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        sites.change_site(site_id=site.id, changes={name: value}, actor="user:1")
    with pytest.raises(InvalidValueError, match=said):
        sites.create_site(federation=site.federation, slug="new", actor="user:1", **{"name": "New", name: value})
    assert sites.facts_of(Site.objects.get()) == sites.SiteFacts(name="Cleveland Clinic")


def test_unknown_sites_and_strange_slugs_are_refused(federation: Federation) -> None:
    with pytest.raises(NotFoundError):
        sites.change_site(site_id=uuid4(), changes={}, actor="user:1")
    for slug in ("", "Berlin Mitte", "-a", "a" * 64):
        with pytest.raises(InvalidValueError):
            sites.create_site(federation=federation, slug=slug, name="Mitte", actor="user:1")
