"""The raw ASGI door of enrolled devices: authenticates, bounds and streams, then calls one function a route.

Beside Django rather than in it, for three reasons: a body must be hashed while it streams and refused before it is
read whole, long polls must wait without holding a thread, and a device asks so often that the framework's request
object would be most of the cost (docs/adr/0005-raw-asgi-door.md). What it answers is described in docs/protocol.md;
errors are the same problem documents as everywhere.
"""

import asyncio
import hashlib
import json
import logging
import math
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from django.db import close_old_connections

from controlplane.addresses import client_address
from controlplane.errors import PROBLEM_TYPE, headers_of, problem, problem_of
from devices.authentication import Admit, Asked
from devices.models import Device
from latticeward.crypto.httpsig import RequestFacts, VerifiedRequest, verify_body_digest
from latticeward.errors import (
    LatticewardError,
    MalformedMessageError,
    MessageTooLargeError,
    NotFoundError,
    SlowRequestError,
)
from rounds.gate import Arrival, Gate

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

logger = logging.getLogger(__name__)

# A body may take this long, and a second more for each so many bytes of it that have come: a slow line gets through,
# and one that drips to hold a place does not. Nor does one that pauses for this long, however much had come before.
BODY_SECONDS: Final = 30.0
SLOWEST_BYTES_PER_SECOND: Final = 8 * 1024
LONGEST_WAIT_SECONDS: Final = 25.0
SMALL_BODY_BYTES: Final = 64 * 1024
# What one answer holds in memory of a large body, beside what the transport has not sent yet.
PIECE_BYTES: Final = 1024 * 1024
_UUID: Final = r"(?P<id>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
# Made once: with separators of our own, ``json.dumps`` makes an encoder for every answer.
_compact: Final = json.JSONEncoder(separators=(",", ":")).encode
# Database work of the door; each thread keeps its own connection.
_threads: Final = ThreadPoolExecutor(max_workers=8, thread_name_prefix="door")


async def in_thread(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Run blocking work of the door in its threads."""

    def call() -> Any:
        try:
            return function(*arguments, **named)
        finally:
            close_old_connections()  # a pooled connection goes back, an embedded one stays open

    return await asyncio.get_running_loop().run_in_executor(_threads, call)


@dataclass(slots=True)
class Reply:
    """An answer: bytes with their type, or a problem. A mapped body is sent piece by piece and never held whole."""

    status: int
    body: bytes | memoryview
    content_type: str = "application/json"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @classmethod
    def json(cls, value: Any, status: int = 200) -> "Reply":
        return cls(status, _compact(value).encode())

    @classmethod
    def cbor(cls, raw: bytes, status: int = 200) -> "Reply":
        return cls(status, raw, "application/cbor")

    @classmethod
    def problem(cls, status: int, body: dict[str, Any]) -> "Reply":
        reply = cls(status, _compact(body).encode(), PROBLEM_TYPE)
        if status == 401:
            reply.headers.append((b"www-authenticate", b"Signature"))
        elif status == 408:
            reply.headers.append((b"connection", b"close"))  # what is left of the body must not be taken for a request
        return reply


class HungUp(Exception):
    """The device went away in the middle of its request: nothing is refused, and nobody is there to be answered."""


class Body:
    """A request body that is read only on demand and never past its limit."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._ended = False
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        self.declared_bytes = int(lengths[0]) if lengths and lengths[0].isdigit() else None

    def require_declared_within(self, limit_bytes: int) -> None:
        """Refuse by the declared length, before a byte is read.

        Raises:
            MessageTooLargeError
        """
        if self.declared_bytes is not None and self.declared_bytes > limit_bytes:
            raise MessageTooLargeError(f"declared {self.declared_bytes} bytes, the limit is {limit_bytes}")

    async def chunks(self, limit_bytes: int) -> Any:
        """Yield the pieces as they arrive.

        Raises:
            MessageTooLargeError: by the declared length before a byte is read, or as soon as the limit is passed.
            SlowRequestError: it came more slowly than a line that works.
            HungUp: the connection ended before the body.
        """
        self.require_declared_within(limit_bytes)
        read = 0
        began = asyncio.get_running_loop().time()
        while not self._ended:
            try:
                pause_until = asyncio.get_running_loop().time() + BODY_SECONDS
                whole_until = began + BODY_SECONDS + read / SLOWEST_BYTES_PER_SECOND
                async with asyncio.timeout_at(min(pause_until, whole_until)):
                    message = await self._receive()
            except TimeoutError as error:
                raise SlowRequestError(f"{read} bytes of the body had come when its time was over") from error
            if message["type"] == "http.disconnect":
                raise HungUp
            self._ended = not message.get("more_body", False)
            piece = message.get("body", b"")
            read += len(piece)
            if read > limit_bytes:
                raise MessageTooLargeError(f"more than {limit_bytes} bytes")
            if piece:
                yield piece

    async def whole(self, limit_bytes: int = SMALL_BODY_BYTES) -> bytes:
        """The whole of a small body."""
        return b"".join([piece async for piece in self.chunks(limit_bytes)])


@dataclass(slots=True)
class Call:
    """One authenticated request on its way to its route."""

    device: Device
    facts: RequestFacts
    body: Body
    request: VerifiedRequest
    id: str
    query: dict[str, list[str]]

    def wait_seconds(self) -> float:
        """How long the device lets us wait for news, within our own bound."""
        raw = self.query.get("wait", ["0"])[0]
        try:
            seconds = float(raw)
        except ValueError as error:
            raise MalformedMessageError("wait is a number of seconds") from error
        if math.isnan(seconds):  # it passes every bound, and no clock reaches it
            raise MalformedMessageError("wait is a number of seconds")
        return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


Route = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the routing table."""

    method: str
    template: str
    route: Route
    admit: Admit
    pattern: re.Pattern[str]


def path(method: str, template: str, route: Route, *, admit: Admit = Admit.ACTIVE) -> Entry:
    """A row for ``template``, in which ``<id>`` stands for a UUID.

    Args:
        admit: whose requests it takes.
    """
    return Entry(method, template, route, admit, re.compile(template.replace("<id>", _UUID) + r"\Z"))


def bounded(inner: Callable[..., Awaitable[None]], limit_bytes: int) -> Callable[..., Awaitable[None]]:
    """Refuse large bodies before Django, which spools every body to the disk whole before it looks at the address."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > limit_bytes:
            error = MessageTooLargeError(f"declared more than {limit_bytes} bytes")
            await _send(send, Reply.problem(*problem_of(error)))
            return
        read = 0

        async def counted() -> dict[str, Any]:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return message if read <= limit_bytes else {"type": "http.disconnect"}

        await inner(scope, counted, send)

    return serve


class Door:
    """An ASGI application that serves its routes and passes everything else on."""

    def __init__(self, entries: list[Entry], otherwise: Callable[..., Awaitable[None]]) -> None:
        self._entries = entries
        self._otherwise = otherwise
        self._gate = Gate(in_thread)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        matched = [(entry, found) for entry in self._entries if (found := entry.pattern.match(scope["path"]))]
        if not matched:
            await self._otherwise(scope, receive, send)
            return
        for entry, found in matched:
            if entry.method == scope["method"]:
                await self._serve(entry, found.groupdict().get("id", ""), scope, receive, send)
                return
        reply = Reply.problem(
            *problem(405, "method_not_allowed", "This address does not take this method.", retryable=False)
        )
        reply.headers.append((b"allow", ", ".join(entry.method for entry, _ in matched).encode()))
        await _send(send, reply)

    async def _serve(self, entry: Entry, identity: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._answer(entry, identity, scope, receive)
        except HungUp:
            return
        except LatticewardError as error:
            reply = Reply.problem(*problem_of(error))
            reply.headers += [(name.lower().encode(), value.encode()) for name, value in headers_of(error).items()]
        except Exception:
            # A fault of ours: the device gets the same kind of answer as for every other refusal, the log the rest.
            status, body = problem_of(LatticewardError("the door failed"))
            logger.exception("%s: %s %s failed", body["instance"], scope["method"], scope["path"])
            reply = Reply.problem(status, body)
        await _send(send, reply)

    async def _answer(self, entry: Entry, identity: str, scope: Scope, receive: Receive) -> Reply:
        facts = facts_of(scope)
        verified = await self._gate.admit(Arrival(Asked(facts, entry.admit), _address_of(scope, facts)))
        call = Call(
            device=verified.device,
            facts=facts,
            body=Body(scope, receive),
            request=verified.request,
            id=identity,
            query=_parsed(facts.query),
        )
        return await entry.route(call)


def _address_of(scope: Scope, facts: RequestFacts) -> str:
    forwarded = ",".join(value for name, value in facts.headers if name == "x-forwarded-for")
    return client_address((scope.get("client") or ("",))[0], forwarded)


def _parsed(query: str) -> dict[str, list[str]]:
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=16)
    except ValueError as error:
        raise MalformedMessageError("the query has too many fields") from error


def facts_of(scope: Scope) -> RequestFacts:
    """What a signature can cover of an ASGI request."""
    try:
        headers = [(name.decode("ascii"), value.decode("ascii")) for name, value in scope["headers"]]
        raw_path = scope.get("raw_path") or scope["path"].encode()
        authority = next((value for name, value in headers if name == "host"), "")
        return RequestFacts.make(
            scope["method"], authority, raw_path.decode("ascii"), scope["query_string"].decode("ascii"), headers
        )
    except UnicodeDecodeError as error:
        raise MalformedMessageError("a header or the address is not plain ASCII") from error


async def _send(send: Send, reply: Reply) -> None:
    headers = [
        (b"content-type", reply.content_type.encode()),
        (b"content-length", str(len(reply.body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if isinstance(reply.body, bytes):
        await send({"type": "http.response.body", "body": reply.body})
        return
    for start in range(0, len(reply.body), PIECE_BYTES):
        # Read in a thread: the pages may still be on the disk, and the loop serves everybody.
        piece = await in_thread(bytes, reply.body[start : start + PIECE_BYTES])
        more = start + PIECE_BYTES < len(reply.body)
        await send({"type": "http.response.body", "body": piece, "more_body": more})


async def small_json(call: Call) -> dict[str, Any]:
    """The JSON object of a small body whose digest was signed; an empty body is an empty object.

    Raises:
        MalformedMessageError, MessageTooLargeError, SlowRequestError, WrongContextError
    """
    raw = await call.body.whole()
    verify_body_digest(call.request, hashlib.sha256(raw).digest())
    try:
        value = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError("the body is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedMessageError("the body is not a JSON object")
    return value


def missing(kind: str) -> NotFoundError:
    """There is no such thing for this device: what it may not see does not exist for it."""
    return NotFoundError(f"no such {kind} for this device")
