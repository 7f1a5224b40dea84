"""How long a later start takes: from the command to the first page served, and what of it is `ward` itself."""

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.processes import ROOT, DemoError

REPEATS: Final = 3
TIMEOUT_SECONDS: Final = 60.0


def run() -> Iterator[dict[str, Any]]:
    """Rows of the first and the later starts of embedded mode on one folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="latticeward-bench-") as var:
        yield _row("first_start_seconds", _start(Path(var), port))
        yield _row("warm_start_seconds", statistics.median(_start(Path(var), port) for _ in range(REPEATS)))
    yield _row("ward_overhead_seconds", statistics.median(_overhead() for _ in range(REPEATS)))


def _row(metric: str, value: float) -> dict[str, Any]:
    return {"metric": metric, "value": value, "unit": "s"}


def _start(var: Path, port: int) -> float:
    began = time.monotonic()
    environment = {**os.environ, "LATTICEWARD_VAR": str(var), "LATTICEWARD_ENV": sys.prefix}
    server = subprocess.Popen(
        [str(ROOT / "ward"), "serve", "--announce", "json", "--port", str(port)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        address = _address(server)
        while time.monotonic() < began + TIMEOUT_SECONDS:
            try:
                with urllib.request.urlopen(f"{address}/sign-in/") as page:
                    page.read()
                    return time.monotonic() - began
            except urllib.error.URLError:
                time.sleep(0.01)
        raise DemoError(f"no page was served within {TIMEOUT_SECONDS:.0f} s")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=TIMEOUT_SECONDS)


def _address(server: subprocess.Popen[str]) -> str:
    for line in server.stdout or ():
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if said.get("event") == "ready":
                return str(said["address"])
    raise DemoError("the server ended before it was ready")


def _overhead() -> float:
    began = time.monotonic()
    environment = {**os.environ, "LATTICEWARD_ENV": sys.prefix}
    # The least that a command can do: the difference to a bare start of Python is what `ward` takes.
    subprocess.run([str(ROOT / "ward"), "manage", "version"], env=environment, check=True, stdout=subprocess.DEVNULL)
    through = time.monotonic() - began
    began = time.monotonic()
    subprocess.run([sys.executable, "manage.py", "version"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return through - (time.monotonic() - began)
