"""The websocket of live pages: rights, replay, order, and nothing lost or told twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from channels.security.websocket import OriginValidator
from django.contrib.auth.models import AnonymousUser, User
from django.test import Client
from django.urls import path

from controlplane.audit.models import AuditEntry
from controlplane.audit.services import as_live_event
from controlplane.live import QUEUE_LIMIT, hub
from devices.models import Device, Site
from frontend import consumers
from frontend.consumers import LiveConsumer, encode_event
from rounds.models import Round, Training
from tests.frontend import scene
from tests.frontend.page_socket import PageSocket

pytestmark = pytest.mark.django_db(transaction=True)

ROUTES = URLRouter([path("ws/live", LiveConsumer.as_asgi())])


@pytest.fixture
def training(transactional_db: None) -> Training:
    return scene.make_training(scene.make_federation())


@pytest.fixture
def current(training: Training) -> Round:
    return scene.open_round(training)


@asynccontextmanager
async def connected(user: Any, topics: str) -> AsyncIterator[PageSocket]:
    page = PageSocket(ROUTES, f"/ws/live?topics={topics}", user)
    assert await page.connect()
    try:
        yield page
    finally:
        await page.leave()


async def hear(page: PageSocket, count: int) -> list[dict[str, Any]]:
    return [await page.hear() for _ in range(count)]


async def hear_until_ready(page: PageSocket) -> list[dict[str, Any]]:
    heard = []
    while (message := await page.hear())["type"] != "ready":
        heard.append(message)
    return heard


async def test_it_replays_what_a_page_missed_in_order_and_then_is_live(operator: User, current: Round) -> None:
    async with connected(operator, f"round:{current.id}@1") as page:
        missed = await hear_until_ready(page)
        assert [event["type"] for event in missed] == ["round.recruiting"]
        await sync_to_async(scene.join_all)(current)
        live = await hear(page, 5)
        assert [event["seq"] for event in live] == [3, 4, 5, 6, 7]
        assert [event["type"] for event in live] == ["participant.joined"] * 4 + ["round.collecting"]
        assert set(live[0]) == {"v", "feed", "seq", "type", "at", "subject", "data"}


async def test_an_up_to_date_page_is_ready_at_once(operator: User, current: Round) -> None:
    async with connected(operator, f"round:{current.id}@2") as page:
        assert await hear_until_ready(page) == []


async def test_events_of_other_rounds_stay_silent(operator: User, training: Training, current: Round) -> None:
    async with connected(operator, f"round:{current.id}@2") as page:
        await hear_until_ready(page)
        await sync_to_async(scene.open_round)(training)
        assert await page.receive_nothing(timeout=0.2)


async def test_rounds_opened_later_come_with_their_training(operator: User, training: Training, current: Round) -> None:
    async with connected(operator, f"round:{current.id}@2,training:{training.id}@1") as page:
        assert await hear_until_ready(page) == []
        following = await sync_to_async(scene.open_round)(training)
        events = await hear(page, 2)
        assert [event["feed"] for event in events] == [f"round:{following.id}"] * 2
        assert [event["seq"] for event in events] == [1, 2]


async def test_rounds_opened_while_away_are_replayed(operator: User, training: Training, current: Round) -> None:
    following = await sync_to_async(scene.open_round)(training)
    async with connected(operator, f"round:{current.id}@2,training:{training.id}@1") as page:
        missed = await hear_until_ready(page)
        assert [(event["feed"], event["seq"]) for event in missed] == [(following.feed, 1), (following.feed, 2)]


async def test_an_event_that_comes_twice_is_told_once(operator: User, current: Round) -> None:
    async with connected(operator, f"round:{current.id}@1") as page:
        missed = await hear_until_ready(page)
        hub.dispatch(missed[0])
        assert await page.receive_nothing(timeout=0.2)


async def test_events_announced_in_the_wrong_order_are_told_in_the_right_one(
    operator: User, current: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(operator, f"round:{current.id}@2") as page:
        await hear_until_ready(page)
        monkeypatch.setattr("controlplane.audit.services.publish_live", lambda events: None)
        await sync_to_async(scene.join_all)(current)
        entries = [entry async for entry in AuditEntry.objects.filter(feed=current.feed, feed_seq__in=(4, 3))]
        for entry in sorted(entries, key=lambda entry: -entry.feed_seq):
            hub.dispatch(as_live_event(entry))
        assert [event["seq"] for event in await hear(page, 5)] == [3, 4, 5, 6, 7]
        assert await page.receive_nothing(timeout=0.2)


async def test_a_page_that_missed_too_much_is_told_to_load_again(
    operator: User, current: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "REPLAY_LIMIT", 1)
    async with connected(operator, f"round:{current.id}@0") as page:
        reset, ready = await hear(page, 2)
        assert reset == {"type": "reset", "feeds": {current.feed: 2}, "trainings": {}}
        assert ready == {"type": "ready"}


@pytest.mark.parametrize(
    "topics", ["", "round:nonsense@1", "federation:@1", "secret:00000000-0000-0000-0000-000000000000@1", "round@x"]
)
async def test_bad_topics_are_refused(operator: User, topics: str) -> None:
    async with connected(operator, topics) as page:
        assert await page.close_code() == consumers.BAD_TOPICS


async def test_anonymous_people_are_refused(current: Round) -> None:
    async with connected(AnonymousUser(), f"round:{current.id}@0") as page:
        assert await page.close_code() == consumers.SIGN_IN_AGAIN


async def test_people_without_a_role_are_refused(stranger: User, current: Round) -> None:
    async with connected(stranger, f"round:{current.id}@0") as page:
        assert await page.close_code() == consumers.NO_RIGHT


async def test_other_sites_are_refused(operator: User, current: Round) -> None:
    guarded = OriginValidator(ROUTES, ["here.example"])
    headers = [(b"origin", b"https://elsewhere.example")]
    page = PageSocket(guarded, f"/ws/live?topics=round:{current.id}@0", operator, headers)
    assert not await page.connect()


async def test_clinicians_hear_of_rounds_and_not_of_devices(clinician: User, training: Training) -> None:
    feed = training.federation.feed
    site = await Site.objects.aget(name="Hungary")
    async with connected(clinician, f"{feed}@0") as page:
        assert {event["type"].split(".")[0] for event in await hear_until_ready(page)} == {"training"}
        waiting: Device = await sync_to_async(scene.ask_to_enrol)(site, "edge-new")
        assert await page.receive_nothing(timeout=0.2)
        assert waiting.site_id == site.id


async def test_a_lost_role_ends_the_feed(operator: User, current: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "HEARTBEAT_SECONDS", 0.05)
    async with connected(operator, f"round:{current.id}@2") as page:
        await hear_until_ready(page)
        assert (await hear(page, 1))[0] == {"type": "alive"}
        await sync_to_async(operator.groups.clear)()
        del operator._latticeward_roles  # type: ignore[attr-defined]
        while (message := await page.receive_output(timeout=3))["type"] == "websocket.send":
            assert message["text"] == '{"type":"alive"}'
        assert message["code"] == consumers.SIGN_IN_AGAIN


async def test_signing_out_elsewhere_ends_the_feed(
    operator: User, current: Round, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "HEARTBEAT_SECONDS", 0.05)
    await sync_to_async(client.force_login)(operator)
    session = await sync_to_async(lambda: client.session)()
    page = PageSocket(ROUTES, f"/ws/live?topics=round:{current.id}@2", operator, session=session)
    assert await page.connect()
    await hear_until_ready(page)
    assert await page.hear() == {"type": "alive"}
    await sync_to_async(client.logout)()
    while (message := await page.receive_output(timeout=3))["type"] == "websocket.send":
        assert message["text"] == '{"type":"alive"}'
    assert message["code"] == consumers.SIGN_IN_AGAIN
    await page.leave()


async def test_a_reader_who_is_too_slow_is_closed(
    operator: User, current: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = asyncio.Event()

    async def never(self: LiveConsumer, **_: Any) -> None:
        if stuck.is_set():
            await asyncio.sleep(60)

    monkeypatch.setattr(consumers, "SEND_SECONDS", 0.1)
    monkeypatch.setattr(LiveConsumer, "send", never)
    async with connected(operator, f"round:{current.id}@2") as page:
        await asyncio.sleep(0.2)
        stuck.set()
        last = await AuditEntry.objects.filter(feed=current.feed).order_by("-feed_seq").afirst()
        assert last is not None
        event = as_live_event(last)
        for place in range(QUEUE_LIMIT + 10):
            hub.dispatch({**event, "seq": event["seq"] + 1 + place})
        assert await page.close_code() == consumers.TOO_SLOW


async def test_an_event_is_written_as_text_once_for_all_pages(operator: User, current: Round) -> None:
    entry = await AuditEntry.objects.filter(feed=current.feed).order_by("feed_seq").afirst()
    assert entry is not None
    event = as_live_event(entry)
    assert encode_event(event) is encode_event(dict(event))
