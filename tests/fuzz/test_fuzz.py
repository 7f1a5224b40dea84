"""Hostile input, coverage-guided: nothing but the documented refusals, in bounded time and memory."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNS = int(os.environ.get("LATTICEWARD_FUZZ_RUNS", "1000000"))
NAMES = (
    "cbor", "header", "envelope", "opening", "signed-message", "signature", "public-key", "csr", "chain",
    "revocation-list", "status-question", "claim-code", "enrolment", "encipherment", "round-message", "plan",
    "contribution", "checkpoint", "request", "trust-bundle", "record-file", "trust-statement", "statement",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine or Python"
)


def fuzz(*arguments: str) -> str:
    """What the harness printed; its own process, since libFuzzer takes over signals, memory and the exit."""
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
    return done.stdout


def test_every_target_takes_its_seeds_and_some_thousand_inputs(tmp_path: Path) -> None:
    lines = fuzz("--runs", "2000", "--seed", "1", "--folder", str(tmp_path)).splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert all(int(line.split()[1]) >= 2_000 for line in lines), lines


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_million_inputs_find_nothing(name: str, tmp_path: Path) -> None:
    print(fuzz(name, "--runs", str(RUNS), "--folder", str(tmp_path)))
