"""What the devices' door counts: each device by itself, and refusals by network address."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.cache import cache

from controlplane import throttles
from controlplane.throttles import forget_drawn
from devices import authentication
from devices.models import Site
from keys.rotation import server_address
from tests.devices.conftest import federation, site
from tests.devices.machine import enrolled
from tests.rounds.line import Answer, Line, exchange

__all__ = ["federation", "site"]
pytestmark = pytest.mark.django_db(transaction=True)

WORK = "/api/v1/work"
MINUTE = 1_700_000_040.0  # its beginning


@pytest.fixture(autouse=True)
def limits(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    # A clock that stands, so that no minute ends in the middle of a test.
    monkeypatch.setattr(throttles, "time", SimpleNamespace(time=lambda: MINUTE + 15.0))
    settings.LIMITS = {**settings.LIMITS, "limit_device": 5, "limit_refused": 5}
    settings.EMBEDDED, settings.TRUSTED_PROXIES = False, 1
    cache.clear()
    forget_drawn()
    yield
    cache.clear()
    forget_drawn()


@pytest.fixture
def line(site: Site) -> Line:
    return Line(enrolled(site))


def send(lines: list[tuple[str, str]]) -> Answer:
    return asyncio.run(exchange("GET", WORK, "", lines, [b""]))


def unsigned(address: str) -> Answer:
    return send([("host", server_address()), ("x-forwarded-for", address)])


def signed(line: Line, address: str) -> Answer:
    return send([*line.headers("GET", WORK), ("x-forwarded-for", address)])


def test_a_device_past_its_limit_is_told_when_to_come_again_and_others_are_not_touched(line: Line, site: Site) -> None:
    other = Line(enrolled(site))
    for number in range(5):  # a device is counted as itself, wherever it asks from
        assert signed(line, f"192.0.2.{number}").status == 200
    late = signed(line, "192.0.2.9")
    assert late.refusal == (429, "throttled")
    assert late.headers["retry-after"] == "45"
    assert signed(other, "192.0.2.9").status == 200


def test_an_address_that_keeps_being_refused_is_refused_before_any_signature_is_looked_at(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        assert unsigned("198.51.100.7").refusal == (401, "not_authenticated")
    assert unsigned("198.51.100.7").refusal == (429, "throttled")
    monkeypatch.setattr(authentication, "verify_request", lambda *_, **__: pytest.fail("a signature was looked at"))
    late = signed(line, "198.51.100.7")
    assert late.refusal == (429, "throttled")
    assert late.headers["retry-after"] == "45"


def test_the_refusals_of_one_address_keep_no_other_out(line: Line) -> None:
    for _ in range(6):
        last = unsigned("198.51.100.7")
    assert last.status == 429
    assert unsigned("198.51.100.8").refusal == (401, "not_authenticated")
    assert signed(line, "198.51.100.8").status == 200
    # What a client writes before the proxy's own entry makes it no other address.
    assert unsigned("203.0.113.1, 198.51.100.7").status == 429
