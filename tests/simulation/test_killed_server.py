"""The server is killed in the middle of a round; after its restart the round goes on and every update counts once."""

import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from bench.operator_api import OperatorApi
from bench.processes import Processes, start_server
from latticeward.jobs import HEART
from tests.simulation.test_main_job import free_port

PATIENCE_SECONDS = 120.0


def query(var: Path, sql: str) -> list[Any]:
    with sqlite3.connect(f"file:{var / 'db' / 'latticeward.sqlite3'}?mode=ro", uri=True, timeout=10) as connection:
        return connection.execute(sql).fetchall()


def wait_for(happened: Any, what: str, pause: float = 0.02) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(pause)


def enrol_and_start(processes: Processes, api: OperatorApi, var: Path) -> None:
    for site in HEART.sites:
        api.post("/api/v1/sites", {"slug": site, "name": site.title()})
        claim = api.post("/api/v1/claims", {"site": site, "device_class": "workstation", "auto_approve": True})
        home = str(var / "agents" / site)
        enrolling = processes.start(
            f"enrol-{site}", ["-m", "latticeward.agent", "enrol", "--home", home], stdin=claim["uri"].encode()
        )
        assert enrolling.process.wait(60) == 0
        processes.forget(enrolling)
        processes.start(f"agent-{site}", ["-m", "latticeward.agent", "run", "--home", home, "--job", "heart"])


def test_a_killed_server_goes_on_where_it_was(tmp_path: Path) -> None:
    port = free_port()
    environment = {"LATTICEWARD_VAR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    with Processes(logs=tmp_path / "logs", environment=environment) as processes:
        ready = start_server(processes, port=port)
        server = processes.children[0]
        api = OperatorApi(ready["address"])
        api.sign_in(ready["tool_sign_in"])
        enrol_and_start(processes, api, tmp_path)
        training = api.post("/api/v1/trainings", {"job": "heart", "rounds": 4})["id"]

        middle = """SELECT count(*) FROM audit_auditentry a JOIN rounds_round r ON a.feed LIKE '%' || substr(r.id, 21)
                    WHERE r.number >= 2 AND r.state = 'collecting' AND a.event = 'update.received'"""
        wait_for(lambda: query(tmp_path, middle)[0][0] >= 1, "the middle of a round", pause=0.001)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        processes.forget(server)
        before = query(tmp_path, "SELECT id FROM rounds_submission WHERE outcome = 'accepted'")

        ready = start_server(processes, port=port)
        processes.children.insert(0, processes.children.pop())  # the server is ended last
        api = OperatorApi(ready["address"])
        api.sign_in(ready["tool_sign_in"])
        wait_for(lambda: api.get(f"/api/v1/trainings/{training}")["state"] == "completed", "the end", pause=0.2)
        rounds = api.rows(f"/api/v1/rounds?training={training}")

    assert [row["state"] for row in rounds] == ["published"] * 5
    assert [row["accepted"] for row in rounds] == [4] * 5
    counted = query(tmp_path, "SELECT submission_id FROM rounds_contribution")
    assert set(before) <= set(counted)  # what was accepted before the kill still counts
    accepted = query(
        tmp_path, "SELECT count(*), count(DISTINCT subject_id) FROM audit_auditentry WHERE event = 'update.accepted'"
    )
    assert accepted == [(20, 20)]
    assert len(counted) == len(set(counted)) == 20
    for log in (tmp_path / "logs").glob("agent-*.log"):
        assert "Traceback" not in log.read_text()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LATTICEWARD_") and not name.startswith("LATTICEWARD_TEST_"):
            monkeypatch.delenv(name)
