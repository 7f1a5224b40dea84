"""Schemathesis: what the schema allows, and does not, sent to every operation; each answer must be described."""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, assume, settings
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from controlplane.schema import SIGNATURES
from devices.models import Site
from keys.rotation import server_address
from latticeward.errors import MalformedMessageError
from rounds import door
from tests.controlplane.known import Held, hold
from tests.devices.conftest import federation, nothing_remembered, site
from tests.devices.machine import Machine
from tests.rounds.cohort import Cohort
from tests.rounds.conftest import cohort
from tests.rounds.line import Line, exchange

__all__ = ["cohort", "federation", "nothing_remembered", "site"]

CSRF = "a" * 32
DESCRIBED: dict[str, Any] = json.loads(json.dumps(SchemaGenerator().get_schema(public=True), default=str))
# Who is asking is put on each request below; that nobody gets in without it has tests of its own.
PUT_ON = [ignored_auth, unsupported_method]
KNOWN: dict[str, list[str]] = {}


def operations(*, signed: bool) -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, rows in DESCRIBED["paths"].items()
        for method, row in rows.items()
        if ({SIGNATURES: []} in row.get("security", [])) == signed
    ]


def schema_of(*, signed: bool) -> Any:
    kept: dict[str, Any] = {}
    for method, path in operations(signed=signed):
        row = DESCRIBED["paths"][path][method.lower()]
        kept.setdefault(path, {})[method.lower()] = {key: row[key] for key in row if key != "security"}
    return schemathesis.openapi.from_dict({**DESCRIBED, "paths": kept})


OF_DEVICES = frozenset(operations(signed=True))
schemathesis.serializer.alias("application/ocsp-request", "application/octet-stream")
people, machines = schema_of(signed=False), schema_of(signed=True)
people.app = get_wsgi_application()


def use_known(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    # Every second id is one that exists, so that requests get past the door.
    noun = context.operation.path.split("/")[3]
    for name, value in (path_parameters or {}).items():
        known, sum_of = KNOWN.get(noun, []), sum(str(value).encode())
        if known and sum_of % 2:
            path_parameters[name] = known[sum_of % len(known)]  # type: ignore[index]
    return path_parameters


for described in (people, machines):
    described.hook("map_path_parameters")(use_known)


def by_examples(number: int) -> Any:
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def held(cohort: Cohort) -> Iterator[Held]:
    found = hold(cohort)
    KNOWN.update(found.ids)
    yield found
    KNOWN.clear()


@pytest.fixture
def one_connection() -> Iterator[None]:
    # As the test client does: a request that ends must not close the connection that holds the test's transaction.
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def session(client: Client, operator: User, held: Held, one_connection: None) -> dict[str, str]:
    client.force_login(operator)
    return {django_settings.SESSION_COOKIE_NAME: client.cookies["sessionid"].value, "csrftoken": CSRF}


def ask_as_person(case: Any, session: dict[str, str]) -> None:
    require_described(case, case.call(cookies=session, headers={"X-CSRFToken": CSRF}))


def require_described(case: Any, answer: Any) -> None:
    # What only the server can know of a well-formed request (whether a cursor is ours, a hospital exists) has a code of
    # its own; `invalid_input` for what the schema allows means that schema and code disagree.
    excluded = [*PUT_ON] if b'"invalid_input"' in answer.content else [*PUT_ON, positive_data_acceptance]
    if case.media_type not in (None, "application/json"):
        excluded.append(positive_data_acceptance)  # a table in text, of which the schema says nothing
    # A body's numbers are taken for texts and the other way round; RFC 6960 refuses with status 200; and a device may
    # be of a later version, whose further parameters are passed over.
    if case.method != "GET" or "ocsp" in case.path or (case.method, case.path) in OF_DEVICES:
        excluded.append(negative_data_rejection)
    case.validate_response(answer, excluded_checks=excluded)


@pytest.mark.django_db
@people.parametrize()
@by_examples(12)
def test_every_answer_to_a_person_is_as_described(case: Any, session: dict[str, str]) -> None:
    ask_as_person(case, session)


@pytest.mark.slow
@pytest.mark.django_db
@people.parametrize()
@by_examples(300)
def test_every_answer_to_a_person_is_as_described_at_length(case: Any, session: dict[str, str]) -> None:
    ask_as_person(case, session)


@pytest.fixture
def line(held: Held, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(door, "LONGEST_WAIT_SECONDS", 0.0)
    return Line(held.machine)


def ask_as_device(case: Any, line: Line) -> None:
    sent = requests.Request(**case.as_transport_kwargs(f"http://{server_address()}")).prepare()
    path, _, query = sent.path_url.partition("?")
    body = sent.body.encode() if isinstance(sent.body, str) else sent.body or b""
    headers = [
        (name.lower(), value.decode() if isinstance(value, bytes) else value) for name, value in sent.headers.items()
    ]
    digest = hashlib.sha256(body).digest() if case.method in ("POST", "PUT") else None
    try:
        lines = line.headers(case.method, path, query, digest=digest, headers=headers)
    except MalformedMessageError:
        assume(False)
    got = asyncio.run(exchange(case.method, path, query, lines, [body]))
    headers_got = {name: [value] for name, value in got.headers.items()}
    require_described(case, Response(got.status, headers_got, got.body, request=sent, elapsed=0.0, verify=False))


@pytest.mark.django_db(transaction=True)
@machines.parametrize()
@by_examples(12)
def test_every_answer_to_a_device_is_as_described(case: Any, line: Line) -> None:
    ask_as_device(case, line)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@machines.parametrize()
@by_examples(300)
def test_every_answer_to_a_device_is_as_described_at_length(case: Any, line: Line) -> None:
    ask_as_device(case, line)


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "path"), operations(signed=False))
def test_without_a_session_only_what_is_public_is_answered(client: Client, site: Site, method: str, path: str) -> None:
    address = path.replace("{question}", "AAAA").replace("{issuer}", "aa")
    address = re.sub(r"\{\w+\}", "8d0c0f3e-5a31-4b43-9b0a-0c2f5f9a7d11", address)
    answer = client.generic(method, address, b"{}", content_type="application/json")
    if DESCRIBED["paths"][path][method.lower()].get("security"):
        assert (answer.status_code, answer.json()["type"]) == (403, "not_authenticated")
    else:
        assert answer.status_code not in (401, 500)


@pytest.mark.django_db(transaction=True)
def test_without_signatures_no_device_is_answered(site: Site) -> None:
    machine = Machine.with_claim(site)
    for method, path in operations(signed=True):
        address = path.replace("{id}", "8d0c0f3e-5a31-4b43-9b0a-0c2f5f9a7d11")
        answer = asyncio.run(exchange(method, address, "", [("host", server_address())], [b""]))
        assert answer.status in (400, 401), address
        assert Line(machine).ask(method, address, body=b"{}").status == 401, address
