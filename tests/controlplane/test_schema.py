"""The OpenAPI schema: whole, valid, and in step with the routing tables and the documents."""

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from controlplane.errors import PROBLEM_TYPE
from controlplane.schema import CSRF, SESSION, SIGNATURES
from controlplane.urls import urlpatterns
from rounds.schema import door_addresses

ROOT = Path(__file__).resolve().parents[2]
SCHEMA: dict[str, Any] = json.loads(json.dumps(SchemaGenerator().get_schema(public=True), default=str))
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
]
EVERY = pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])


def plain(path: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)


def test_a_command_exports_it_valid_and_without_a_warning() -> None:
    told = StringIO()
    call_command("spectacular", format="openapi-json", validate=True, fail_on_warn=True, stdout=told)
    assert json.loads(told.getvalue())["openapi"] == "3.1.0"


@pytest.mark.django_db
def test_it_is_served_as_it_is_exported(client: Client) -> None:
    served = client.get("/api/v1/schema?format=json")
    assert served.json()["paths"].keys() == SCHEMA["paths"].keys()


def test_it_holds_every_address_of_both_sides() -> None:
    django = {f"/{plain(str(entry.pattern))}" for entry in urlpatterns if str(entry.pattern).startswith("api/")}
    django -= {"/api/v1/schema"}
    door = {path for _, path in door_addresses()}
    assert set(SCHEMA["paths"]) == django | door


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(names)) == len(names)


@EVERY
def test_an_operation_says_what_it_does_and_how_it_refuses(name: str, operation: dict[str, Any]) -> None:
    assert operation["summary"] and operation["tags"]
    answers = operation["responses"]
    assert [code for code in answers if code.startswith("2")]
    assert "429" in answers
    for code, answer in answers.items():
        assert answer["description"]
        if code.startswith(("4", "5")):
            assert set(answer["content"]) == {PROBLEM_TYPE}
            assert answer["content"][PROBLEM_TYPE]["example"]["status"] == int(code)
    if "{" in name:
        assert "404" in answers
    for requirement in operation.get("security", []):
        assert set(requirement) <= {SESSION, CSRF, SIGNATURES}
        assert "401" in answers or "403" in answers


@EVERY
def test_a_persons_write_takes_a_key_and_a_token(name: str, operation: dict[str, Any]) -> None:
    reads = name.startswith("GET ")
    if not any(SESSION in requirement for requirement in operation.get("security", [])):
        return
    headers = {row["name"] for row in operation.get("parameters", []) if row["in"] == "header"}
    assert ("Idempotency-Key" in headers or "x-repeats-safely" in operation) != reads
    assert all((CSRF in requirement) != reads for requirement in operation["security"])
    if not reads:
        assert {"409", "422"} <= set(operation["responses"])


def test_a_list_shows_its_pages() -> None:
    for _, operation in OPERATIONS:
        names = {row["name"] for row in operation.get("parameters", []) if row["in"] == "query"}
        if "cursor" in names:
            assert {"page_size", "ordering"} <= names
            answer = operation["responses"]["200"]
            assert answer["content"]["application/json"]["schema"]["required"] == ["results", "next"]
            assert "Link" in answer["headers"]


def documented() -> set[str]:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    found = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/api/v1/[^`? ]+)[^`]*`", text)
    return {f"{method} {anonymous(path)}" for method, path in found} - {"GET /api/v1/schema"}


def anonymous(path: str) -> str:
    return re.sub(r"\{\w+\}", "{id}", path)


def test_the_documents_tables_hold_every_operation_and_no_other() -> None:
    method_and_path = {name.split(" ", 1)[0] + " " + anonymous(name.split(" ", 1)[1]) for name, _ in OPERATIONS}
    assert documented() == method_and_path
