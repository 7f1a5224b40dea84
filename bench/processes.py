"""Child processes of the demonstration: the control plane and the agents, each with its own log, ended in order.

Children run in sessions of their own, so that Ctrl-C reaches only the driver, which ends agents before the server
that they speak to; and the kernel ends them if the driver itself is killed, so that nothing is left behind.
"""

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
# What Ctrl-C in a terminal of its own would be: the server then ends its own worker processes as well.
_END: Final = signal.SIGINT
_PR_SET_PDEATHSIG: Final = 1


class DemoError(Exception):
    """The demonstration cannot go on; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A started process and where it writes its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def require_alive(self) -> None:
        """Raise with the end of its log if the process has ended by itself."""
        if (status := self.process.poll()) is not None:
            raise DemoError(f"{self.name} ended with status {status}; the end of {self.log}:\n{tail(self.log)}")


class Processes:
    """All children, ended in the reverse order of their start; use it as a context."""

    def __init__(self, *, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self.children: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(
        self, name: str, arguments: Sequence[str], *, stdin: bytes | None = None, reads_stdout: bool = False
    ) -> Child:
        """Start a program of this Python; its output is appended to ``<name>.log``.

        Args:
            stdin: handed over at once, so that a secret stands neither in the process list nor in a file.
            reads_stdout: leave standard output as a pipe for the caller.
        """
        log = self._logs / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE if reads_stdout else stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        if process.stdin:
            process.stdin.write(stdin or b"")
            process.stdin.close()
        child = Child(name=name, process=process, log=log)
        self.children.append(child)
        return child

    def forget(self, child: Child) -> None:
        """A child that has done its work and ended."""
        self.children.remove(child)

    def require_alive(self) -> None:
        """Raise if any child has ended by itself."""
        for child in self.children:
            child.require_alive()

    def stop(self) -> None:
        """End the agents together, then the server; whoever does not go in time is killed."""
        agents, rest = self.children[1:], self.children[:1]
        self.children = []
        for group in (agents, rest):
            for child in group:
                if child.process.poll() is None:
                    child.process.send_signal(_END)
            deadline = time.monotonic() + STOP_SECONDS
            for child in group:
                try:
                    child.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_server(processes: Processes, *, port: int | None) -> dict[str, Any]:
    """Start the control plane and wait until it says that it is ready.

    Returns:
        Its announcement: ``address``, and ``sign_in`` and ``tool_sign_in``, one-time links for a person and for us.
    """
    arguments = ["manage.py", "serve", "--announce", "json", *(["--port", str(port)] if port else [])]
    server = processes.start("server", arguments, reads_stdout=True)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    if server.process.stdout is None:
        raise AssertionError("the server was started with a pipe")
    threading.Thread(target=_drain, args=(server.process.stdout, lines), daemon=True).start()
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            said = json.loads(lines.get(timeout=0.2))
        except queue.Empty:
            server.require_alive()
        except ValueError:
            continue
        else:
            if isinstance(said, dict) and said.get("event") == "ready":
                return said
    raise DemoError(f"not ready within {START_SECONDS:.0f} s; the end of {server.log}:\n{tail(server.log)}")


def _drain(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    for line in stream:
        lines.put(line)


def rss_mib(pid: int) -> float:
    """Resident memory of a process and its children, in MiB; 0 if it is gone."""
    total = 0.0
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        total = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (OSError, IndexError):
        return total
    return total + sum(rss_mib(int(child)) for child in children)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def end_with_parent() -> None:
    """Run in a child before its program: the kernel sends it SIGINT when the driver dies in whatever way.

    A shell starts what it puts in the background deaf to SIGINT, and children inherit that.
    """
    signal.signal(_END, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _END)
