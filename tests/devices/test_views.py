"""The REST doors: enrolment over HTTP, and what each person may do."""

import base64
import json
from datetime import UTC, datetime
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from controlplane.permissions import Role
from devices import services, tasks
from devices.models import Claim, Device, Site
from devices.views import EnrolmentsView
from latticeward.claim_code import parse_claim
from latticeward.enrolment import FinishProofs, finish_proofs, transcript_mac, verify_answer
from tests.devices.machine import Machine, enrolled

pytestmark = pytest.mark.django_db


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def post(client: Client, path: str, body: Any) -> Any:
    return client.post(path, json.dumps(body), content_type="application/json")


@pytest.fixture
def queue() -> Any:
    """What the doors enqueue, instead of a worker; a test's own transaction never commits, so hooks run at once."""
    cache.clear()
    with (
        mock.patch.object(tasks.issue_devices, "delay") as delay,
        mock.patch("django.db.transaction.on_commit", lambda hook, **named: hook()),
    ):
        yield delay


def begin(client: Client, machine: Machine) -> FinishProofs:
    raw = machine.transcript()
    mac = transcript_mac(raw, mac_key=machine.code.mac_key)
    answer = post(client, "/api/v1/enrolments", {"transcript": b64(raw), "mac": b64(mac)})
    assert answer.status_code == 201, answer.content
    body = answer.json()
    machine.enrolment_id = UUID(body["enrolment"])
    believed = verify_answer(
        unb64(body["answer"]), unb64(body["mac"]), transcript=raw, mac_key=machine.code.mac_key, now=datetime.now(UTC)
    )
    return finish_proofs(believed, keys=machine.keys)


def finish(client: Client, machine: Machine, proofs: FinishProofs) -> Any:
    body = {
        "challenge_mac": b64(proofs.challenge_mac),
        "signatures": {name: b64(getattr(proofs, name)) for name in ("authentication", "classical", "signing")},
    }
    return post(client, f"/api/v1/enrolments/{machine.enrolment_id}/finish", body)


def test_a_machine_enrols_over_http_and_waits_for_a_person(client: Client, site: Site, queue: Any) -> None:
    machine = Machine.with_claim(site)
    answer = finish(client, machine, begin(client, machine))
    assert answer.status_code == 202
    assert answer.json() == {"device": str(Device.objects.get().id), "state": "pending"}
    queue.assert_not_called()


def test_an_automatic_approval_is_handed_to_the_authority_worker(client: Client, site: Site, queue: Any) -> None:
    machine = Machine.with_claim(site, auto_approve=True)
    answer = finish(client, machine, begin(client, machine))
    assert answer.json()["state"] == "approved"
    queue.assert_called_once_with()


def test_every_refused_claim_gets_the_same_body(client: Client, site: Site) -> None:
    used, wrong = enrolled(site), Machine.with_claim(site)
    bodies = []
    for machine, mac_key in ((used, used.code.mac_key), (wrong, bytes(32))):
        raw = machine.transcript()
        mac = b64(transcript_mac(raw, mac_key=mac_key))
        answer = post(client, "/api/v1/enrolments", {"transcript": b64(raw), "mac": mac})
        assert (answer.status_code, answer["Content-Type"]) == (403, "application/problem+json")
        bodies.append({name: value for name, value in answer.json().items() if name != "instance"})
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"transcript": "AA", "mac": 7},
        {"transcript": "A=", "mac": "AA"},
        {"transcript": "A" * 60_000, "mac": "AA"},
        [],
    ],
)
def test_what_is_no_enrolment_is_a_problem_document(client: Client, site: Site, body: Any) -> None:
    answer = post(client, "/api/v1/enrolments", body)
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"


def test_base64url_has_one_form_only(client: Client, site: Site) -> None:
    answer = post(client, "/api/v1/enrolments", {"transcript": "AB", "mac": "AA=="})
    assert set(answer.json()["errors"]) == {"transcript", "mac"}


def test_finishing_an_unknown_enrolment_is_not_found(client: Client, site: Site) -> None:
    machine = Machine.with_claim(site)
    proofs = begin(client, machine)
    machine.enrolment_id = uuid4()
    assert finish(client, machine, proofs).status_code == 404


def test_an_operator_orders_a_code_which_is_shown_once(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    answer = post(client, "/api/v1/claims", {"site": "cleveland", "device_class": "gateway"})
    assert answer.status_code == 201
    assert parse_claim(answer.json()["uri"]).site == "cleveland"
    (listed,) = client.get("/api/v1/claims").json()["results"]
    assert "code" not in listed and "uri" not in listed
    assert client.delete(f"/api/v1/claims/{listed['id']}").status_code == 204
    assert Claim.objects.get().wrapped_key is None


def test_an_operator_orders_many_codes(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    answer = post(client, "/api/v1/claims/bulk", {"csv": "site,device_class,count\ncleveland,gateway,3\n"})
    assert answer.status_code == 201
    assert len({row["code"] for row in answer.json()}) == 3


def test_an_operator_runs_a_device_through_its_life(client: Client, operator: User, site: Site, queue: Any) -> None:
    client.force_login(operator)
    machine = Machine.with_claim(site)
    device = machine.finish(machine.begin())
    path = f"/api/v1/devices/{device.id}"
    assert post(client, f"{path}/approve", {"why": "compared by telephone"}).json()["state"] == "approved"
    queue.assert_called_once_with()
    services.issue(device_id=device.id)
    assert client.get(path).json()["state"] == "active"
    assert post(client, f"{path}/suspend", {}).json()["state"] == "suspended"
    assert post(client, f"{path}/reinstate", {}).json()["state"] == "active"
    assert post(client, f"{path}/revoke", {"reason": "because"}).status_code == 400
    assert post(client, f"{path}/revoke", {"reason": "key_compromise"}).json()["state"] == "revoked"
    assert post(client, f"{path}/reinstate", {}).status_code == 409
    assert [row["state"] for row in client.get("/api/v1/devices").json()["results"]] == ["revoked"]


def test_sites_are_added_by_operators(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    assert post(client, "/api/v1/sites", {"slug": "hungary", "name": "Budapest"}).status_code == 201
    assert {row["slug"] for row in client.get("/api/v1/sites").json()["results"]} == {"cleveland", "hungary"}


@pytest.mark.parametrize(
    ("role", "read", "approve", "suspend", "revoke", "claim"),
    [
        (Role.OPERATOR, 200, 200, 200, 200, 201),
        (Role.COMPLIANCE, 200, 403, 200, 200, 403),
        (Role.CLINICIAN, 403, 403, 403, 403, 403),  # key material and device internals are not for clinicians
        (None, 403, 403, 403, 403, 403),
    ],
)
def test_each_role_may_do_its_own(
    client: Client,
    site: Site,
    queue: Any,
    request: pytest.FixtureRequest,
    role: Role | None,
    read: int,
    approve: int,
    suspend: int,
    revoke: int,
    claim: int,
) -> None:
    client.force_login(request.getfixturevalue(str(role) if role else "stranger"))
    waiting, active, other = Machine.with_claim(site), enrolled(site), enrolled(site)
    device = waiting.finish(waiting.begin())
    assert active.device is not None and other.device is not None
    assert client.get("/api/v1/devices").status_code == read
    assert post(client, f"/api/v1/devices/{device.id}/approve", {}).status_code == approve
    assert post(client, f"/api/v1/devices/{active.device.id}/suspend", {}).status_code == suspend
    body = {"reason": "unspecified"}
    assert post(client, f"/api/v1/devices/{other.device.id}/revoke", body).status_code == revoke
    assert post(client, "/api/v1/claims", {"site": "cleveland"}).status_code == claim


def test_nobody_signed_in_sees_nothing(client: Client, site: Site) -> None:
    for path in ("sites", "devices", "claims"):
        assert client.get(f"/api/v1/{path}").status_code in (401, 403)


def test_enrolment_needs_no_session_and_reads_none() -> None:
    assert EnrolmentsView.authentication_classes == []


def test_the_sweep_enqueues_what_a_crash_left_approved(site: Site, queue: Any) -> None:
    machine = Machine.with_claim(site, auto_approve=True)
    device = machine.finish(machine.begin())
    with (
        mock.patch.object(tasks.keep_authority_current, "delay"),
        mock.patch.object(tasks.publish_revocations, "delay"),
    ):
        tasks.sweep()
    queue.assert_called_once_with()
    tasks.issue_devices()
    assert services.get_device(device.id).state == "active"
