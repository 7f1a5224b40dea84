"""Letting devices in or not, from the devices page."""

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import AuditEntry
from devices import tasks
from devices.models import Device, Site
from latticeward.lifecycle import DeviceState
from tests.frontend import scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def waiting(db: None) -> Device:
    scene.make_federation()
    return scene.ask_to_enrol(Site.objects.get(name="Hungary"), "edge-new")


@pytest.fixture
def enqueued(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    cache.clear()
    calls: list[str] = []
    monkeypatch.setattr(tasks.issue_devices, "delay", lambda: calls.append("issue"))
    return calls


def test_an_operator_approves_after_comparing(
    client: Client,
    operator: User,
    waiting: Device,
    enqueued: list[str],
    django_capture_on_commit_callbacks: object,
) -> None:
    client.force_login(operator)
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        answer = client.post(reverse("device-approve", args=[waiting.id]), {"compared": "on"}, follow=True)
    waiting.refresh_from_db()
    assert waiting.state == DeviceState.APPROVED
    assert enqueued == ["issue"]
    assert AuditEntry.objects.get(event="device.approved").actor == f"user:{operator.pk}"
    assert "is approved" in answer.content.decode()


def test_approving_without_comparing_changes_nothing(
    client: Client, operator: User, waiting: Device, enqueued: list[str]
) -> None:
    client.force_login(operator)
    answer = client.post(reverse("device-approve", args=[waiting.id]), follow=True)
    waiting.refresh_from_db()
    assert waiting.state == DeviceState.PENDING and not enqueued
    assert "Compare the fingerprint" in answer.content.decode()


def test_declining_needs_a_reason_and_keeps_it(client: Client, operator: User, waiting: Device) -> None:
    client.force_login(operator)
    address = reverse("device-decline", args=[waiting.id])
    assert "Say in a few words why" in client.post(address, follow=True).content.decode()
    client.post(address, {"reason": "nobody at the hospital knows this machine"})
    waiting.refresh_from_db()
    assert waiting.state == DeviceState.DECLINED
    assert "nobody at the hospital" in str(AuditEntry.objects.get(event="device.declined").details)


def test_deciding_twice_is_told_and_changes_nothing(
    client: Client, operator: User, waiting: Device, enqueued: list[str]
) -> None:
    client.force_login(operator)
    address = reverse("device-approve", args=[waiting.id])
    client.post(address, {"compared": "on"})
    answer = client.post(address, {"compared": "on"}, follow=True)
    assert "nothing was changed" in answer.content.decode()


@pytest.mark.parametrize("who", ["clinician", "compliance", "stranger"])
@pytest.mark.parametrize("action", ["device-approve", "device-decline"])
def test_only_operators_decide(
    client: Client, waiting: Device, who: str, action: str, request: pytest.FixtureRequest
) -> None:
    client.force_login(request.getfixturevalue(who))
    assert client.post(reverse(action, args=[waiting.id]), {"compared": "on", "reason": "no"}).status_code == 403
    waiting.refresh_from_db()
    assert waiting.state == DeviceState.PENDING


def test_compliance_sees_no_buttons(client: Client, compliance: User, waiting: Device) -> None:
    client.force_login(compliance)
    text = client.get(reverse("devices")).content.decode()
    assert "An operator decides." in text and "approve/" not in text
