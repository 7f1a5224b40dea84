"""Complete enrolments a second: real agents' code against a real installation, all on this machine's processors.

An enrolment is trust bundle, ``begin``, ``finish`` with four proofs, automatic approval, certificate and statement by
the authority worker, ``collect`` and every check of the agent, written to its disk. The devices' keys are made before
the clock starts; everything else of a device counts, on the same processors as server, worker, database and broker.

Run as a program, this file is one process of such devices: orders and results are lines of JSON.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from bench.installation import Installation, installation
from bench.processes import ROOT, DemoError
from latticeward.agent.assembly import utc_now
from latticeward.agent.config import AgentConfig
from latticeward.agent.enrol import EnrolmentRequest, enrol
from latticeward.agent.identity import DeviceSecrets, load_or_make_secrets
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports import TRANSPORTS
from latticeward.claim_code import ClaimCode, parse_claim
from latticeward.errors import LatticewardError

DEVICES: Final = 200
PROCESSES: Final = 2
THREADS: Final = 6
TIMEOUT_SECONDS: Final = 300


def run() -> Iterator[dict[str, Any]]:
    """Yields ``enrolments_per_s`` over ``enrolled_devices``."""
    # All of them ask from one address here.
    with installation(LATTICEWARD_LIMIT_ENROLMENT="0", LATTICEWARD_LIMIT_PUBLIC="0") as server:
        seconds = _enrol_all(server, _make_codes(server))
    yield {"metric": "enrolments_per_s", "value": round(DEVICES / seconds, 1), "unit": "1/s"}
    yield {"metric": "enrolled_devices", "value": DEVICES, "unit": "n"}


def _make_codes(server: Installation) -> list[str]:
    server.api.post("/api/v1/sites", {"slug": "northside", "name": "Northside Hospital"})
    csv = f"site,device_class,count\nnorthside,edge-server,{DEVICES}\n"
    made = server.api.post("/api/v1/claims/bulk", {"csv": csv, "auto_approve": True})
    return [row["uri"] for row in made]


def _enrol_all(server: Installation, codes: list[str]) -> float:
    """Seconds from the first request of any device to the last identity on a disk."""
    children = []
    for number in range(PROCESSES):
        folder = server.folder / f"machines-{number}"
        order = {"codes": codes[number::PROCESSES], "server": server.address, "folder": str(folder)}
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.enrol"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        children.append(child)
        _say(child, json.dumps(order))
    try:
        for child in children:
            _hear(child)  # its keys are made
        started = time.monotonic()
        for child in children:
            _say(child, "go")
        failures = [failure for child in children for failure in json.loads(_hear(child))]
        seconds = time.monotonic() - started
    finally:
        for child in children:
            child.kill()
            child.wait()
    if failures:
        raise DemoError(f"{len(failures)} of {len(codes)} enrolments failed, the first: {failures[0]}")
    return seconds


def _say(child: "subprocess.Popen[str]", line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


def _hear(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    if line := child.stdout.readline():
        return line
    raise DemoError("a process of enrolling devices ended early")


def _devices(order: dict[str, Any]) -> None:
    machines = []
    for number, code in enumerate(order["codes"]):
        config = AgentConfig.load(Path(order["folder"]) / f"{number:04d}", given={})
        machines.append((parse_claim(code), config, load_or_make_secrets(config.home, suite=config.suite)))
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(THREADS) as threads:
        outcomes = list(threads.map(lambda machine: _enrol_one(order["server"], *machine), machines))
    print(json.dumps([outcome for outcome in outcomes if outcome]), flush=True)


def _enrol_one(server: str, claim: ClaimCode, config: AgentConfig, secrets: DeviceSecrets) -> str:
    """Empty, or why it failed."""
    transport = TRANSPORTS["http"](config, server, secrets.keys, Interruption())
    try:
        enrol(
            EnrolmentRequest(claim=claim, server=server, name=f"machine {config.home.name}"),
            home=config.home,
            secrets=secrets,
            transport=transport,
            authority=transport.authority,
            clock=utc_now,
            poll_seconds=20,
        )
    except LatticewardError as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    _devices(json.loads(sys.stdin.readline()))
