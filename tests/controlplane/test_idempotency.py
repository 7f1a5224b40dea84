"""Writes that are sent again: done once, answered alike, and refused when the key comes with something else."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone

from controlplane import idempotency
from controlplane.models import KeptAnswer
from devices import services
from devices.models import Claim, Site
from latticeward.errors import MalformedMessageError, RequestInProgressError, StaleStateError
from tests.devices.conftest import federation, nothing_remembered, site

__all__ = ["federation", "nothing_remembered", "site"]
pytestmark = pytest.mark.django_db

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
HUNGARY = {"slug": "hungary", "name": "Budapest"}


@pytest.fixture
def signed_in(client: Client, operator: User, site: Site) -> Client:
    client.force_login(operator)
    return client


def post(client: Client, path: str, body: Any, key: str | None = KEY) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(f"/api/v1/{path}", json.dumps(body), content_type="application/json", headers=headers)


def test_a_repeated_write_is_done_once_and_answered_byte_for_byte(signed_in: Client) -> None:
    first, second = (post(signed_in, "sites", HUNGARY) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert "Idempotency-Replayed" not in first and second["Idempotency-Replayed"] == "true"
    assert second["Content-Type"] == first["Content-Type"]
    assert Site.objects.filter(slug="hungary").count() == 1


def test_a_key_is_the_same_with_and_without_quotes(signed_in: Client) -> None:
    post(signed_in, "sites", HUNGARY, key=KEY)
    assert post(signed_in, "sites", HUNGARY, key=f'"{KEY}"')["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("changed", ["body", "path", "method"])
def test_a_key_with_other_content_is_refused(signed_in: Client, changed: str) -> None:
    assert post(signed_in, "sites", HUNGARY).status_code == 201
    match changed:
        case "body":
            answer = post(signed_in, "sites", {**HUNGARY, "name": "Pest"})
        case "path":
            answer = post(signed_in, "claims", HUNGARY)
        case _:
            answer = signed_in.delete(f"/api/v1/claims/{uuid4()}", headers={"Idempotency-Key": KEY})
    assert (answer.status_code, answer.json()["type"]) == (422, "idempotency_mismatch")


def test_a_key_belongs_to_one_person(signed_in: Client, site: Site, compliance: User) -> None:
    device = f"devices/{uuid4()}/suspend"
    assert post(signed_in, "sites", HUNGARY).status_code == 201
    other = Client()
    other.force_login(compliance)
    assert post(other, device, {}).status_code == 404  # judged by itself, no mismatch


def test_a_repetition_still_needs_the_right_to_write(signed_in: Client, operator: User) -> None:
    post(signed_in, "sites", HUNGARY)
    operator.groups.clear()
    assert post(signed_in, "sites", HUNGARY).status_code == 403


def test_a_refusal_is_not_kept(signed_in: Client) -> None:
    assert post(signed_in, "claims", {"site": "hungary"}).status_code >= 400
    assert post(signed_in, "sites", HUNGARY, key=str(uuid4())).status_code == 201
    assert post(signed_in, "claims", {"site": "hungary"}).status_code == 201


def test_a_crash_keeps_neither_the_write_nor_the_key(signed_in: Client) -> None:
    signed_in.raise_request_exception = False
    with mock.patch.object(idempotency, "keep", side_effect=RuntimeError):
        assert post(signed_in, "sites", HUNGARY).status_code == 500
    assert not Site.objects.filter(slug="hungary").exists()
    assert post(signed_in, "sites", HUNGARY).status_code == 201


def test_a_claim_code_is_shown_once_and_kept_nowhere(signed_in: Client) -> None:
    first = post(signed_in, "claims", {"site": "cleveland"})
    code, uri = first.json()["code"], first.json()["uri"]
    kept = KeptAnswer.objects.get().body
    assert code not in kept and uri not in kept
    second = post(signed_in, "claims", {"site": "cleveland"})
    assert (second.status_code, second.json()["type"]) == (409, "shown_once")
    assert second.json()["answer"]["id"] == first.json()["id"]
    assert "code" not in second.json()["answer"]
    assert Claim.objects.count() == 1


def test_many_claim_codes_are_shown_once_too(signed_in: Client) -> None:
    order = {"csv": "site,device_class,count\ncleveland,gateway,3\n"}
    first, second = (post(signed_in, "claims/bulk", order) for _ in range(2))
    assert [row["id"] for row in second.json()["answer"]] == [row["id"] for row in first.json()]
    assert not any("uri" in row for row in second.json()["answer"])


def test_an_empty_answer_is_repeated_empty(signed_in: Client, site: Site) -> None:
    claim = post(signed_in, "claims", {"site": "cleveland"}, key=None).json()["id"]
    first, second = (signed_in.delete(f"/api/v1/claims/{claim}", headers={"Idempotency-Key": KEY}) for _ in range(2))
    assert (first.status_code, second.status_code, second.content) == (204, 204, b"")


def test_a_form_with_a_key_is_refused_as_what_it_is(operator: User, site: Site) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(operator)
    strict.cookies["csrftoken"] = "a" * 32
    headers = {"Idempotency-Key": KEY}
    form = {"csrfmiddlewaretoken": "a" * 32, **HUNGARY}
    answer = strict.post("/api/v1/sites", form, headers=headers)  # as multipart
    assert (answer.status_code, answer.json()["type"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("key", ["short", "x" * 129, '"unbalanced-quote', "with spaces in it", "kéyéèôü123"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(MalformedMessageError):
        idempotency.parse_key(key)


def test_while_the_first_is_at_work_a_second_is_told_to_come_again(signed_in: Client, operator: User) -> None:
    content = idempotency.fingerprint("POST", "/api/v1/sites", json.dumps(HUNGARY).encode())
    idempotency.begin(actor=f"user:{operator.pk}", key=KEY, content=content)
    answer = post(signed_in, "sites", HUNGARY)
    assert (answer.status_code, answer.json()["type"]) == (409, "request_in_progress")
    assert answer.json()["retryable"] is True and answer["Retry-After"] == "1"


def test_a_dead_attempt_is_taken_over_and_its_late_write_does_not_commit(db: None) -> None:
    now = timezone.now()
    dead = idempotency.begin(actor="user:1", key=KEY, content="c", now=now - 2 * idempotency.LEASE)
    heir = idempotency.begin(actor="user:1", key=KEY, content="c", now=now)
    assert isinstance(dead, idempotency.Attempt) and isinstance(heir, idempotency.Attempt)
    with pytest.raises(RequestInProgressError):
        idempotency.begin(actor="user:1", key=KEY, content="c", now=now)
    with pytest.raises(StaleStateError):
        idempotency.keep(dead, status=201, body="{}")
    idempotency.keep(heir, status=201, body="{}")
    assert idempotency.begin(actor="user:1", key=KEY, content="c", now=now) == idempotency.Kept(201, "{}")


def test_keys_expire_and_are_swept(db: None) -> None:
    long_ago = timezone.now() - idempotency.KEPT_FOR - timedelta(seconds=1)
    for key in ("first-key", "second-key"):
        idempotency.begin(actor="user:1", key=key, content="c", now=long_ago)
    assert isinstance(idempotency.begin(actor="user:1", key="first-key", content="d"), idempotency.Attempt)
    assert idempotency.sweep() == 1
    assert KeptAnswer.objects.get().key == "first-key"


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_writes(operator: User) -> None:
    services.found_federation(slug="heart", name="Heart federation")

    def send(_: int) -> int:
        client = Client()
        client.force_login(operator)
        try:
            return int(post(client, "sites", HUNGARY).status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(send, range(8)))
    assert set(codes) <= {201, 409} and 201 in codes
    assert Site.objects.filter(slug="hungary").count() == 1
