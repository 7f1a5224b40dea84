"""Limits a minute: who is counted, by what address, and what is answered past them."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from controlplane import throttles
from controlplane.addresses import client_address, network_of
from controlplane.throttles import Limit, require_left, spend, spend_by_address
from latticeward.errors import ThrottledError

START = 1_700_000_040.0  # the beginning of a window


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    cache.clear()
    throttles.forget_drawn()


def limits(settings: Any, **numbers: int) -> None:
    settings.LIMITS = {**settings.LIMITS, **numbers}
    settings.EMBEDDED = False


def test_a_limit_holds_for_its_minute_and_says_when_to_come_again(settings: Any) -> None:
    limits(settings, limit_device=50)
    for _ in range(50):
        spend(Limit.DEVICE, "a", now=START)
    with pytest.raises(ThrottledError) as refused:
        spend(Limit.DEVICE, "a", now=START + 45.5)
    assert refused.value.retry_after_seconds == 15
    spend(Limit.DEVICE, "b", now=START + 45.5)
    spend(Limit.DEVICE, "a", now=START + 60)


def test_processes_count_together(settings: Any) -> None:
    limits(settings, limit_device=100)
    passed = 0
    for _ in range(40):  # each time another process, which has drawn nothing yet
        throttles.forget_drawn()
        try:
            for _ in range(5):
                spend(Limit.DEVICE, "a", now=START)
                passed += 1
        except ThrottledError:
            pass
    assert passed == 100


def test_a_limit_of_nothing_counts_nothing(settings: Any) -> None:
    limits(settings, limit_device=0)
    for _ in range(10):
        spend(Limit.DEVICE, "a", now=START)


def test_loopback_counts_only_where_several_machines_may_be_behind_it(settings: Any) -> None:
    limits(settings, limit_public=1)
    settings.EMBEDDED = True
    for _ in range(5):
        spend_by_address(Limit.PUBLIC, "127.0.0.1")
        spend_by_address(Limit.PUBLIC, "::1")
    settings.EMBEDDED = False
    spend_by_address(Limit.PUBLIC, "127.0.0.1")
    with pytest.raises(ThrottledError):
        spend_by_address(Limit.PUBLIC, "127.0.0.1")


def test_a_spent_address_is_refused_before_anything_is_looked_at(settings: Any) -> None:
    limits(settings, limit_refused=2)
    for _ in range(2):
        require_left(Limit.REFUSED, "192.0.2.7", now=START)
        spend_by_address(Limit.REFUSED, "192.0.2.7", now=START)
    with pytest.raises(ThrottledError):
        spend_by_address(Limit.REFUSED, "192.0.2.7", now=START)
    with pytest.raises(ThrottledError):
        require_left(Limit.REFUSED, "192.0.2.7", now=START)
    require_left(Limit.REFUSED, "192.0.2.8", now=START)
    require_left(Limit.REFUSED, "192.0.2.7", now=START + 60)


def test_what_a_proxy_wrote_is_believed_only_if_it_is_trusted(settings: Any) -> None:
    forged = "203.0.113.9, 198.51.100.4, 10.0.0.1"
    for count, expected in ((0, "10.9.9.9"), (1, "10.0.0.1"), (2, "198.51.100.4"), (3, "203.0.113.9"), (4, "10.9.9.9")):
        settings.TRUSTED_PROXIES = count
        assert client_address("10.9.9.9", forged) == expected


def test_an_ipv6_customer_counts_once_and_a_mapped_address_as_what_it_is(settings: Any) -> None:
    settings.TRUSTED_PROXIES = 0
    assert network_of("2001:db8:1:2::a") == network_of("2001:db8:1:2:ffff::b") != network_of("2001:db8:1:3::a")
    assert client_address("::ffff:192.0.2.7") == "192.0.2.7"


@pytest.mark.django_db
def test_a_person_past_the_limit_is_told_so_in_a_problem_document(
    client: Client, operator: User, settings: Any
) -> None:
    limits(settings, limit_person=2)
    client.force_login(operator)
    answers = [client.get("/api/v1/sites") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["type"] == "throttled" and answers[2].json()["retryable"] is True
    assert 1 <= int(answers[2]["Retry-After"]) <= 60


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["enrolments", "trust", "revocations.crl", "ocsp/AAAA"])
def test_strangers_are_counted_by_address(client: Client, settings: Any, path: str) -> None:
    limits(settings, limit_public=1, limit_enrolment=1)
    ask = client.post if path == "enrolments" else client.get
    first, second = ask(f"/api/v1/{path}"), ask(f"/api/v1/{path}")
    assert first.status_code != 429
    assert (second.status_code, second.json()["type"]) == (429, "throttled")
    assert ask(f"/api/v1/{path}", REMOTE_ADDR="192.0.2.8").status_code != 429


@pytest.mark.django_db
@pytest.mark.parametrize("by", ["address", "name"])
def test_guessing_passwords_is_slow(client: Client, operator: User, settings: Any, by: str) -> None:
    limits(settings, limit_sign_in=3)

    def attempt(number: int, password: str = "wrong") -> Any:
        name = operator.username if by == "name" else f"person-{number}"
        source = f"192.0.2.{number}" if by == "name" else "192.0.2.7"
        return client.post("/sign-in/", {"username": name, "password": password}, REMOTE_ADDR=source)

    assert [attempt(number).status_code for number in range(3)] == [200, 200, 200]
    refused = attempt(3, "correct horse battery staple")
    assert refused.status_code == 429 and "Retry-After" in refused
    assert b"Nothing was checked" in refused.content
    assert "_auth_user_id" not in client.session


@pytest.mark.django_db
def test_a_throttled_link_is_not_spent(client: Client, operator: User, settings: Any) -> None:
    from controlplane.sign_in import make_sign_in_link

    limits(settings, limit_sign_in=1)
    link = f"/sign-in/{make_sign_in_link(operator)}/"
    client.post("/sign-in/not-a-link/")
    assert client.post(link).status_code == 429
    throttles.forget_drawn()
    cache.clear()
    assert client.post(link).status_code == 302
