"""SQLite for embedded mode: one writer at a time, in order, without polling for the file lock.

SQLite lets one connection write. Left to itself a second writer sleeps and retries (up to 100 ms a try), which is
felt in every round when worker threads and web requests write together. All of them live in one process in embedded
mode, so a process-wide lock taken with BEGIN IMMEDIATE queues them and wakes the next at once; the busy timeout stays
for other processes (a management command beside a running server).
"""

import threading
from typing import Any

from django.db.backends.sqlite3 import base

_writer = threading.Lock()


class DatabaseWrapper(base.DatabaseWrapper):
    """The ordinary SQLite wrapper with the writer queue around its transactions."""

    _holds_writer = False

    def _start_transaction_under_autocommit(self) -> None:
        _writer.acquire()
        self._holds_writer = True
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._release_writer()
            raise

    def _commit(self) -> Any:
        # A failed commit keeps the transaction (Django rolls back next), so the lock is released only on success.
        result = super()._commit()  # type: ignore[misc]
        self._release_writer()
        return result

    def _rollback(self) -> Any:
        try:
            return super()._rollback()  # type: ignore[misc]
        finally:
            self._release_writer()

    def _close(self) -> Any:
        try:
            return super()._close()  # type: ignore[misc]
        finally:
            self._release_writer()

    def _release_writer(self) -> None:
        if self._holds_writer:
            self._holds_writer = False
            _writer.release()
