"""The main job as a person starts it: server, four agents, real rows, and what it must have come to."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pika
import psycopg
import pytest

from controlplane.celery import QUEUES

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    "job", "metric", "rounds", "hospitals", "pooled", "central", "single", "seconds_total", "seconds_per_round_median",
    "seconds_last_update_to_published_median", "submissions_accepted", "ledger_size", "ledger_root", "suite",
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def demonstrate(var: Path, *arguments: str, timeout: float = 180, **variables: str) -> dict[str, Any]:
    """Run the demonstration to its end and read its last line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LATTICEWARD_")}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "-m", "bench.demo", "--once", "--json", "--port", str(free_port()), *arguments]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, "LATTICEWARD_VAR": str(var), **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    logs = "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted(var.glob("logs/*.log")))
    assert ran.returncode == 0, f"{ran.stderr[-3000:]}\n{logs}"
    summary = json.loads(ran.stdout.strip().splitlines()[-1])
    assert isinstance(summary, dict)
    return summary


def require_worth_it(summary: dict[str, Any], *, rounds: int, hospitals: int) -> None:
    assert summary.keys() >= FIELDS
    assert summary["rounds"] == rounds
    assert summary["submissions_accepted"] == (rounds + 1) * hospitals  # the last round only measures
    assert summary["pooled"] > max(summary["single"].values())
    assert summary["pooled"] == pytest.approx(summary["central"], abs=0.02)
    assert summary["suite"] == "hybrid"
    assert summary["ledger_size"] > 10 * rounds
    assert len(summary["ledger_root"]) == 64


def test_the_default_job_beats_every_hospital_alone(tmp_path: Path) -> None:
    summary = demonstrate(tmp_path, "--rounds", "15")
    require_worth_it(summary, rounds=15, hospitals=4)
    assert summary["pooled"] >= 0.88
    assert summary["by_site"]["switzerland"]["small_sample"] is True
    again = demonstrate(tmp_path, "--rounds", "1", "--port", str(_port_of(tmp_path)))
    assert again["rounds"] == 1
    assert again["ledger_size"] > summary["ledger_size"]  # the same ledger has grown


def _port_of(var: Path) -> int:
    identity = json.loads((var / "agents" / "cleveland" / "identity.json").read_text())
    return int(urlsplit(identity["server"]).port or 0)


@pytest.mark.torch
def test_the_thyroid_job_reaches_its_goal_in_twenty_rounds(tmp_path: Path) -> None:
    summary = demonstrate(tmp_path, "--job", "thyroid", "--rounds", "20", timeout=400)
    assert summary["pooled"] >= 0.93
    assert summary["pooled"] > summary["single"]["stmw"] + 0.1


@pytest.mark.torch
def test_the_watch_job_beats_every_clinic_alone(tmp_path: Path) -> None:
    summary = demonstrate(tmp_path, "--job", "watch", "--rounds", "20", timeout=400)
    assert (summary["metric"], summary["rounds"]) == ("accuracy", 20)
    assert summary["pooled"] >= 0.9
    assert summary["pooled"] > max(summary["single"].values()) + 0.05


@pytest.fixture
def services() -> Iterator[dict[str, str]]:
    """A database and a virtual message space of the test's own on the machine's PostgreSQL, Redis and RabbitMQ."""
    server = os.environ["LATTICEWARD_TEST_DATABASE_URL"]
    name = f"latticeward_test_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    _forget_queues()
    yield {
        "LATTICEWARD_DATABASE_URL": server.rsplit("/", 1)[0] + f"/{name}",
        "LATTICEWARD_LIVE_URL": os.environ["LATTICEWARD_TEST_LIVE_URL"],
        "LATTICEWARD_BROKER_URL": os.environ["LATTICEWARD_TEST_BROKER_URL"],
    }
    _forget_queues()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


def _forget_queues() -> None:
    # What an earlier run left on the broker speaks of another database.
    parameters = pika.URLParameters(os.environ["LATTICEWARD_TEST_BROKER_URL"])
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            channel.queue_delete(queue)


@pytest.mark.services
def test_the_default_job_over_postgresql_rabbitmq_and_redis(tmp_path: Path, services: dict[str, str]) -> None:
    summary = demonstrate(tmp_path, "--rounds", "4", **services)
    require_worth_it(summary, rounds=4, hospitals=4)
