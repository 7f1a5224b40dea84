"""The examples of docs/api.md, copied and pasted: a shell and a Python against a server that has just been started."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.operator_api import OperatorApi
from bench.processes import ROOT, Processes, start_server
from tests.controlplane.test_documented_examples import BLOCKS
from tests.simulation.test_main_job import free_port

SHELL = [body for kind, body in BLOCKS if kind == "sh"]
PYTHON = [body for kind, body in BLOCKS if kind == "python"]
# Each answer's status goes to a file of its own, so that what the document says is sent as it stands there.
WATCHED = """
set -eu
curl() { command curl -w '%{stderr}%{http_code}\\n' "$@" 2>> "$STATUSES"; }
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LATTICEWARD_"):
            monkeypatch.delenv(name)


def test_what_the_document_shows_works_when_it_is_pasted(tmp_path: Path) -> None:
    port = free_port()
    environment = {"LATTICEWARD_VAR": str(tmp_path / "var"), "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    with Processes(logs=tmp_path / "logs", environment=environment) as processes:
        ready = start_server(processes, port=port)
        paste_into_a_shell(tmp_path, ready["address"], ready["sign_in"])

        api = OperatorApi(ready["address"])
        api.sign_in(ready["tool_sign_in"])
        assert {row["slug"] for row in api.rows("/api/v1/sites")} == {"northside"}
        assert [row["device_class"] for row in api.rows("/api/v1/claims")] == ["edge-server"]
        assert len(api.rows("/api/v1/trainings")) == 2

        claim = api.post("/api/v1/claims", {"site": "northside", "device_class": "edge-server", "auto_approve": True})
        home = str(tmp_path / "agent")
        enrolling = processes.start(
            "enrol", ["-m", "latticeward.agent", "enrol", "--home", home], stdin=claim["uri"].encode()
        )
        assert enrolling.process.wait(60) == 0
        processes.forget(enrolling)
        for example in PYTHON:
            told = subprocess.run(
                [sys.executable, "-c", f"home = {home!r}\n{example}"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert (told.returncode, told.stdout.split()[:1]) == (0, ["active"]), told.stderr


def paste_into_a_shell(tmp_path: Path, address: str, link: str) -> None:
    pasted = "\n".join(SHELL)
    # The two lines that everybody fills in.
    pasted, filled = re.subn(r'^(BASE=)\S+|^(LINK=)"[^"]+"', "", pasted, flags=re.MULTILINE)
    assert filled == 2
    statuses = tmp_path / "statuses"
    ran = subprocess.run(
        ["bash", "-c", WATCHED + pasted],
        env={**os.environ, "BASE": address, "LINK": link, "STATUSES": str(statuses), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    asked = pasted.count("\ncurl ")
    assert statuses.read_text().split() == ["200", "302", "200", *["201"] * (asked - 3)], ran.stdout
