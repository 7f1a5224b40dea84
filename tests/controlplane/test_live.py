"""Events cross from any thread to every loop that listens, in order, and a slow reader is told."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from controlplane import live
from controlplane.live import QUEUE_LIMIT, Event, Hub
from controlplane.shared_cache import SharedCache


def event(seq: int, feed: str = "a") -> Event:
    return {"v": 1, "feed": feed, "seq": seq, "type": "round.opened", "at": "", "subject": {}, "data": {}}


def test_an_event_from_another_thread_reaches_the_loop_at_once_and_in_order() -> None:
    hub = Hub()

    async def listen() -> list[int]:
        with hub.subscribe(["a"]) as subscription:
            threading.Thread(target=lambda: [hub.dispatch(event(seq)) for seq in range(50)]).start()
            received = [await subscription.next(5) for _ in range(50)]
        return [item["seq"] for item in received if item]

    assert asyncio.run(listen()) == list(range(50))


def test_only_the_feeds_that_were_asked_for_arrive() -> None:
    hub = Hub()

    async def listen() -> Event | None:
        with hub.subscribe(["b"]) as subscription:
            hub.dispatch(event(1, "a"))
            hub.dispatch(event(2, "b"))
            return await subscription.next(5)

    received = asyncio.run(listen())
    assert received is not None and received["seq"] == 2


def test_waiting_ends_without_news() -> None:
    hub = Hub()

    async def listen() -> Event | None:
        with hub.subscribe(["a"]) as subscription:
            return await subscription.next(0.01)

    assert asyncio.run(listen()) is None


def test_a_reader_that_falls_behind_is_overrun_instead_of_filling_the_memory() -> None:
    hub = Hub()

    async def listen() -> tuple[int, bool]:
        with hub.subscribe(["a"]) as subscription:
            for seq in range(QUEUE_LIMIT + 10):
                hub.dispatch(event(seq))
            await asyncio.sleep(0)
            received = 0
            while await subscription.next(0.01) is not None:
                received += 1
            return received, subscription.overrun

    assert asyncio.run(listen()) == (QUEUE_LIMIT, True)


def test_a_closed_subscription_hears_nothing() -> None:
    hub = Hub()

    async def listen() -> Event | None:
        subscription = hub.subscribe(["a"])
        subscription.close()
        hub.dispatch(event(1))
        return await subscription.next(0.01)

    assert asyncio.run(listen()) is None


def test_threads_that_come_first_together_share_one_connection_pool(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    made = []

    def slow(url: str, **options: object) -> object:
        time.sleep(0.02)
        made.append(url)
        return object()

    settings.LIVE_URL = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(live, "_client", None)
    monkeypatch.setattr(redis.Redis, "from_url", slow)
    with ThreadPoolExecutor(8) as threads:
        clients = list(threads.map(lambda _: live.redis_client(), range(8)))
    assert len(made) == 1 and len({id(client) for client in clients}) == 1


def test_the_shared_cache_asks_on_the_processs_one_client(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Client:
        def __init__(self) -> None:
            made.append(self)
            self.kept: dict[str, object] = {}

        def set(self, key: str, value: object, **_: object) -> bool:
            self.kept[key] = value
            return True

        def get(self, key: str) -> object:
            return self.kept[key]

    settings.LIVE_URL = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(live, "_client", None)
    monkeypatch.setattr(redis.Redis, "from_url", lambda url, **options: Client())
    cache = SharedCache(settings.LIVE_URL, {})
    cache.add("limit", 7)
    assert cache.get("limit") == 7
    assert made == [live.redis_client()]
