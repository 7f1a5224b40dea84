"""What `./ward test` runs: pytest, once for each kind of process that tests need, and an account of what was left out.

Three invocations. Synchronous Playwright and pytest-asyncio cannot share a process, so tests marked ``e2e`` have
their own; one process knows one database, so tests marked ``postgres`` have their own too. Tests marked ``services``
need PostgreSQL, Redis and RabbitMQ and find their addresses in ``LATTICEWARD_TEST_DATABASE_URL``, ``…_LIVE_URL`` and
``…_BROKER_URL``; those marked ``e2e`` or ``browser`` find Chromium in ``LATTICEWARD_TEST_CHROMIUM``.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from xml.etree import ElementTree

ROOT: Final = Path(__file__).resolve().parent.parent
REPORTS: Final = ROOT / "build"
SERVICES: Final = {
    "PostgreSQL": ("LATTICEWARD_TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
    "Redis": ("LATTICEWARD_TEST_LIVE_URL", "redis://127.0.0.1:6379/9"),
    "RabbitMQ": ("LATTICEWARD_TEST_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672/%2F"),
}
OPENSSL: Final = "LATTICEWARD_TEST_OPENSSL"
_NOTHING_COLLECTED: Final = 5
_COUNTED: Final = (0, 1, _NOTHING_COLLECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine offers to tests.

    Attributes:
        variables: what tests read from the environment.
        lacking: mark -> why tests with it cannot run here.
    """

    variables: Mapping[str, str]
    lacking: Mapping[str, str]


def look_around() -> Machine:
    """Look for the services in their usual places, or where the environment says they are."""
    addresses = {variable: os.environ.get(variable, usual) for variable, usual in SERVICES.values()}
    silent = [name for name, (variable, _) in SERVICES.items() if not _answers(addresses[variable])]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
    lacking = {}
    if "PostgreSQL" in silent:
        lacking["postgres"] = "PostgreSQL does not answer"
    if silent:
        lacking["services"] = f"{', '.join(silent)} not answering"
    if not chromium:
        lacking["e2e"] = lacking["browser"] = "no Chromium on PATH (on Debian: apt-get install chromium)"
    if importlib.util.find_spec("torch") is None:
        lacking["torch"] = "PyTorch is not installed (./ward demo --job thyroid installs it)"
    return Machine(variables={**addresses, "LATTICEWARD_TEST_CHROMIUM": chromium}, lacking=lacking)


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((parts.hostname or "", parts.port or 0), timeout=2):
        return True
    return False


def find_openssl() -> str | None:
    """The command line of OpenSSL 3.5 or later: the one that the environment names, or the one on the path."""
    program = os.environ.get(OPENSSL) or shutil.which("openssl")
    if not program or not Path(program).exists():
        return None
    said = subprocess.run([program, "version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"OpenSSL (\d+)\.(\d+)", said)
    return program if found and (int(found[1]), int(found[2])) >= (3, 5) else None


def invocations(lacking: Mapping[str, str]) -> list[tuple[str, str]]:
    """The runs to make: a name, and pytest's mark expression."""
    runs = [("main", "not e2e and not postgres"), ("postgres", "postgres and not e2e"), ("e2e", "e2e")]
    without = [f"not {mark}" for mark in lacking if mark not in ("postgres", "e2e")]
    return [(name, " and ".join([wanted, *without])) for name, wanted in runs if name not in lacking]


def read_report(path: Path) -> tuple[Counter[str], list[str]]:
    """Figures of one run from its JUnit report, and what its tests skipped by themselves, with reasons."""
    counts: Counter[str] = Counter()
    skips = []
    for case in ElementTree.parse(path).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
        elif skipped is None:
            counts["passed"] += 1
        else:
            counts["skipped"] += 1
            skips.append(f"{case.get('classname')}.{case.get('name')}: {skipped.get('message')}")
    return counts, skips


def main() -> int:
    """Command line; the exit status is 0 only if tests ran and none failed."""
    parser = argparse.ArgumentParser(
        prog="ward test", description=__doc__, allow_abbrev=False, epilog="Other arguments go to pytest."
    )
    parser.add_argument("--slow", action="store_true", help="also the tests that take long")
    spared = "leaving out is a failure, but for the slow ones and OpenSSL's"
    parser.add_argument("--require-all", action="store_true", help=spared)
    options, rest = parser.parse_known_args()
    machine = look_around()
    lacking = dict(machine.lacking)
    left_out = [f"tests marked {mark}: {reason}" for mark, reason in lacking.items()]
    if not options.slow:
        lacking["slow"] = "these take long (./ward test --slow)"
    if find_openssl() is None:
        # No Debian that this runs on ships one, and the standards' rules are tested in its place.
        lacking["openssl"] = f"no OpenSSL command line of 3.5 or later (name one in {OPENSSL})"
    totals: Counter[str] = Counter()
    broken = False
    REPORTS.mkdir(exist_ok=True)
    for name, expression in invocations(lacking):
        report = REPORTS / f"tests-{name}.xml"
        report.unlink(missing_ok=True)
        print(f"\n── {name}: pytest -m '{expression}'", flush=True)
        environment = {**os.environ, **machine.variables}
        if name == "postgres":
            environment["LATTICEWARD_DATABASE_URL"] = machine.variables[SERVICES["PostgreSQL"][0]]
        command = [sys.executable, "-m", "pytest", "-m", expression, f"--junitxml={report}", *rest]
        status = _run(command, environment)
        broken = broken or status not in _COUNTED
        if report.exists():
            counts, skips = read_report(report)
            totals += counts
            left_out += skips
    told = sorted(left_out)
    told += [f"tests marked {mark}: {lacking[mark]}" for mark in ("slow", "openssl") if mark in lacking]
    print("\nleft out:" if told else "\nnothing was left out", *told, sep="\n  ")
    print(f"\n{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped", flush=True)
    if options.require_all and left_out:
        print("--require-all: leaving out is a failure", file=sys.stderr)
        return 1
    return 1 if broken or totals["failed"] or not totals["passed"] else 0


def _run(command: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # pytest has it too and closes its fixtures first
            continue


if __name__ == "__main__":
    sys.exit(main())
