"""An HTTP answer that must come to an end: a limit on the whole of it, not only on each silence.

The time limit of a socket begins anew with every byte. A server that sends one now and then, broken or bad, would hold
its agent for ever, and with it the rounds and the renewal of its keys.
"""

import http.client
import io
import socket
import time
from typing import Any, Final

# A second more for each so many bytes that have come, as at the server's own door: a slow line gets through.
SLOWEST_BYTES_PER_SECOND: Final = 8 * 1024


class TimedAnswer(http.client.HTTPResponse):
    """An answer whose status line, header and body are there in time, or not at all.

    Args:
        sock: the connection.
        seconds: how long the server may be silent, and how long the answer may take if it is short.
        limit_bytes: for no more than so many bytes is there a second more.

    Reading raises TimeoutError when the time is over.
    """

    def __init__(self, sock: socket.socket, *, seconds: float, limit_bytes: int, **others: Any) -> None:
        super().__init__(sock, **others)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedSocket(sock, seconds, limit_bytes))


class _TimedSocket(io.RawIOBase):
    """What can be read from a socket until its time is over."""

    def __init__(self, sock: socket.socket, seconds: float, limit_bytes: int) -> None:
        self._socket = sock
        # Keeps the connection open for as long as the answer is read.
        self._bytes = sock.makefile("rb", buffering=0)
        self._silence = seconds
        self._until = time.monotonic() + seconds
        self._latest = self._until + limit_bytes / SLOWEST_BYTES_PER_SECOND

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer comes too slowly")
        self._socket.settimeout(min(left, self._silence))
        count = self._bytes.readinto(buffer)
        self._until = min(self._until + (count or 0) / SLOWEST_BYTES_PER_SECOND, self._latest)
        return count

    def close(self) -> None:
        self._bytes.close()
        super().close()
