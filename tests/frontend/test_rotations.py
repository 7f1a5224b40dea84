"""Rotations and suites by hand: what each button does, and what it says when it cannot."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from devices import suites, tasks
from devices.models import Federation, Rotation
from tests.frontend import scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def federation(monkeypatch: pytest.MonkeyPatch) -> Federation:
    monkeypatch.setattr(tasks.advance_rotations, "delay", lambda: None)
    return scene.make_federation()


@pytest.fixture
def person(client: Client, operator: User) -> Client:
    client.force_login(operator)
    return client


def test_a_dry_run_is_shown_and_changes_nothing(person: Client, federation: Federation) -> None:
    page = person.get(reverse("rotations"), {"scope": "fleet", "value": ""}).content.decode()
    assert "4 devices would be asked to replace 16 keys" in page
    assert not Rotation.objects.exists()
    assert person.get(reverse("rotations"), {"scope": "site", "value": ""}).status_code == 422


def test_a_rotation_is_started_paused_resumed_and_cancelled(person: Client, federation: Federation) -> None:
    started = person.post(reverse("rotation-start"), {"scope": "site", "value": "cleveland"})
    job = Rotation.objects.get()
    assert started["Location"] == reverse("rotation", args=[job.id])
    for event, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        person.post(reverse("rotation-move", args=[job.id, event]))
        job.refresh_from_db()
        assert job.state == state
    refused = person.post(reverse("rotation-move", args=[job.id, "resume"]), follow=True)
    assert "Nothing was changed" in refused.content.decode()


def test_a_suite_is_accepted_retired_and_kept(person: Client, federation: Federation) -> None:
    refused = person.post(reverse("suite-move", args=["hybrid", "retire"]), {"retire_at": "2030-01-01"}, follow=True)
    assert "accept another first" in refused.content.decode()
    person.post(reverse("suite-move", args=["high", "accept"]))
    day = (timezone.now() + timedelta(days=9)).date().isoformat()
    person.post(reverse("suite-move", args=["hybrid", "retire"]), {"retire_at": day})
    assert Rotation.objects.get().cause == "retirement"
    assert {row.suite.id: row.state for row in suites.standings(federation)}["hybrid"] == "retiring"
    person.post(reverse("suite-move", args=["hybrid", "keep"]))
    assert suites.accepted_suites() == ("hybrid", "high")
    assert Rotation.objects.get().state == "cancelled"


def test_a_suite_is_retired_from_a_day_to_come_or_now_and_nothing_else(person: Client, federation: Federation) -> None:
    person.post(reverse("suite-move", args=["high", "accept"]))
    address = reverse("suite-move", args=["hybrid", "retire"])
    for sent, told in (
        ({}, "Name the day"),
        ({"retire_at": "2099-01-01", "now": "on"}, "not both"),
        ({"retire_at": "the day after"}, "Enter a valid date"),
        ({"retire_at": "2020-01-01"}, "date is over"),
    ):
        assert told in person.post(address, sent, follow=True).content.decode()
    assert person.post(reverse("suite-move", args=["hybrid", "destroy"]), {"now": "on"}).status_code == 404
    assert suites.accepted_suites() == ("hybrid", "high")
    person.post(address, {"now": "on"})
    assert suites.accepted_suites() == ("high",)


def test_only_operators_move_rotations_and_suites(client: Client, compliance: User, federation: Federation) -> None:
    client.force_login(compliance)
    assert client.post(reverse("rotation-start"), {"scope": "fleet"}).status_code == 403
    assert client.post(reverse("suite-move", args=["high", "accept"])).status_code == 403
    assert not Rotation.objects.exists() and suites.accepted_suites() == ("hybrid",)
