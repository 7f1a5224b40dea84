"""What other people's tools can ask: the revocation list and the status of a certificate, kept current."""

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from django.test import Client

from devices import services
from devices.models import Site
from keys import publication
from keys.models import Certificate, Key, Reason, RevocationList, StatusAnswer
from keys.publication import keep_published
from keys.services import forget_loaded_keys
from latticeward.crypto.revocation import verify_revocation_list
from latticeward.errors import CustodyError
from tests.devices.machine import Machine, enrolled
from tests.devices.renewing import renewed


def leaf_of(machine: Machine) -> Certificate:
    assert machine.device is not None
    return Certificate.objects.select_related("issuer").get(key__subject_id=str(machine.device.id))


def question(machine: Machine, digest: hashes.HashAlgorithm | None = None) -> bytes:
    row = leaf_of(machine)
    assert row.issuer is not None
    leaf, issuer = (x509.load_der_x509_certificate(bytes(der)) for der in (row.der, row.issuer.der))
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, digest or hashes.SHA256())
    return builder.build().public_bytes(serialization.Encoding.DER)


def ask(client: Client, raw: bytes) -> ocsp.OCSPResponse:
    answer = client.post("/api/v1/ocsp", raw, content_type="application/ocsp-request")
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/ocsp-response")
    return ocsp.load_der_ocsp_response(answer.content)


def listed() -> frozenset[str]:
    issuing = Certificate.objects.get(key__purpose="issuing")
    newest = RevocationList.objects.filter(issuer__key__purpose="issuing").order_by("-number")[0]
    return verify_revocation_list(bytes(newest.der), issuing=bytes(issuing.der), now=datetime.now(UTC)).serials


def test_a_revoked_certificate_is_in_the_next_list_and_status_at_once(site: Site, client: Client) -> None:
    good, lost = enrolled(site), enrolled(site)
    keep_published()
    assert listed() == frozenset()
    assert ask(client, question(lost)).certificate_status is ocsp.OCSPCertStatus.GOOD
    assert lost.device is not None
    services.revoke_device(device_id=lost.device.id, actor="user:2", reason=Reason.KEY_COMPROMISE)
    keep_published()
    assert listed() == {leaf_of(lost).serial}
    told = ask(client, question(lost, hashes.SHA1()))
    assert told.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert told.revocation_reason is x509.ReasonFlags.key_compromise
    assert ask(client, question(good)).certificate_status is ocsp.OCSPCertStatus.GOOD


@pytest.mark.parametrize("reason", [Reason.KEY_COMPROMISE, Reason.PRIVILEGE_WITHDRAWN])
def test_a_revocation_reaches_the_certificates_of_earlier_epochs_that_have_not_ended(
    site: Site, client: Client, reason: Reason
) -> None:
    machine = enrolled(site)
    before, asked = leaf_of(machine), question(machine)
    renewed(machine)
    keep_published()
    assert ask(client, asked).certificate_status is ocsp.OCSPCertStatus.GOOD
    assert machine.device is not None
    services.revoke_device(device_id=machine.device.id, actor="user:2", reason=reason)
    keep_published()
    assert before.serial in listed() and len(listed()) == 2
    assert ask(client, asked).certificate_status is ocsp.OCSPCertStatus.REVOKED


def test_an_answer_verifies_with_the_responder_certificate_inside(site: Site, client: Client) -> None:
    machine = enrolled(site)
    keep_published()
    told = ask(client, question(machine))
    (responder,) = told.certificates
    public: Any = responder.public_key()
    public.verify(told.signature, told.tbs_response_bytes)
    issuing = Certificate.objects.get(key__purpose="issuing")
    responder.verify_directly_issued_by(x509.load_der_x509_certificate(bytes(issuing.der)))


def test_nothing_is_signed_again_before_it_is_due(site: Site) -> None:
    enrolled(site)
    keep_published()
    before = list(StatusAnswer.objects.values_list("der", flat=True))
    keep_published()
    assert list(StatusAnswer.objects.values_list("der", flat=True)) == before
    assert RevocationList.objects.filter(issuer__key__purpose="issuing").count() == 1


def test_lists_and_answers_are_renewed_before_they_end(site: Site, client: Client) -> None:
    machine = enrolled(site)
    keep_published()
    first = ask(client, question(machine)).next_update_utc
    keep_published(now=datetime.now(UTC) + timedelta(days=4))
    second = ask(client, question(machine)).next_update_utc
    assert first is not None and second is not None and second - first > timedelta(days=3)
    assert RevocationList.objects.filter(issuer__key__purpose="issuing").count() == 2


def test_the_responder_is_renewed_before_it_ends(site: Site) -> None:
    keep_published()
    keep_published(now=datetime.now(UTC) + timedelta(days=21))
    states = Key.objects.filter(purpose="responder").order_by("not_before_at").values_list("state", flat=True)
    assert list(states) == ["deactivated", "active"]


def test_a_fleet_is_answered_for_in_batches(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        enrolled(site)
    monkeypatch.setattr(publication, "BATCH", 2)
    keep_published()
    assert StatusAnswer.objects.count() == 4
    keep_published()
    assert StatusAnswer.objects.count() == 6


def test_who_has_lost_trust_is_told_of_before_what_is_only_old(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = [enrolled(site) for _ in range(3)]
    keep_published()
    StatusAnswer.objects.update(renew_at=datetime.now(UTC))
    lost = machines[-1]
    assert lost.device is not None
    services.revoke_device(device_id=lost.device.id, actor="user:2", reason=Reason.KEY_COMPROMISE)
    monkeypatch.setattr(publication, "BATCH", 1)
    keep_published()
    assert ask(client, question(lost)).certificate_status is ocsp.OCSPCertStatus.REVOKED


def test_only_the_newest_lists_are_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "LISTS_KEPT", 2)
    for hour in range(4):
        keep_published(now=datetime.now(UTC) + timedelta(hours=hour, minutes=hour))
    lists = RevocationList.objects.filter(issuer__key__purpose="issuing")
    assert list(lists.order_by("number").values_list("number", flat=True)) == [4, 5]


def test_a_web_process_cannot_publish(site: Site, settings: Any) -> None:
    settings.ROLE = "web"
    forget_loaded_keys()
    with pytest.raises(CustodyError):
        keep_published()
    assert not RevocationList.objects.exists()


def test_unknown_certificates_and_nonsense_get_the_refusals_of_the_standard(site: Site, client: Client) -> None:
    machine = enrolled(site)
    unanswered = ask(client, question(machine))
    assert unanswered.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED
    assert ask(client, b"nonsense").response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def test_the_same_serial_of_another_authority_is_not_answered_for(site: Site, client: Client) -> None:
    machine = enrolled(site)
    keep_published()
    row = leaf_of(machine)
    root = Certificate.objects.get(key__purpose="root")
    leaf, other = (x509.load_der_x509_certificate(bytes(der)) for der in (row.der, root.der))
    raw = ocsp.OCSPRequestBuilder().add_certificate(leaf, other, hashes.SHA256()).build()
    told = ask(client, raw.public_bytes(serialization.Encoding.DER))
    assert told.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED


def test_the_question_may_stand_in_the_address(site: Site, client: Client) -> None:
    machine = enrolled(site)
    keep_published()
    answer = client.get("/api/v1/ocsp/" + base64.b64encode(question(machine)).decode())
    assert ocsp.load_der_ocsp_response(answer.content).certificate_status is ocsp.OCSPCertStatus.GOOD
    refusal = client.get("/api/v1/ocsp/!!!")
    assert ocsp.load_der_ocsp_response(refusal.content).response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def test_the_list_is_served_and_named_in_every_certificate(site: Site, client: Client) -> None:
    assert client.get("/api/v1/revocations.crl").status_code == 404
    machine = enrolled(site)
    keep_published()
    answer = client.get("/api/v1/revocations.crl")
    assert answer["Content-Type"] == "application/pkix-crl"
    leaf = x509.load_der_x509_certificate(bytes(leaf_of(machine).der))
    (place,) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    (name,) = place.full_name or []
    path = name.value.removeprefix("http://127.0.0.1:8750")
    assert re.fullmatch(r"/api/v1/revocations/[0-9a-f]{16}\.crl", path)
    assert client.get(path).content == answer.content
    assert client.get(path.replace(".crl", "0.crl")).status_code == 404
