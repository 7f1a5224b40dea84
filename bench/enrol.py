"""Complete enrolments a second: real agents' code against a real installation, all on this machine's processors.

An enrolment is trust bundle, ``begin``, ``finish`` with four proofs, automatic approval, certificate and statement by
the authority worker, ``collect`` and every check of the agent, written to its disk. The devices' keys are made before
the clock starts; everything else of a device counts, on the same processors as server, worker, database and broker.
Beside the rate stands what an enrolment takes of the processors, by process: other work on the machine hardly changes
that. The broker, which others may use as well, is not among them.

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

from bench import processor_time
from bench.enrol_crypto import bare_milliseconds
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
    """Yields ``enrolments_per_s`` over ``enrolled_devices``, and ``enrol_cpu_ms_…``: processor time an enrolment.

    ``bare_crypto`` is what all the others together cannot get under.
    """
    # All of them ask from one address here.
    with installation(LATTICEWARD_LIMIT_ENROLMENT="0", LATTICEWARD_LIMIT_PUBLIC="0") as server:
        seconds, spent = _enrol_all(server, _make_codes(server))
    yield {"metric": "enrolments_per_s", "value": round(DEVICES / seconds, 1), "unit": "1/s"}
    yield {"metric": "enrolled_devices", "value": DEVICES, "unit": "n"}
    for name, total in spent.items():
        yield _milliseconds(name, 1000 * total / DEVICES)
    yield _milliseconds("bare_crypto", bare_milliseconds())


def _milliseconds(name: str, value: float) -> dict[str, Any]:
    return {"metric": f"enrol_cpu_ms_{name}", "value": round(value, 2), "unit": "ms"}


def _make_codes(server: Installation) -> list[str]:
    server.api.post("/api/v1/sites", {"slug": "northside", "name": "Northside Hospital"})
    csv = f"site,device_class,count\nnorthside,edge-server,{DEVICES}\n"
    made = server.api.post("/api/v1/claims/bulk", {"csv": csv, "auto_approve": True})
    return [row["uri"] for row in made]


def _enrol_all(server: Installation, codes: list[str]) -> tuple[float, dict[str, float]]:
    """Seconds from the first request of any device to the last identity on a disk, and of processors by process."""
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
        before, started = _spent(server, children), time.monotonic()
        for child in children:
            _say(child, "go")
        failures = [failure for child in children for failure in json.loads(_hear(child))]
        seconds, after = time.monotonic() - started, _spent(server, children)
    finally:
        for child in children:
            child.kill()
            child.wait()
    if failures:
        raise DemoError(f"{len(failures)} of {len(codes)} enrolments failed, the first: {failures[0]}")
    return seconds, {name: after[name] - before[name] for name in after}


def _spent(server: Installation, devices: list["subprocess.Popen[str]"]) -> dict[str, float]:
    """Seconds of processors so far, by who spent them."""
    web = server.processes.children[0].process.pid
    return {
        "web": processor_time.of_process(web),
        "authority": sum(processor_time.of_tree(worker) for worker in processor_time.children_of(web)),
        "database": processor_time.of_database(server.environment["LATTICEWARD_DATABASE_URL"]),
        "devices": sum(processor_time.of_process(device.pid) for device in devices),
    }


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
