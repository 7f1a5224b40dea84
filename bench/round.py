"""The main job as a person starts it, measured: rounds and their stages, memory, and what the model is worth.

Everything runs through the same driver, processes and cryptography as `./ward demo`; nothing is short-circuited.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.processes import ROOT, DemoError

HEART_ROUNDS: Final = 15
THYROID_ROUNDS: Final = 20
TIMEOUT_SECONDS: Final = 900
Row = dict[str, Any]


def run() -> Iterator[Row]:
    """Rows of the default job, the torch job, and a fresh clone's first round."""
    with tempfile.TemporaryDirectory(prefix="latticeward-bench-") as scratch:
        heart = demo(Path(scratch) / "heart", "--rounds", str(HEART_ROUNDS))
    yield _row("round_seconds_median", heart["seconds_per_round_median"], "s")
    if (seconds := heart["seconds_last_update_to_published_median"]) is None:
        print("   the server did not say when the last updates arrived: that row is missing", file=sys.stderr)
    else:
        yield _row("last_update_to_published_ms_median", 1000 * seconds, "ms")
    for stage, milliseconds in heart["stage_milliseconds_median"].items():
        yield _row(f"stage_{stage}_ms_median", milliseconds, "ms")
    yield _row("server_rss_mib", heart["server_rss_mib"], "MiB")
    yield _row("agent_rss_mib", heart["agent_rss_mib"], "MiB")
    yield _row("pooled_auc_heart_15_rounds", heart["pooled"], "auc")
    if importlib.util.find_spec("torch") is None:
        print("   PyTorch is not installed: the thyroid job is left out", file=sys.stderr)
    else:
        with tempfile.TemporaryDirectory(prefix="latticeward-bench-") as scratch:
            thyroid = demo(Path(scratch) / "thyroid", "--job", "thyroid", "--rounds", str(THYROID_ROUNDS))
        yield _row("pooled_auc_thyroid_20_rounds", thyroid["pooled"], "auc")
        yield _row("thyroid_round_seconds_median", thyroid["seconds_per_round_median"], "s")
    yield _row("fresh_clone_to_first_round_s", fresh_clone()["seconds_to_first_round"], "s")


def demo(var: Path, *arguments: str) -> dict[str, Any]:
    """Run the demonstration in a folder of its own; returns its summary."""
    return _summary([sys.executable, "-m", "bench.demo"], arguments, cwd=ROOT, LATTICEWARD_VAR=str(var))


def fresh_clone() -> dict[str, Any]:
    """What a clone of this tree needs from `./ward demo` to its first published round, environment included."""
    with tempfile.TemporaryDirectory(prefix="latticeward-clone-") as scratch:
        clone = Path(scratch) / "latticeward"
        copy_tree(clone)
        interpreter = getattr(sys, "_base_executable", sys.executable)
        return _summary([interpreter, "ward", "demo"], ("--rounds", "1"), cwd=clone)


def copy_tree(target: Path) -> None:
    """Copy what a commit of the working tree would hold: what is tracked or could be, and nothing that is ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode("utf-8")
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)


def _summary(command: list[str], arguments: tuple[str, ...], *, cwd: Path, **variables: str) -> dict[str, Any]:
    # Of our own settings only those that choose the services: a clone must not find this environment or folder.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LATTICEWARD_") or name.endswith(("_DATABASE_URL", "_BROKER_URL", "_LIVE_URL"))
    }
    done = subprocess.run(
        [*command, "--once", "--json", *arguments],
        cwd=cwd,
        env={**kept, **variables},
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"the demonstration ended with status {done.returncode}")
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def _row(metric: str, value: float, unit: str) -> Row:
    return {"metric": metric, "value": value, "unit": unit}
