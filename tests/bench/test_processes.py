"""The demonstration's children: ended in order, never left behind, and heard when they fail."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import processes
from bench.processes import DemoError, Processes

# Writes its name when it is told to end, then takes a moment: who comes first shows in the file.
POLITE = """
import pathlib, signal, sys, time
def end(*_):
    with open(sys.argv[2], "a") as file:
        file.write(sys.argv[1] + "\\n")
    time.sleep(0.2)
    raise SystemExit
signal.signal(signal.SIGINT, end)
print("up", flush=True)
while True:
    time.sleep(0.05)
"""


def wait_until(said: str, log: Path) -> None:
    deadline = time.monotonic() + 10
    while said not in processes.tail(log):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_agents_are_ended_before_the_server(tmp_path: Path) -> None:
    order = tmp_path / "order"
    with Processes(logs=tmp_path, environment={}) as children:
        for name in ("server", "agent-a", "agent-b"):
            child = children.start(name, ["-c", POLITE, name, str(order)])
            wait_until("up", child.log)
    names = order.read_text().split()
    assert sorted(names[:2]) == ["agent-a", "agent-b"]
    assert names[2:] == ["server"]


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.3)
    deaf = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)"
    with Processes(logs=tmp_path, environment={}) as children:
        child = children.start("server", ["-c", deaf])
        wait_until("up", child.log)
    assert child.process.returncode == -signal.SIGKILL


def test_a_killed_driver_leaves_no_child_behind_even_one_that_a_shell_put_in_the_background(tmp_path: Path) -> None:
    driver = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from bench.processes import Processes\n"
        "children = Processes(logs=pathlib.Path(sys.argv[1]), environment={})\n"
        "child = children.start('server', ['-c', 'import time; time.sleep(60)'])\n"
        "print(child.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", driver, str(tmp_path)], cwd=processes.ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_a_child_that_failed_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Processes(logs=tmp_path, environment={}) as children:
        child = children.start("agent-a", ["-c", "raise SystemExit('the disk is full')"])
        child.process.wait(10)
        with pytest.raises(DemoError, match="the disk is full"):
            children.require_alive()


def test_a_secret_goes_in_by_standard_input_only(tmp_path: Path) -> None:
    with Processes(logs=tmp_path, environment={}) as children:
        child = children.start("agent-a", ["-c", "print(len(input()))"], stdin=b"claim\n")
        child.process.wait(10)
    assert processes.tail(child.log) == "5"


def test_resident_memory_is_that_of_the_process_and_its_children() -> None:
    own = processes.rss_mib(os.getpid())
    assert own > 5
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        time.sleep(0.2)
        assert processes.rss_mib(os.getpid()) > own + 3
        assert child.stdin is not None
        child.stdin.close()
