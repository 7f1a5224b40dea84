"""Live events on their way from a committed write to the sockets and waiting devices of every web process.

One hub a process. ``publish_live`` may be called from any thread (worker threads live beside the web loop in
embedded mode): the event crosses into each subscriber's event loop by ``call_soon_threadsafe``, once per loop. With
several processes an event goes through one Redis channel and every web process holds one subscription to it.

Nothing is stored here: a subscriber that falls behind is closed and replays from the ledger, which is the truth.
"""

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from threading import Lock
from typing import Any, Final, Self

from django.conf import settings

logger = logging.getLogger(__name__)

Event = dict[str, Any]
CHANNEL: Final = "latticeward.live"
# A reader this far behind is better served by a replay than by a growing queue.
QUEUE_LIMIT: Final = 1000


class Subscription:
    """Events for one reader, from the moment it is made; iterate it, and ``close`` it."""

    def __init__(self, hub: "Hub", wanted: Callable[[Event], bool]) -> None:
        self._hub = hub
        self.wanted = wanted
        self.loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self.overrun = False

    def deliver(self, event: Event) -> None:
        """Queue one event; runs in this subscription's loop."""
        if len(self._events) >= QUEUE_LIMIT:
            self.overrun = True
        else:
            self._events.append(event)
        self._news.set()

    async def next(self, timeout: float | None = None) -> Event | None:
        """The next event; None after ``timeout`` seconds, or when the reader fell too far behind."""
        while not self._events:
            if self.overrun:
                return None
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), timeout)
            except TimeoutError:
                return None
        return self._events.popleft()

    def end(self) -> None:
        """Let the reader go: it gets what has arrived and then nothing more."""
        self.overrun = True
        self._news.set()

    def drain(self) -> None:
        """Forget what has arrived so far (the reader is about to look at the present state anyway)."""
        self._events.clear()

    def close(self) -> None:
        self._hub.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.next()) is not None:
            yield event


class Hub:
    """All subscriptions of this process."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._lock = Lock()

    def subscribe(self, wanted: Collection[str] | Callable[[Event], bool]) -> Subscription:
        """Begin to listen, to the named feeds or to what a predicate accepts. Needs a running event loop."""
        if callable(wanted):
            predicate = wanted
        else:
            feeds = frozenset(wanted)

            def predicate(event: Event) -> bool:
                return event["feed"] in feeds

        subscription = Subscription(self, predicate)
        with self._lock:
            self._subscriptions.add(subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)

    def end(self) -> None:
        """Let all readers go, because the server stops; callable from any thread."""
        with self._lock:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            with contextlib.suppress(RuntimeError):  # its loop has ended already
                subscription.loop.call_soon_threadsafe(subscription.end)

    def dispatch(self, event: Event) -> None:
        """Hand an event to every subscriber that wants it; callable from any thread."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Subscription]] = {}
        with self._lock:
            for subscription in self._subscriptions:
                if subscription.wanted(event):
                    by_loop.setdefault(subscription.loop, []).append(subscription)
        for loop, subscriptions in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, subscriptions, event)
            except RuntimeError:  # the loop has ended; its readers are gone with it
                for subscription in subscriptions:
                    self.remove(subscription)


def _deliver(subscriptions: list[Subscription], event: Event) -> None:
    for subscription in subscriptions:
        subscription.deliver(event)


hub: Final = Hub()


def publish_live(events: Sequence[Event]) -> None:
    """Broadcast the events of one commit, in one message."""
    if not settings.LIVE_URL:
        for event in events:
            hub.dispatch(event)
        return
    try:
        redis_client().publish(CHANNEL, json.dumps(events, separators=(",", ":")))
    except Exception:
        # The write stands and the ledger has it: readers catch up by replay. Losing the whole request would be worse.
        logger.exception("%d live events of feed %s could not be sent", len(events), events[0]["feed"])


_client: Any = None
_client_lock: Final = Lock()


def redis_client() -> Any:
    """The process's connection pool to the Redis that all processes share; only where ``LIVE_URL`` is set."""
    global _client
    # Two threads that came first would make two, and the one that is not kept closes the other thread's connection.
    with _client_lock:
        if _client is None:
            import redis

            _client = redis.Redis.from_url(settings.LIVE_URL, socket_timeout=2)
        return _client


async def listen() -> None:
    """Feed this process's hub from the shared channel, for ever; reconnects. Started by the web server."""
    import redis.asyncio

    while True:
        try:
            async with redis.asyncio.Redis.from_url(settings.LIVE_URL) as client, client.pubsub() as pubsub:
                await pubsub.subscribe(CHANNEL)
                async for message in pubsub.listen():
                    if message["type"] == "message":
                        for event in json.loads(message["data"]):
                            hub.dispatch(event)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("the live channel broke; reconnecting")
            await asyncio.sleep(1)
