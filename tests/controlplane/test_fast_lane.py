"""The fast lane: the same view and the same bytes, without the framework around them."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.http import HttpRequest, HttpResponse

from controlplane import fast_lane
from controlplane.fast_lane import UUID_PATTERN, FastLane


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads of this test's own: those of the module may hold the database connection of another test."""
    with ThreadPoolExecutor(1) as own:
        monkeypatch.setattr(fast_lane, "_threads", own)
        yield


def echo(request: HttpRequest, word: str = "") -> HttpResponse:
    said = f"{request.method} {word} {request.headers.get('X-Word', '')}".encode() + request.body
    return HttpResponse(said, content_type="text/plain", headers={"ETag": '"1"'})


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a secret of the log")


async def otherwise(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"elsewhere"})


def show_id(request: HttpRequest, thing_id: UUID) -> HttpResponse:
    return HttpResponse(repr(thing_id))


LANE = FastLane(
    {f"/things/(?P<thing_id>{UUID_PATTERN})": show_id, "/echo": echo, "/echo/(?P<word>[a-z]+)": echo, "/fail": fail},
    otherwise=otherwise,
)


Answer = tuple[int, dict[str, str], bytes]


GONE = {"type": "http.disconnect"}


def converse(
    method: str, path: str, *incoming: dict[str, Any], query: bytes = b"", **headers: str
) -> list[dict[str, Any]]:
    """What the lane sends to whoever says this and then no more."""

    async def scene() -> list[dict[str, Any]]:
        coming, sent = list(incoming), list[dict[str, Any]]()

        async def receive() -> dict[str, Any]:
            if not coming:
                await asyncio.sleep(30)
            return coming.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": raw}
        await LANE(scope, receive, send)
        return sent

    return asyncio.run(scene())


def ask(method: str, path: str, *pieces: bytes, hang: bool = False, query: bytes = b"", **headers: str) -> Answer:
    incoming = [
        {"type": "http.request", "body": piece, "more_body": number + 1 < len(pieces) or hang}
        for number, piece in enumerate(pieces or (b"",))
    ]
    start, body = converse(method, path, *incoming, query=query, **headers)
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body["body"]


def test_an_id_in_the_address_comes_as_what_it_stands_for() -> None:
    thing = uuid4()
    assert ask("GET", f"/things/{thing}")[::2] == (200, repr(thing).encode())
    assert ask("GET", f"/things/{thing.hex}")[0] == 299


def test_a_view_in_the_lane_answers_as_it_stands_in_the_table() -> None:
    status, headers, body = ask("POST", "/echo", b"one ", b"two", x_word="hello")
    assert (status, body) == (200, b"POST  helloone two")
    assert headers["etag"] == '"1"' and headers["x-content-type-options"] == "nosniff"
    assert headers["content-length"] == str(len(body))
    assert ask("GET", "/echo/word")[2] == b"GET word "


@pytest.mark.parametrize(
    "nonsense", [{"query": b"a=\xff"}, {"content_type": "text/plain; x*=nope''abc"}], ids=["query", "content type"]
)
def test_a_request_that_cannot_be_read_is_refused_and_no_fault_of_ours(nonsense: dict[str, Any]) -> None:
    status, _, body = ask("POST", "/echo", b"one", **nonsense)
    assert (status, json.loads(body)["type"]) == (400, "malformed_message")


def test_every_other_address_goes_on() -> None:
    for path in ("/", "/echo/", "/echo/Word", "/echo/word/more", "/fail/"):
        assert ask("GET", path)[0] == 299


def test_a_body_past_the_limit_is_refused_and_one_at_the_limit_is_not() -> None:
    pieces = [bytes(4096)] * (fast_lane.BODY_LIMIT_BYTES // 4096)
    assert ask("POST", "/echo", *pieces)[0] == 200
    for never_ends in (False, True):
        status, headers, body = ask("POST", "/echo", *pieces, b"x", hang=never_ends)
        assert (status, json.loads(body)["type"]) == (413, "message_too_large")
        assert headers["connection"] == "close"


def test_a_body_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_lane, "BODY_SECONDS", 0.05)
    status, headers, body = ask("POST", "/echo", b"half", hang=True)
    assert (status, json.loads(body)["type"]) == (408, "request_too_slow")
    assert headers["connection"] == "close"


def test_whoever_hangs_up_in_the_middle_is_not_answered() -> None:
    assert converse("POST", "/echo", {"type": "http.request", "body": b"half", "more_body": True}, GONE) == []


def test_a_fault_is_a_500_without_its_reason() -> None:
    status, headers, body = ask("GET", "/fail")
    assert (status, headers["content-type"]) == (500, "application/problem+json")
    assert json.loads(body)["type"] == "error" and b"a secret of the log" not in body
