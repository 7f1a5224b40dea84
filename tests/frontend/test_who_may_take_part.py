"""The pages of claim codes, hospitals and device classes: what they show, make, refuse and never show again."""

import csv
import io
import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest
import segno
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import AuditEntry
from devices import claims, classes, enrolment, handout, services, sites
from devices.models import Claim, DeviceClass, Federation, Site
from latticeward.claim_code import parse_claim
from latticeward.errors import ClaimRefusedError
from tests.factories import make_device

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    cache.clear()


@pytest.fixture
def site(db: None) -> Site:
    federation = services.found_federation(slug="heart", name="Heart federation")
    return sites.create_site(
        federation=federation, slug="cleveland", name="Cleveland", time_zone="America/New_York", actor="user:1"
    )


def order(client: Client, hospital: Site, **changes: Any) -> Any:
    gateway = DeviceClass.objects.get(slug="gateway")
    body = {"site": hospital.id, "device_class": gateway.id, "approval": "class", "bound_to": "", "hours": 2}
    return client.post(reverse("claim-order"), {f"one-{name}": value for name, value in (body | changes).items()})


def test_a_code_is_shown_once_with_its_qr_and_file(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    answer = order(client, site)
    text = answer.content.decode()
    assert answer["Cache-Control"] == "private, no-store"
    typed = re.search(r'claim-code"><code>([0-9A-Z-]{59})</code>', text)
    assert typed is not None and "<svg" in text
    (file,) = re.findall(r'href="data:text/plain;base64,([^"]+)"', text)
    code = parse_claim(b64decode(unquote(file)).decode())
    assert parse_claim(typed[1]).secret == code.secret
    assert (code.site, code.device_class, len(code.anchor)) == ("cleveland", "gateway", 32)
    assert code.anchor.hex() in text
    claim = Claim.objects.get()
    assert claim.expires_at - claim.created_at == timedelta(hours=2)
    assert claim.auto_approve is None
    again = client.get(reverse("claims")).content.decode()
    assert typed[1] not in again and code.secret.hex() not in again
    assert claims.lookup_of(claim) in again


def test_what_the_person_chose_is_what_the_claim_says(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    order(client, site, approval="automatic", bound_to="AB01 " * 8)
    claim = Claim.objects.get()
    assert (claim.auto_approve, claim.bound_fingerprint) == (True, " ".join(["ab01"] * 8))
    assert claim.created_by == f"user:{operator.pk}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hours": 25}, "less than or equal to 24"),
        ({"hours": 0}, "greater than or equal to 1"),
        ({"bound_to": "my key"}, "eight groups of four hex digits"),
        ({"site": "7f3f1a0e-8a0b-4b8e-9a53-0d6f0b0c1d2e"}, "not one of the available choices"),
        ({"approval": "never"}, "not one of the available choices"),
    ],
)
def test_an_order_that_cannot_be_is_refused_beside_its_field(
    client: Client, operator: User, site: Site, changes: dict[str, Any], said: str
) -> None:
    client.force_login(operator)
    answer = order(client, site, **changes)
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert not Claim.objects.exists()


def test_csv_goes_in_and_codes_come_out_as_csv_and_as_a_page(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    file = SimpleUploadedFile("order.csv", "\ufeffsite;device_class;count\r\ncleveland;gateway;3\r\n".encode())
    text = client.post(reverse("claim-bulk"), {"many-file": file, "many-hours": 24}).content.decode()
    (sheet,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', text)
    rows = list(csv.DictReader(io.StringIO(b64decode(unquote(sheet)).decode())))
    assert len(rows) == Claim.objects.count() == text.count("<svg xmlns") == 3
    for row in rows:
        assert row["code"] in text
        assert parse_claim(row["uri"]).mac_key == parse_claim(row["code"]).mac_key


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"many-text": "site,device_class\ncleveland,toaster\n"}, "Line 2 of the order: there is no device class"),
        ({"many-text": "site,device_class\nnowhere,gateway\n"}, "Line 2 of the order: there is no hospital"),
        ({"many-text": "a,b\n"}, "The first line names the columns"),
        ({"many-text": " "}, "one of the two"),
        ({"many-file": SimpleUploadedFile("x.csv", b"\xff\xfe\x00")}, "not text in UTF-8"),
        ({"many-file": SimpleUploadedFile("x.csv", b"a" * 100_001)}, "larger than any order"),
    ],
)
def test_an_order_that_cannot_be_read_is_refused_with_its_line(
    client: Client, operator: User, site: Site, body: dict[str, Any], said: str
) -> None:
    client.force_login(operator)
    answer = client.post(reverse("claim-bulk"), {"many-hours": 24, **body})
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert not Claim.objects.exists()


def test_a_code_is_cancelled_once(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    claim, _ = claims.create_claim(site=site, device_class="gateway", actor="user:1")
    address = reverse("claim-cancel", args=[claim.id])
    assert "cancelled" in client.post(address, follow=True).content.decode()
    assert "Nothing was changed" in client.post(address, follow=True).content.decode()
    assert Claim.objects.get().wrapped_key is None


def test_codes_that_nobody_made_are_told(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    assert "nobody made" not in client.get(reverse("claims")).content.decode()
    for _ in range(2):
        with pytest.raises(ClaimRefusedError):
            enrolment.begin_enrolment(transcript=b"\xa1\x68claim_id\x45abcde", mac=bytes(32), source="192.0.2.7")
    assert "2 codes that nobody made were tried" in client.get(reverse("claims")).content.decode()


def test_the_qr_code_holds_server_whole_anchor_and_code(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    real = segno.make
    monkeypatch.setattr(segno, "make", lambda content, **named: drawn.append(content) or real(content, **named))
    _, code = claims.create_claim(site=site, device_class="gateway", actor="user:1")
    assert handout.qr_svg(code).startswith("<svg xmlns=")
    for read in (parse_claim(drawn[0]), parse_claim(handout.claim_file(code))):
        assert (read.server, read.anchor, read.site) == ("http://127.0.0.1:8750", code.anchor, "cleveland")
        assert (read.mac_key, len(read.anchor)) == (code.mac_key, 32)


def test_a_codes_time_is_that_of_the_hospital(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    claims.create_claim(site=site, device_class="gateway", actor="user:1")
    Claim.objects.update(expires_at=datetime(2026, 7, 1, 2, 30, tzinfo=UTC))
    assert "30 Jun 2026, 22:30 EDT" in client.get(reverse("claims")).content.decode()


def test_a_zone_that_is_gone_does_not_close_a_page(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    Site.objects.update(time_zone="Mars/Olympus")
    assert "UTC" in client.get(reverse("site", args=[site.id])).content.decode()


def test_a_hospital_is_added_and_changed(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    facts = {"name": "Charité", "time_zone": "Europe/Berlin", "contact_email": "ada@charite.example"}
    answer = client.post(reverse("sites"), {"slug": "charite", **facts}, follow=True)
    assert "Europe/Berlin" in answer.content.decode() and "ada@charite.example" in answer.content.decode()
    made = Site.objects.get(slug="charite")
    make_device(site=made)
    client.post(reverse("site", args=[made.id]), {**facts, "time_zone": "Europe/Vienna"})
    made.refresh_from_db()
    assert (made.time_zone, made.contact_email) == ("Europe/Vienna", "ada@charite.example")
    assert AuditEntry.objects.get(event="site.changed").actor == f"user:{operator.pk}"
    refused = client.post(reverse("site", args=[made.id]), {**facts, "time_zone": "Europe/Atlantis"})
    assert refused.status_code == 422 and "no time zone" in refused.content.decode()


def test_a_class_is_added_and_changed(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    terms = {
        "name": "Ultrasound",
        "battery": "mains",
        "suite_floor": "hybrid",
        "default_suite": "high",
        "certificate_days": 30,
        "rotate_after_uses": 5000,
    }
    assert client.post(reverse("device-classes"), {"slug": "ultrasound", **terms}).status_code == 302
    made = classes.get_class(federation=site.federation, slug="ultrasound")
    assert (made.default_suite, made.certificate_days, made.rotate_after_days) == ("high", 30, None)
    address = reverse("device-class", args=[made.id])
    assert client.post(address, {**terms, "auto_approve": "on"}).status_code == 302
    made.refresh_from_db()
    assert made.auto_approve is True
    refused = client.post(address, {**terms, "suite_floor": "high", "default_suite": "hybrid"})
    assert refused.status_code == 422 and "weaker than the floor" in refused.content.decode()


@pytest.mark.parametrize("who", ["clinician", "compliance", "stranger"])
@pytest.mark.parametrize("page", ["claim-order", "claim-bulk", "claim-cancel", "sites", "site", "device-classes"])
def test_only_operators_change_who_may_take_part(
    client: Client, site: Site, who: str, page: str, request: pytest.FixtureRequest
) -> None:
    client.force_login(request.getfixturevalue(who))
    claim, _ = claims.create_claim(site=site, device_class="gateway", actor="user:1")
    arguments = {"claim-cancel": [claim.id], "site": [site.id]}.get(page, [])
    before = AuditEntry.objects.count()
    assert client.post(reverse(page, args=arguments), {"name": "x", "slug": "x"}).status_code == 403
    assert AuditEntry.objects.count() == before


def test_compliance_reads_without_forms(client: Client, compliance: User, site: Site) -> None:
    client.force_login(compliance)
    claims.create_claim(site=site, device_class="gateway", actor="user:1")
    for page, arguments in (("claims", []), ("sites", []), ("site", [site.id]), ("device-classes", [])):
        text = client.get(reverse(page, args=arguments)).content.decode()
        assert 'method="post"' not in text.partition("<main")[2]


def test_without_a_federation_the_pages_say_what_comes_first(client: Client, operator: User) -> None:
    client.force_login(operator)
    assert not Federation.objects.exists()
    for page in ("claims", "sites", "device-classes"):
        assert 'class="empty"' in client.get(reverse(page)).content.decode()
