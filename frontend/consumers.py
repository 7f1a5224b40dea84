"""The websocket of live pages: what was missed, then ``ready``, then events as they are committed.

Order and completeness, in the order of the code:

1. Subscribe first, so that nothing committed from now on can be missed.
2. Replay from the ledger what the page has not shown.
3. Send ``{"type": "ready"}``; then pass on the subscription, feed by feed in numbers without gap: an event that was
   sent already is dropped, and when a number is missing (two commits may be announced in the other order) the gap is
   filled from the ledger first.

A page that missed too much is told ``{"type": "reset"}`` with the present numbers and loads itself again. A reader who
is too slow is closed: a replay serves it better than a queue. Rights are looked up again at every heartbeat.
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from importlib import import_module
from typing import Final
from urllib.parse import parse_qs

from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db.models import Max

from controlplane.audit.models import AuditEntry
from controlplane.audit.selectors import events_since
from controlplane.live import Event, Subscription, hub
from controlplane.permissions import Role, roles_of
from frontend.topics import Topics, may_hear, parse_topics
from latticeward.errors import MalformedMessageError
from rounds.models import Round

logger = logging.getLogger(__name__)

# Close codes, read by live.js: after the first three a new try cannot help.
SIGN_IN_AGAIN: Final = 4401
NO_RIGHT: Final = 4403
BAD_TOPICS: Final = 4400
TOO_SLOW: Final = 4408
BROKEN: Final = 1011
HEARTBEAT_SECONDS: Final = 20.0
SEND_SECONDS: Final = 10.0
REPLAY_LIMIT: Final = 500
_ENCODED_LIMIT: Final = 512

_SessionStore = import_module(settings.SESSION_ENGINE).SessionStore
_encoded: OrderedDict[tuple[str, int], str] = OrderedDict()


def encode_event(event: Event) -> str:
    """The event as text, made once a process however many pages listen; call it from the event loop only."""
    key = (event["feed"], event["seq"])
    text = _encoded.get(key)
    if text is None:
        text = _encoded[key] = json.dumps(event, separators=(",", ":"))
        if len(_encoded) > _ENCODED_LIMIT:
            _encoded.popitem(last=False)
    return text


class LiveConsumer(AsyncWebsocketConsumer):
    """One live page of one signed-in person."""

    topics: Topics
    roles: frozenset[Role]
    subscription: Subscription | None = None
    pump: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        # Accepted before it is refused: a browser shows the page no close code of a socket that never opened.
        await self.accept()
        user = self.scope.get("user")
        self.roles = await self._present_roles()
        if not self.roles:
            await self.close(NO_RIGHT if user is not None and user.is_authenticated else SIGN_IN_AGAIN)
            return
        try:
            query = parse_qs(self.scope.get("query_string", b"").decode("ascii", "replace"))
            self.topics = parse_topics(",".join(query.get("topics", [])))
        except MalformedMessageError:
            await self.close(BAD_TOPICS)
            return
        self.subscription = hub.subscribe(self.topics.wants)  # 1.
        self.pump = asyncio.create_task(self._pump(self.subscription))

    async def disconnect(self, code: int) -> None:
        if self.subscription is not None:
            self.subscription.close()
        if self.pump is not None:
            self.pump.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pages only listen; what they send is ignored."""

    async def _pump(self, subscription: Subscription) -> None:
        try:
            await self._replay()  # 2.
            await self._send('{"type":"ready"}')  # 3.
            checked_at = time.monotonic()
            while not subscription.overrun:
                event = await subscription.next(HEARTBEAT_SECONDS)
                if event is not None:
                    await self._pass_on(event)
                elif not subscription.overrun:
                    await self._send('{"type":"alive"}')
                if time.monotonic() - checked_at >= HEARTBEAT_SECONDS:
                    checked_at = time.monotonic()
                    self.roles = await self._present_roles()
                    if not self.roles:
                        await self.close(SIGN_IN_AGAIN)
                        return
            await self.close(TOO_SLOW)
        except TimeoutError:
            await self.close(TOO_SLOW)
        except Exception:  # a page that hears nothing more must know it: closed, it tries again and says so
            logger.exception("the live feed of a page broke")
            await self.close(BROKEN)

    async def _replay(self) -> None:
        missed = await database_sync_to_async(self._missed)()
        if missed is None:
            present = {"feeds": self.topics.feeds, "trainings": self.topics.trainings}
            await self._send(json.dumps({"type": "reset", **present}, separators=(",", ":")))
            return
        for event in missed:
            await self._deliver(event)

    def _missed(self) -> list[Event] | None:
        """Events after the page's numbers, feed by feed; None (with the present numbers set) if there are too many."""
        for training, known in self.topics.trainings.items():
            newer = Round.objects.filter(training_id=training, number__gt=known).order_by("number")
            for identity, number in newer.values_list("id", "number")[:REPLAY_LIMIT]:
                self.topics.feeds.setdefault(f"round:{identity}", 0)
                self.topics.trainings[training] = number
        missed: list[Event] = []
        for feed, since in list(self.topics.feeds.items()):
            missed += events_since(feed, since)
            if len(missed) > REPLAY_LIMIT:
                latest = AuditEntry.objects.filter(feed__in=self.topics.feeds).values_list("feed")
                self.topics.feeds.update(dict(latest.annotate(last=Max("feed_seq"))))
                return None
        return missed

    async def _pass_on(self, event: Event) -> None:
        feed, number = event["feed"], event["seq"]
        sent = self.topics.feeds.get(feed, 0)
        if number <= sent:
            return
        if number == sent + 1:
            await self._deliver(event)
            return
        for earlier in await database_sync_to_async(events_since)(feed, sent):
            await self._deliver(earlier)

    async def _deliver(self, event: Event) -> None:
        self.topics.feeds[event["feed"]] = event["seq"]
        if may_hear(self.roles, event["type"]):
            await self._send(encode_event(event))

    async def _send(self, text: str) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await self.send(text_data=text)

    async def _present_roles(self) -> frozenset[Role]:
        """The person's roles as they stand now: signing out or losing a role ends the page's feed."""
        session = self.scope.get("session")
        user = self.scope.get("user")
        if session is not None:
            # Read anew: the scope keeps the session and the person as they were when the socket was opened.
            user = await get_user({"session": _SessionStore(session.session_key)})
        return await database_sync_to_async(roles_of)(user)
