"""Processor time of processes, from the kernel: what work costs, whatever else runs on the machine meanwhile."""

import os
from pathlib import Path
from typing import Final

import psycopg

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def of_process(pid: int) -> float:
    """Seconds that a process and its children that have ended were on a processor; 0 if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    # The name stands in brackets and may hold blanks; the four times are the 14th to 17th field of the line.
    return sum(int(ticks) for ticks in stat.rpartition(")")[2].split()[11:15]) / _TICKS_A_SECOND


def of_tree(pid: int) -> float:
    """As ``of_process``, together with all processes below it."""
    return of_process(pid) + sum(of_tree(child) for child in children_of(pid))


def children_of(pid: int) -> list[int]:
    """Process ids right below a process; none if it has gone."""
    try:
        threads = [thread.name for thread in Path(f"/proc/{pid}/task").iterdir()]
        return [
            int(child)
            for thread in threads
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii").split()
        ]
    except OSError:
        return []


def command_of(pid: int) -> str:
    """The command line, arguments parted by blanks; empty if the process has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def of_database(address: str) -> float:
    """Seconds of the PostgreSQL processes that serve one database now; 0 where they run on another machine."""
    with psycopg.connect(address) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return sum(of_process(pid) for (pid,) in rows if command_of(pid).startswith("postgres:"))
