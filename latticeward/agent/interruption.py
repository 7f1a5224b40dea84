"""Stopping at once, and never in the middle of a thought.

A signal may raise only while the agent waits for somebody else (a long-poll, a pause, an upload): there everything that
matters is already on the disk. Anywhere else it is remembered and honoured at the next wait.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequested(BaseException):
    """The operator asked the agent to stop. Not an error: no handler of errors may swallow it."""


class Interruption:
    """Remembers a request to stop, and raises it where waiting is going on."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._waiting = False

    def install(self) -> None:
        """Take SIGTERM and SIGINT; only the main thread may call this."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def request(self) -> None:
        """Ask for a stop without a signal, from any thread."""
        self._requested.set()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within this block a signal raises at once; a stop asked for earlier raises on entry.

        Raises:
            StopRequested
        """
        # The order matters: a signal between these two lines is seen by the second.
        self._waiting = True
        try:
            if self._requested.is_set():
                raise StopRequested
            yield
        finally:
            self._waiting = False

    def pause(self, seconds: float) -> None:
        """Sleep, unless a stop is asked for.

        Raises:
            StopRequested
        """
        with self.waiting():
            if self._requested.wait(seconds):
                raise StopRequested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._requested.set()
        if self._waiting:
            raise StopRequested
