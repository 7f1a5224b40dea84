"""The requests that docs/api.md shows, sent as they stand there; none is left out."""

import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.test import Client

from devices.models import Site
from rounds import tasks
from tests.devices.conftest import federation, nothing_remembered, site

__all__ = ["federation", "nothing_remembered", "site"]

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SHELL = [body.replace("\\\n", " ") for kind, body in BLOCKS if kind == "sh"]
COMMANDS = [line for body in SHELL for line in body.splitlines() if line.startswith("curl ")]
WRITES = [line for line in COMMANDS if "-H 'Content-Type: application/json'" in line]


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    assert {kind for kind, _ in BLOCKS} <= {"sh", "json", "python"}
    signing_in = [line for line in COMMANDS if "$LINK" in line]
    reads = [line for line in COMMANDS if line not in WRITES and line not in signing_in]
    assert len(signing_in) == 2 and len(WRITES) >= 3 and reads
    assert all(re.search(r'"\$BASE/api/v1/[^"]+"$', line.strip()) for line in [*reads, *WRITES])


@pytest.mark.parametrize("body", [body for kind, body in BLOCKS if kind == "json"])
def test_json_is_json(body: str) -> None:
    assert isinstance(json.loads(body), dict)


@pytest.mark.parametrize("body", [body for kind, body in BLOCKS if kind == "python"])
def test_python_is_python(body: str) -> None:
    compile(body, "docs/api.md", "exec")


@pytest.mark.django_db
def test_the_requests_do_what_the_document_says(client: Client, operator: User, site: Site) -> None:
    client.force_login(operator)
    with mock.patch.object(tasks.sign_training, "delay"):
        for line in [line for line in COMMANDS if "$LINK" not in line]:
            address = line.strip().rpartition(" ")[2].strip('"').removeprefix("$BASE")
            data = re.search(r"-d '([^']*)'", line)
            answer: Any = (
                client.post(address, data[1], content_type="application/json") if data else client.get(address)
            )
            assert answer.status_code == (201 if data else 200), (line, answer.content)
