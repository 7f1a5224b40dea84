"""Rounds of a million numbers through their services: web server, RabbitMQ, PostgreSQL, Redis and worker processes.

The services' addresses are those of the tests: ``LATTICEWARD_TEST_DATABASE_URL`` (a database of its own is made on that
server and dropped again), ``LATTICEWARD_TEST_BROKER_URL`` (a virtual host that nobody else works on, which is checked)
and ``LATTICEWARD_TEST_LIVE_URL``. The rounds are driven by a process of their own (``pipeline_driver.py``), so that its
settings are not this process's; what it starts ends with it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.installation import own_database
from bench.processes import ROOT, DemoError, end_with_parent
from bench.reference_arrangement import averages_with_torch, reference_seconds

PARAMETERS: Final = 1_000_000
TIMEOUT_SECONDS: Final = 900
# Blobs in memory, where a machine has such a folder: what a fast local path is for. A folder of our own is made there.
FAST_FOLDER: Final = Path("/dev/shm")  # noqa: S108
_SERVICES: Final = {
    "LATTICEWARD_DATABASE_URL": "LATTICEWARD_TEST_DATABASE_URL",
    "LATTICEWARD_BROKER_URL": "LATTICEWARD_TEST_BROKER_URL",
    "LATTICEWARD_LIVE_URL": "LATTICEWARD_TEST_LIVE_URL",
}
Row = dict[str, Any]


def run() -> Iterator[Row]:
    """Rows of two or three minutes; none where a service is missing, which is said."""
    if missing := [name for name in _SERVICES.values() if not os.environ.get(name)]:
        print(f"   not measured: {', '.join(missing)} is not set", file=sys.stderr)
        return
    latency = None
    for row in _drive():
        if row["metric"] == "celery_3x1m_last_to_published_ms":
            latency = row["value"]
        yield row
    if latency is None:
        raise DemoError("the driver said nothing of rounds of three")
    if not averages_with_torch():
        print("   PyTorch is not installed: the reference averages with NumPy", file=sys.stderr)
    seconds = reference_seconds(PARAMETERS)
    yield {"metric": "reference_arrangement_s", "value": round(seconds, 3), "unit": "s"}
    yield {"metric": "vs_reference_arrangement", "value": round(1000 * seconds / latency, 1), "unit": "x"}


def _drive() -> Iterator[Row]:
    with own_database(os.environ["LATTICEWARD_TEST_DATABASE_URL"]) as database, _scratch() as (var, blobs):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LATTICEWARD_")},
            **{name: os.environ[source] for name, source in _SERVICES.items()},
            "LATTICEWARD_DATABASE_URL": database,
            "LATTICEWARD_VAR": str(var),
            "LATTICEWARD_BLOB_PATH": str(blobs),
            "LATTICEWARD_LOG_LEVEL": "WARNING",
        }
        driver = subprocess.Popen(
            [sys.executable, "-m", "bench.pipeline_driver", str(PARAMETERS)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,
        )
        try:
            for line in driver.stdout or ():
                yield json.loads(line)
            if driver.wait(TIMEOUT_SECONDS) != 0:
                raise DemoError(f"the driver of the pipeline ended with status {driver.returncode}")
        finally:
            driver.terminate()
            driver.wait(TIMEOUT_SECONDS)


@contextmanager
def _scratch() -> Iterator[tuple[Path, Path]]:
    """A folder for the system, and one for its blobs on the fastest path of this machine."""
    with tempfile.TemporaryDirectory(prefix="latticeward-bench-") as var:
        blobs = Path(tempfile.mkdtemp(prefix="latticeward-bench-", dir=FAST_FOLDER if FAST_FOLDER.is_dir() else var))
        try:
            yield Path(var), blobs
        finally:
            shutil.rmtree(blobs, ignore_errors=True)
