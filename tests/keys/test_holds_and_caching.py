"""Suspension as certificateHold, compromise with its date, and what caches are told about both (RFC 5019, 9111)."""

import base64
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from django.test import Client

from devices import services
from devices.models import Site
from keys.models import Key, Reason, RevocationList
from keys.publication import keep_published
from tests.devices.machine import Machine, enrolled
from tests.devices.renewing import renewed
from tests.keys.test_publication import ask, leaf_of, listed, question


def suspend(machine: Machine) -> None:
    assert machine.device is not None
    services.suspend_device(device_id=machine.device.id, actor="user:1")


def entry_of(machine: Machine) -> x509.RevokedCertificate | None:
    newest = RevocationList.objects.filter(issuer__key__purpose="issuing").order_by("-number")[0]
    crl = x509.load_der_x509_crl(bytes(newest.der))
    return crl.get_revoked_certificate_by_serial_number(int(leaf_of(machine).serial, 16))


def test_a_suspended_device_is_on_hold_in_list_and_status_and_leaves_both_on_reinstatement(
    site: Site, client: Client
) -> None:
    machine, other = enrolled(site), enrolled(site)
    assert machine.device is not None
    keep_published()
    suspend(machine)
    keep_published()
    entry = entry_of(machine)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.certificate_hold
    told = ask(client, question(machine))
    assert told.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert told.revocation_reason is x509.ReasonFlags.certificate_hold
    assert told.revocation_time_utc is not None
    assert abs(told.revocation_time_utc - datetime.now(UTC)) < timedelta(minutes=1)
    assert ask(client, question(other)).certificate_status is ocsp.OCSPCertStatus.GOOD

    services.reinstate_device(device_id=machine.device.id, actor="user:1")
    keep_published()
    assert listed() == frozenset()
    assert ask(client, question(machine)).certificate_status is ocsp.OCSPCertStatus.GOOD
    lists = RevocationList.objects.filter(issuer__key__purpose="issuing")
    assert list(lists.order_by("number").values_list("number", flat=True)) == [2, 3, 4]


def test_a_suspension_holds_the_certificate_of_an_earlier_epoch_too_and_reinstatement_lets_go_of_both(
    site: Site, client: Client
) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    before, asked = leaf_of(machine).serial, question(machine)
    renewed(machine)
    suspend(machine)
    keep_published()
    assert before in listed() and len(listed()) == 2
    assert ask(client, asked).revocation_reason is x509.ReasonFlags.certificate_hold
    services.reinstate_device(device_id=machine.device.id, actor="user:1")
    keep_published()
    assert listed() == frozenset()
    assert ask(client, asked).certificate_status is ocsp.OCSPCertStatus.GOOD
    assert set(Key.objects.filter(owner="device", epoch=1).values_list("state", flat=True)) == {"deactivated"}


def test_a_revocation_takes_the_place_of_the_hold_on_an_earlier_certificate(site: Site, client: Client) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    asked = question(machine)
    renewed(machine)
    suspend(machine)
    keep_published()
    services.revoke_device(device_id=machine.device.id, actor="user:2", reason=Reason.CESSATION_OF_OPERATION)
    keep_published()
    assert ask(client, asked).revocation_reason is x509.ReasonFlags.cessation_of_operation
    assert len(listed()) == 2


def test_a_certificate_that_has_ended_is_neither_held_nor_revoked(site: Site) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    renewed(machine)
    over = datetime.now(UTC) - timedelta(seconds=1)
    Key.objects.filter(owner="device", epoch=1).update(not_after_at=over)
    suspend(machine)
    assert not Key.objects.filter(owner="device", epoch=1).exclude(suspended_at=None).exists()
    services.revoke_device(device_id=machine.device.id, actor="user:2", reason=Reason.PRIVILEGE_WITHDRAWN)
    assert not Key.objects.filter(owner="device", epoch=1, revocation__isnull=False).exists()


def test_one_suspended_and_one_reinstated_between_two_heartbeats_make_a_new_list(site: Site) -> None:
    first, second = enrolled(site), enrolled(site)
    suspend(first)
    keep_published()
    assert listed() == {leaf_of(first).serial}
    assert first.device is not None
    services.reinstate_device(device_id=first.device.id, actor="user:1")
    suspend(second)
    keep_published()
    assert listed() == {leaf_of(second).serial}


def test_a_revocation_takes_the_place_of_a_hold(site: Site, client: Client) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    suspend(machine)
    keep_published()
    services.revoke_device(device_id=machine.device.id, actor="user:2", reason=Reason.CESSATION_OF_OPERATION)
    keep_published()
    told = ask(client, question(machine))
    assert told.revocation_reason is x509.ReasonFlags.cessation_of_operation


def test_the_date_of_a_compromise_stands_in_the_list(site: Site) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    since = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    services.revoke_device(
        device_id=machine.device.id, actor="user:2", reason=Reason.KEY_COMPROMISE, invalid_from=since
    )
    keep_published()
    entry = entry_of(machine)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc == since


def addresses(machine: Machine) -> tuple[str, str]:
    return "/api/v1/revocations.crl", "/api/v1/ocsp/" + base64.b64encode(question(machine)).decode()


@pytest.mark.parametrize("which", [0, 1], ids=["list", "status"])
def test_what_is_signed_ahead_is_served_with_the_headers_of_rfc_5019(site: Site, client: Client, which: int) -> None:
    machine = enrolled(site)
    keep_published()
    answer = client.get(addresses(machine)[which])
    made, ends = (parsedate_to_datetime(answer[name]) for name in ("Last-Modified", "Expires"))
    assert made <= datetime.now(UTC) < ends
    if which:
        told = ocsp.load_der_ocsp_response(answer.content)
        assert (made, ends) == (told.this_update_utc, told.next_update_utc)
    else:
        crl = x509.load_der_x509_crl(answer.content)
        assert (made, ends) == (crl.last_update_utc, crl.next_update_utc)
    assert answer["Cache-Control"] == "max-age=300, public, no-transform, must-revalidate"
    assert answer["ETag"].startswith('"') and answer["ETag"].endswith('"')


@pytest.mark.parametrize("which", [0, 1], ids=["list", "status"])
def test_who_has_the_answer_already_gets_304_until_it_changes(site: Site, client: Client, which: int) -> None:
    machine = enrolled(site)
    keep_published()
    address = addresses(machine)[which]
    first = client.get(address)
    by_tag: dict[str, Any] = {"headers": {"If-None-Match": first["ETag"]}}
    by_date: dict[str, Any] = {"headers": {"If-Modified-Since": first["Last-Modified"]}}
    for condition in (by_tag, by_date):
        again = client.get(address, **condition)
        assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert client.head(address).status_code == 200
    suspend(machine)
    keep_published()
    changed = client.get(address, **by_tag)
    assert changed.status_code == 200 and changed["ETag"] != first["ETag"]


def test_a_question_by_post_is_answered_whole_with_the_same_headers(site: Site, client: Client) -> None:
    machine = enrolled(site)
    keep_published()
    by_get = client.get(addresses(machine)[1])
    by_post = client.post(
        "/api/v1/ocsp",
        question(machine),
        content_type="application/ocsp-request",
        headers={"If-None-Match": by_get["ETag"]},
    )
    assert (by_post.status_code, by_post.content) == (200, by_get.content)
    for name in ("Cache-Control", "ETag", "Expires", "Last-Modified"):
        assert by_post[name] == by_get[name]


def test_a_refusal_is_not_kept_by_caches(site: Site, client: Client) -> None:
    machine = enrolled(site)
    for raw in (question(machine), b"nonsense"):
        answer = client.post("/api/v1/ocsp", raw, content_type="application/ocsp-request")
        assert answer["Cache-Control"] == "no-cache"
        assert "ETag" not in answer


def test_an_answer_is_not_kept_beyond_its_end(site: Site, client: Client) -> None:
    enrolled(site)
    keep_published()
    RevocationList.objects.update(next_at=datetime.now(UTC) + timedelta(seconds=30))
    age = client.get("/api/v1/revocations.crl")["Cache-Control"].split(",")[0]
    assert 0 <= int(age.removeprefix("max-age=")) <= 30
