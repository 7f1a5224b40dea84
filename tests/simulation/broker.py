"""A broker that does with messages whatever a test wants: deliver, lose, repeat, or let the worker die over them."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from celery.app.task import Task

from controlplane.celery import app

logger = logging.getLogger(__name__)
Message = tuple[str, tuple[Any, ...]]


class WorkerKilled(BaseException):
    """The worker's process has ended in the middle of a task; its message comes again."""


class Broker:
    """Takes what doors and tasks enqueue, and runs it when it is told to.

    Attributes:
        copies: how often each message is delivered; 0 loses it.
        away: queues whose worker does not run.
        done: how often each task ran to its end.
    """

    def __init__(self) -> None:
        self.copies = 1
        self.away: set[str] = set()
        self.done: Counter[str] = Counter()
        self._waiting: deque[Message] = deque()

    def put(self, name: str, args: tuple[Any, ...]) -> None:
        self._waiting.extend([(name, args)] * self.copies)

    def lose_all(self) -> None:
        """What waits is gone, as when an embedded server stops."""
        self._waiting.clear()

    def drain(self, before: Callable[[str], None] = lambda name: None) -> None:
        """Run what waits, and what that enqueues."""
        held: list[Message] = []
        while self._waiting:
            name, args = self._waiting.popleft()
            task = app.tasks[name]
            if app.amqp.router.route({}, name)["queue"].name in self.away:
                held.append((name, args))
                continue
            before(name)
            try:
                task.run(*args)
                self.done[name.rsplit(".", 1)[-1]] += 1
            except WorkerKilled:
                self._waiting.append((name, args))
            except Exception:
                logger.exception("%s failed", name)  # as in the product: the sweep finds what it left
        self._waiting.extend(held)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Everything that is enqueued comes here."""
        app.finalize(auto=True)

        def apply_async(task: Task, args: Any = None, kwargs: Any = None, **options: Any) -> None:
            assert not kwargs
            self.put(task.name, tuple(args or ()))

        with patch.object(Task, "apply_async", apply_async):
            yield
