"""Certificates as a list and as files, for people who may see key material."""

import pytest
from cryptography import x509
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from devices.models import Site
from keys.models import Certificate
from tests.devices.enciphering import certificate_of, enciphered, key_of
from tests.devices.machine import enrolled

LIST = "/api/v1/certificates"


def test_a_devices_certificates_are_listed_with_their_standing(site: Site, client: Client, operator: User) -> None:
    machine = enrolled(site)
    old, new = enciphered(machine), enciphered(machine)
    enciphered(enrolled(site))
    client.force_login(operator)
    assert machine.device is not None
    found = client.get(LIST, {"subject": str(machine.device.id), "purpose": "encipherment"}).json()["results"]
    assert [(row["serial"], row["state"], row["reason"]) for row in found] == [
        (certificate_of(new).serial, "active", None),
        (certificate_of(old).serial, "deactivated", "superseded"),
    ]
    assert {row["algorithm"] for row in found} == {"ml-kem-768"}
    every = client.get(LIST, {"subject": str(machine.device.id)}).json()["results"]
    assert {row["purpose"] for row in every} == {"authentication", "encipherment"}
    assert client.get(LIST, {"owner": "device"}).status_code == 400


def test_a_certificate_is_handed_out_with_its_issuer(site: Site, client: Client, operator: User) -> None:
    row = certificate_of(enciphered(enrolled(site)))
    client.force_login(operator)
    answer = client.get(f"{LIST}/{row.serial}")
    assert answer["Content-Type"] == "application/pem-certificate-chain"
    assert answer["Content-Disposition"] == f'attachment; filename="{row.serial}.pem"'
    leaf, issuing = x509.load_pem_x509_certificates(answer.content)
    assert f"{leaf.serial_number:x}" == row.serial
    leaf.verify_directly_issued_by(issuing)
    (root,) = x509.load_pem_x509_certificates(
        client.get(f"{LIST}/{Certificate.objects.get(key__purpose='root').serial}").content
    )
    issuing.verify_directly_issued_by(root)
    missing = client.get(f"{LIST}/0a")
    assert (missing.status_code, missing.json()["type"]) == (404, "not_found") or "not_found" in missing.json()["type"]


def test_who_sees_no_key_material_gets_none(site: Site, client: Client, clinician: User) -> None:
    row = certificate_of(enciphered(enrolled(site)))
    for path in (LIST, f"{LIST}/{row.serial}"):
        assert client.get(path).status_code in (401, 403)
    client.force_login(clinician)
    for path in (LIST, f"{LIST}/{row.serial}"):
        assert client.get(path).status_code == 403


def test_the_console_leads_from_the_device_to_the_file(site: Site, client: Client, operator: User) -> None:
    machine = enrolled(site)
    asking = enciphered(machine)
    enrolled(site)
    client.force_login(operator)
    assert machine.device is not None
    of_device = f"{reverse('keys')}?subject_id={machine.device.id}"
    assert of_device in client.get(reverse("devices")).content.decode()
    keys = client.get(of_device).content.decode()
    assert "5 keys, newest first" in keys and "encipherment, epoch 1" in keys
    # The part that moves asks for the same keys again.
    assert f"part=now&amp;subject_id={machine.device.id}" in keys
    page = client.get(reverse("key", args=[key_of(asking).id])).content.decode()
    assert f"/api/v1/certificates/{certificate_of(asking).serial}" in page and "Download as PEM" in page


@pytest.mark.parametrize("value", ["x&owner=device", "1", "..."])
def test_a_subject_that_is_none_finds_nothing_and_is_not_repeated(
    site: Site, client: Client, operator: User, value: str
) -> None:
    client.force_login(operator)
    text = client.get(reverse("keys"), {"subject_id": value}).content.decode()
    assert "No key here" in text and f"part=now&amp;subject_id={value}" not in text
