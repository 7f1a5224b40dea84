"""Embedded mode: the Celery worker and its heartbeat as threads of the server process.

The same tasks, queues and retry rules as with a broker; only the messages stay in memory. What a stop loses of them,
``rounds.tasks.sweep`` finds again in the database at the next start.
"""

import logging
import threading
from typing import Any

from celery.beat import Scheduler, Service
from celery.worker import WorkController

from controlplane.celery import QUEUES, app

logger = logging.getLogger(__name__)


class EmbeddedWorker:
    """A worker and a beat thread that stop together."""

    def __init__(self) -> None:
        app.set_current()
        app.finalize()
        self._worker: Any = WorkController(
            app=app,
            pool_cls="threads",
            concurrency=app.conf.worker_concurrency,
            queues=list(QUEUES),
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
            loglevel=logging.WARNING,
            hostname="embedded@localhost",
        )
        self._beat: Any = Service(app, scheduler_cls=Scheduler, max_interval=1)
        self._threads = [
            threading.Thread(target=self._worker.start, name="worker", daemon=True),
            threading.Thread(target=self._beat.start, name="beat", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let running tasks finish, for a few seconds."""
        self._beat.stop()
        self._worker.stop()
        for thread in self._threads:
            thread.join(timeout=5)
