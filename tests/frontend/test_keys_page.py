"""The pages about keys: what ends soon, how each stands, and one key's life."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from devices import services, sites
from devices.models import Federation, Site
from keys.models import Key
from keys.selectors import server_keys
from tests.devices.machine import enrolled


@pytest.fixture
def founded(db: None) -> Federation:
    return services.found_federation(slug="heart", name="Heart federation")


@pytest.fixture
def site(founded: Federation) -> Site:
    return sites.create_site(federation=founded, slug="cleveland", name="Cleveland Clinic", actor="user:1")


def test_what_ends_soon_stands_on_the_overview_and_on_the_page(site: Site, client: Client, operator: User) -> None:
    machine = enrolled(site)
    client.force_login(operator)
    assert "ends in" not in client.get(reverse("overview")).content.decode()
    soon = timezone.now() + timedelta(days=12, hours=1)
    Key.objects.filter(subject_id=str(machine.device.id)).update(not_after_at=soon)  # type: ignore[union-attr]
    server_keys("plan").update(not_after_at=timezone.now() - timedelta(days=2))
    for page in ("overview", "keys"):
        text = client.get(reverse(page)).content.decode()
        assert "The certificate of ward 3, Cleveland Clinic ends in 12 days" in text
        assert "The server&#x27;s plan key ended 2 days ago" in text


def test_clinicians_are_not_told_of_keys(site: Site, client: Client, clinician: User) -> None:
    server_keys("plan").update(not_after_at=timezone.now() + timedelta(days=2))
    client.force_login(clinician)
    assert "plan key" not in client.get(reverse("overview")).content.decode()
    assert client.get(reverse("key", args=[server_keys("plan").get().id])).status_code == 403


def test_the_list_is_narrowed_by_owner_and_state(site: Site, client: Client, operator: User) -> None:
    machine = enrolled(site)
    services.suspend_device(device_id=machine.device.id, actor="user:1")  # type: ignore[union-attr]
    client.force_login(operator)
    text = client.get(reverse("keys") + "?owner=device&state=suspended").content.decode()
    assert "4 keys, newest first" in text and "issuing" not in text
    assert "No key here" in client.get(reverse("keys") + "?state=destroyed").content.decode()


def test_one_key_shows_its_life(site: Site, client: Client, operator: User) -> None:
    machine = enrolled(site)
    device_id = machine.device.id  # type: ignore[union-attr]
    services.suspend_device(device_id=device_id, actor=f"user:{operator.pk}")
    key = Key.objects.get(subject_id=str(device_id), purpose="authentication")
    client.force_login(operator)
    text = client.get(reverse("key", args=[key.id])).content.decode()
    assert "Authentication key of ward 3, Cleveland Clinic" in text
    assert "A key became active" in text and "A key was suspended, by olive" in text
    assert key.key_id in text and key.certificates.get().serial in text
