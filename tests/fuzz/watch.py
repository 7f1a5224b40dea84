"""How long one input takes, measured from outside, in processor time.

libFuzzer's own alarm cannot interrupt a library in C, says nothing about mutators, and counts the seconds in which a
shared machine gave the process nothing. So the fuzzing process leaves the number of its input and the input itself in
shared memory, and the process that started it ends it when its processor time grows and that number does not.
"""

import hashlib
import mmap
import os
import signal
import time
from pathlib import Path
from typing import Final

LIMIT_SECONDS: Final = 10
_HEAD_BYTES: Final = 16
_POLL_SECONDS: Final = 0.05
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Watch:
    """Made before the fork; the child calls ``begin``, the parent ``wait``.

    Args:
        limit_bytes: longest input.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._shared = mmap.mmap(-1, _HEAD_BYTES + limit_bytes)
        self._number = 0

    def begin(self, data: bytes) -> None:
        """Say that work on an input, or on changing it, begins."""
        self._number += 1
        head = self._number.to_bytes(8, "little") + len(data).to_bytes(8, "little")
        self._shared[: _HEAD_BYTES + len(data)] = head + data

    def wait(self, child: int, folder: Path) -> tuple[int, float]:
        """The child's exit status and the processor seconds it used; an input over the limit is kept in ``folder``."""
        last, since = b"", 0.0
        while True:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            used, number = _processor_seconds(child), self._shared[:8]
            if number != last:
                last, since = number, used
            elif used > since + LIMIT_SECONDS:
                os.kill(child, signal.SIGKILL)
                data = self._shared[_HEAD_BYTES : _HEAD_BYTES + int.from_bytes(self._shared[8:_HEAD_BYTES], "little")]
                (folder / f"slow-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
                since = used
            time.sleep(_POLL_SECONDS)


def _processor_seconds(process: int) -> float:
    # Fields 14 and 15 of proc(5)'s stat; the second field, in parentheses, may hold spaces.
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
