"""The REST doors of hospitals, device classes and claim codes."""

import csv
import io
import json
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client

from controlplane.audit.models import AuditEntry
from devices import claims, enrolment
from devices.models import Claim, DeviceClass, Site
from latticeward.claim_code import parse_claim
from latticeward.errors import ClaimRefusedError
from tests.devices.machine import Machine

ORDER = "site,device_class,count\ncleveland,gateway,2\ncleveland,workstation,1\n"


def send(client: Client, method: str, path: str, body: Any, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.generic(method, path, json.dumps(body), content_type="application/json", headers=named)


def test_a_hospital_is_added_read_and_changed(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    made = send(
        client, "POST", "/api/v1/sites", {"slug": "charite", "name": "Charité", "time_zone": "Europe/Berlin"}
    ).json()
    address = f"/api/v1/sites/{made['id']}"
    answer = send(client, "PATCH", address, {"contact_email": "ada@charite.example"})
    assert answer.status_code == 200
    assert client.get(address).json() == {**made, "contact_email": "ada@charite.example"}
    assert made["time_zone"] == "Europe/Berlin"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/api/v1/sites", {"slug": "x", "name": "X", "time_zone": "Europe/Atlantis"}, "invalid_value"),
        ("/api/v1/sites", {"slug": "X_Y", "name": "X"}, "invalid_value"),
        ("/api/v1/device-classes", {"slug": "x", "name": "X", "suite_floor": "rot13"}, "unsupported_suite"),
        ("/api/v1/device-classes", {"slug": "x", "name": "X", "suite_floor": "classical"}, "unsupported_suite"),
        ("/api/v1/device-classes", {"slug": "x", "name": "X", "suite_floor": "high"}, "invalid_value"),
        ("/api/v1/device-classes", {"slug": "x", "name": "X", "certificate_days": 10**30}, "invalid_value"),
        ("/api/v1/device-classes", {"slug": "x", "name": "X", "battery": "nuclear"}, "invalid_input"),
        ("/api/v1/claims", {"site": "nowhere"}, "unknown_site"),
        ("/api/v1/claims", {"site": "cleveland", "device_class": "toaster"}, "unknown_device_class"),
        ("/api/v1/claims", {"site": "cleveland", "hours": 25}, "invalid_value"),
        ("/api/v1/claims", {"site": "cleveland", "hours": 0}, "invalid_input"),
        ("/api/v1/claims", {"site": "cleveland", "bound_to": "my key"}, "invalid_value"),
        ("/api/v1/claims/bulk", {"csv": "site,device_class\ncleveland,toaster\n"}, "unknown_device_class"),
        ("/api/v1/claims/bulk", {"csv": "site,device_class\nnowhere,gateway\n"}, "unknown_site"),
        ("/api/v1/claims/bulk", {"csv": "nonsense"}, "invalid_value"),
    ],
)
def test_what_cannot_be_is_refused_with_its_code_and_nothing_is_made(
    client: Client, operator: User, site: Site, path: str, body: dict[str, Any], code: str
) -> None:
    client.force_login(operator)
    before = AuditEntry.objects.count()
    answer = send(client, "POST", path, body)
    assert (answer.json()["type"], answer["Content-Type"]) == (code, "application/problem+json")
    assert answer.status_code in (400, 422)
    assert AuditEntry.objects.count() == before


def test_a_refused_line_is_named(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    answer = send(client, "POST", "/api/v1/claims/bulk", {"csv": ORDER + "cleveland,toaster,1\n"})
    assert answer.json()["detail"].startswith("Line 4 of the order: there is no device class 'toaster'")


def test_a_class_is_added_listed_and_changed(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    body = {"slug": "ultrasound", "name": "Ultrasound", "default_suite": "high", "rotate_after_uses": 5000}
    made = send(client, "POST", "/api/v1/device-classes", body)
    assert made.status_code == 201
    listed = client.get("/api/v1/device-classes").json()["results"]
    assert [row["slug"] for row in listed] == [
        "edge-server", "gateway", "imaging", "ultrasound", "wearable-hub", "workstation",
    ]  # fmt: skip
    address = f"/api/v1/device-classes/{made.json()['id']}"
    changed = send(client, "PATCH", address, {"rotate_after_uses": None, "auto_approve": True})
    assert changed.json() == {**made.json(), "rotate_after_uses": None, "auto_approve": True}
    assert client.get(address).json() == changed.json()
    assert send(client, "POST", "/api/v1/device-classes", body).json()["type"] == "invalid_value"


def test_what_does_not_exist_is_not_found(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    for path in ("/api/v1/sites", "/api/v1/device-classes"):
        assert client.get(f"{path}/{uuid4()}").status_code == 404
        assert send(client, "PATCH", f"{path}/{uuid4()}", {"name": "X"}).status_code == 404


def test_a_code_comes_once_with_its_qr_and_never_again(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    body = {"site": "cleveland", "device_class": "gateway", "hours": 1, "auto_approve": False, "bound_to": "ab01" * 8}
    first = send(client, "POST", "/api/v1/claims", body, Idempotency_Key="order-0001")
    made = first.json()
    assert first.status_code == 201
    assert made["qr"].startswith("<svg ") and parse_claim(made["uri"]).lookup_id == parse_claim(made["code"]).lookup_id
    assert (made["bound_to"], made["auto_approve"]) == (" ".join(["ab01"] * 8), False)
    again = send(client, "POST", "/api/v1/claims", body, Idempotency_Key="order-0001")
    assert again.json()["type"] == "shown_once"
    (listed,) = client.get("/api/v1/claims").json()["results"]
    for text in (again.content.decode(), json.dumps(listed)):
        assert made["code"] not in text and "uri" not in text and "<svg" not in text
    assert Claim.objects.count() == 1


def test_wrong_attempts_are_listed_with_the_code(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    machine = Machine.with_claim(site)
    for _ in range(3):
        with pytest.raises(ClaimRefusedError):
            enrolment.begin_enrolment(transcript=machine.transcript(), mac=bytes(32), source="192.0.2.7")
    (listed,) = client.get("/api/v1/claims").json()["results"]
    assert (listed["lookup"], listed["refusals"]) == (claims.lookup_of(machine.claim), 3)


@pytest.mark.parametrize("as_file", [True, False])
def test_an_order_goes_in_and_comes_out_as_csv(client: Client, operator: User, site: Site, as_file: bool) -> None:
    client.force_login(operator)
    content, kind = (ORDER, "text/csv") if as_file else (json.dumps({"csv": ORDER}), "application/json")
    answer = client.post("/api/v1/claims/bulk", content, content_type=kind, headers={"Accept": "text/csv"})
    assert (answer.status_code, answer["Content-Type"].partition(";")[0]) == (201, "text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert [row["device_class"] for row in rows] == ["gateway", "gateway", "workstation"]
    assert len({parse_claim(row["uri"]).secret for row in rows}) == 3


def test_a_refused_order_is_a_problem_document_even_if_a_file_was_asked_for(
    client: Client, operator: User, site: Site
) -> None:
    client.force_login(operator)
    for content in (b"nonsense", b"\xff\xfe", b"a" * 200_000):
        answer = client.post("/api/v1/claims/bulk", content, content_type="text/csv", headers={"Accept": "text/csv"})
        assert answer.status_code in (400, 422)
        assert answer["Content-Type"] == "application/problem+json"
        assert "type" in json.loads(answer.content)


@pytest.mark.parametrize("who", ["clinician", "compliance", "stranger"])
def test_only_operators_write(client: Client, site: Site, who: str, request: pytest.FixtureRequest) -> None:
    client.force_login(request.getfixturevalue(who))
    gateway = DeviceClass.objects.get(slug="gateway")
    before = AuditEntry.objects.count()
    for method, path in (
        ("POST", "/api/v1/sites"),
        ("PATCH", f"/api/v1/sites/{site.id}"),
        ("POST", "/api/v1/device-classes"),
        ("PATCH", f"/api/v1/device-classes/{gateway.id}"),
        ("POST", "/api/v1/claims"),
        ("POST", "/api/v1/claims/bulk"),
    ):
        assert send(client, method, path, {"name": "X"}).status_code == 403
    assert AuditEntry.objects.count() == before
