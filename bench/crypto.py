"""What cryptography costs a process at its start: importing it, and the known answers of every active primitive."""

import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Final

RUNS: Final = 7
_IMPORT: Final = """
import time
import numpy
started = time.perf_counter()
import latticeward.crypto.envelope, latticeward.crypto.envelope_file, latticeward.crypto.keys
import latticeward.crypto.hpke, latticeward.crypto.signing, latticeward.crypto.suites, latticeward.crypto.wrapping
import latticeward.crypto.certificate, latticeward.crypto.httpsig
print((time.perf_counter() - started) * 1000)
"""
_SELFTEST: Final = """
import time
import latticeward.crypto.envelope, latticeward.crypto.ascon
from latticeward.crypto.selftest import run_selftest
started = time.perf_counter()
run_selftest(["hybrid", "high", "constrained"])
print((time.perf_counter() - started) * 1000)
"""


def run() -> Iterator[dict[str, str | float]]:
    """Yields ``import_ms`` and ``selftest_ms``, each the median over fresh interpreters, taken in turn.

    The self-test runs cold, once, in a process that has imported what it tests, as a server at its start has.
    """
    found: dict[str, list[float]] = {"import_ms": [], "selftest_ms": []}
    for _ in range(RUNS):
        found["import_ms"].append(_in_fresh_interpreter(_IMPORT))
        found["selftest_ms"].append(_in_fresh_interpreter(_SELFTEST))
    for metric, values in found.items():
        yield {"bench": "crypto", "metric": metric, "value": round(median(values), 1), "unit": "ms"}


def _in_fresh_interpreter(code: str) -> float:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)
