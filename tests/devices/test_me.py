"""What a device is told of itself, by the one address that Django serves to signed requests; and who is turned away."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from controlplane.throttles import forget_drawn
from devices import authentication, services
from devices.models import Site
from keys.models import Key, Reason
from keys.rotation import server_address
from latticeward.crypto.httpsig import SKEW_SECONDS, RequestFacts
from tests.devices.machine import Machine, enrolled

pytestmark = pytest.mark.django_db

ME = "/api/v1/me"


@pytest.fixture
def machine(site: Site) -> Machine:
    return enrolled(site)


def ask(client: Client, facts: RequestFacts, *, path: str = ME, **changed: str) -> Any:
    headers = {**dict(facts.headers), **changed}
    return client.get(path, headers={name: value for name, value in headers.items() if value})


def refusal(answer: Any) -> tuple[int, str]:
    assert answer["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"]


def test_a_device_reads_its_own_state_keys_and_when_to_renew(client: Client, machine: Machine) -> None:
    answer = ask(client, machine.facts(path=ME))
    assert answer.status_code == 200
    told = answer.json()
    assert machine.device is not None
    assert (told["device"], told["state"], told["site"]) == (str(machine.device.id), "active", "cleveland")
    assert {row["purpose"] for row in told["keys"]} == {"authentication", "classical", "signing", "encapsulation"}
    assert {(row["epoch"], row["state"]) for row in told["keys"]} == {(1, "active")}
    renew, end = (datetime.fromisoformat(told[name]) for name in ("renew_from", "certificate_not_after"))
    assert datetime.now(UTC) < renew < end


def test_a_person_is_no_device(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    assert refusal(client.get(ME)) == (401, "not_authenticated")
    assert client.get(ME)["WWW-Authenticate"] == "Signature"


def test_a_nonce_counts_once(client: Client, machine: Machine) -> None:
    facts = machine.facts(path=ME)
    assert ask(client, facts).status_code == 200
    assert refusal(ask(client, facts)) == (409, "replayed")


@pytest.mark.parametrize("seconds", [-SKEW_SECONDS - 30, SKEW_SECONDS + 30])
def test_a_clock_that_is_off_by_more_than_five_minutes_is_told_by_how_much(
    client: Client, machine: Machine, seconds: int
) -> None:
    answer = ask(client, machine.facts(path=ME, created_at=datetime.now(UTC) + timedelta(seconds=seconds)))
    assert refusal(answer) == (403, "clock_skew")
    side = "ahead of" if seconds > 0 else "behind"
    assert f"s {side} the server's; 300 s are allowed" in answer.json()["detail"]
    assert any(str(number) in answer.json()["detail"] for number in (329, 330, 331))
    assert answer.json()["retryable"] is True


@pytest.mark.parametrize("seconds", [-SKEW_SECONDS + 30, SKEW_SECONDS - 30])
def test_a_clock_within_five_minutes_is_good_enough(client: Client, machine: Machine, seconds: int) -> None:
    created = datetime.now(UTC) + timedelta(seconds=seconds)
    assert ask(client, machine.facts(path=ME, created_at=created)).status_code == 200


def without(name: str) -> Callable[[str], str]:
    return lambda value: value.replace(f'"{name}" ', "")


@pytest.mark.parametrize(
    "change",
    [
        without("@authority"),
        without("@path"),
        lambda value: value.replace('"@method" "@authority"', '"@authority" "@method"'),
        lambda value: value.replace('"@method"', '"@method" "@method"'),
        lambda value: value.split(", ")[0],
        lambda value: value.split(", ")[1],
        lambda value: ", ".join(reversed(value.split(", "))),
    ],
    ids=["no authority", "no path", "reordered", "duplicated", "pq alone", "cl alone", "labels swapped"],
)
def test_other_components_or_labels_than_the_profile_are_refused(
    client: Client, machine: Machine, change: Callable[[str], str]
) -> None:
    facts = machine.facts(path=ME)
    changed = {"signature-input": change(dict(facts.headers)["signature-input"])}
    assert refusal(ask(client, facts, **changed)) == (400, "malformed_message")


@pytest.mark.parametrize("half", [0, 1], ids=["pq", "cl"])
def test_one_signature_alone_is_refused(client: Client, machine: Machine, half: int) -> None:
    facts = machine.facts(path=ME)
    one = dict(facts.headers)["signature"].split(", ")[half]
    assert refusal(ask(client, facts, signature=one)) == (400, "malformed_message")


def test_a_signature_for_another_address_or_server_is_refused(client: Client, machine: Machine) -> None:
    assert refusal(ask(client, machine.facts(path="/api/v1/work"))) == (403, "invalid_signature")
    elsewhere = machine.facts(path=ME, authority="other.example:8750")
    assert refusal(ask(client, elsewhere, host=server_address())) == (403, "invalid_signature")


def test_another_body_than_the_signed_one_is_refused(client: Client, machine: Machine) -> None:
    assert refusal(ask(client, machine.facts(path=ME, body=b"{}"))) == (403, "wrong_context")  # and none is sent


def test_a_device_of_another_authority_is_nobody_here(client: Client, site: Site, machine: Machine) -> None:
    stranger = Machine.with_claim(site)  # its keys are good, and no authority of ours has certified them
    assert refusal(ask(client, stranger.facts(path=ME))) == (401, "not_authenticated")
    posing = stranger.facts(path=ME, signed_by=machine)
    assert refusal(ask(client, posing)) == (401, "not_authenticated")


@pytest.mark.parametrize(
    ("standing", "code"),
    [("expired", "certificate_not_valid"), ("revoked", "certificate_revoked"), ("suspended", "not_permitted")],
)
def test_a_device_that_may_not_act_is_told_why(client: Client, machine: Machine, standing: str, code: str) -> None:
    assert machine.device is not None
    if standing == "expired":
        Key.objects.filter(owner="device").update(not_after_at=datetime.now(UTC))
    elif standing == "revoked":
        services.revoke_device(device_id=machine.device.id, actor="user:1", reason=Reason.CESSATION_OF_OPERATION)
    else:
        services.suspend_device(device_id=machine.device.id, actor="user:1", why="odd updates")
    assert refusal(ask(client, machine.facts(path=ME))) == (403, code)


def test_whoever_keeps_sending_what_is_refused_is_refused_before_any_signature_is_looked_at(
    client: Client, machine: Machine, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIMITS, settings.EMBEDDED = {**settings.LIMITS, "limit_refused": 20}, False
    forget_drawn()
    facts = machine.facts(path=ME)
    for _ in range(21):
        answer = ask(client, facts, **{"content-type": "text/plain"})
    assert refusal(answer) == (429, "throttled")
    monkeypatch.setattr(authentication, "authenticate", lambda facts: pytest.fail("a signature was looked at"))
    answer = ask(client, facts)
    assert refusal(answer) == (429, "throttled")
    assert 0 < int(answer["Retry-After"]) <= 60
    forget_drawn()
