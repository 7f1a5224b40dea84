"""The HTTP transport against a real server on loopback that verifies every signature."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from latticeward import canonical
from latticeward.agent.config import AgentConfig
from latticeward.agent.identity import Identity, load_or_make_secrets
from latticeward.agent.interruption import Interruption, StopRequested
from latticeward.agent.transports.http import HttpTransport
from latticeward.agent.transports.http_client import HttpClient, retry_after_seconds
from latticeward.agent.work import decode_base64
from latticeward.crypto.httpsig import RequestFacts, verify_body_digest, verify_request
from latticeward.crypto.keys import AuthenticationVerifyKey, ClassicalVerifyKey
from latticeward.enrolment import FinishProofs
from latticeward.errors import (
    MalformedMessageError,
    NotAuthenticatedError,
    PermanentTransportError,
    TransientTransportError,
)
from latticeward.messages import RECORD_LIMIT_BYTES
from tests.latticeward.agent.fakes import identity_of
from tests.latticeward.peers import authority, device_keys

ROUND = "f0000000-0000-4000-8000-000000000001"


ISSUED = {"state": "active", "certificate_chain": ["AQI+"], "statement": "Aw"}


@dataclass
class Seen:
    method: str
    path: str
    query: str
    body: bytes
    key_id: str
    nonce: str
    headers: dict[str, str]
    connection: int


@dataclass
class Site:
    """A loopback server: answers by a function, and keeps what it saw."""

    answer: Callable[[Seen], tuple[int, bytes, str]] = lambda seen: (200, b"{}", "application/json")
    seen: list[Seen] = field(default_factory=list)
    close_after: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    cut_bytes: int = 0  # of the answer's body: promised and not sent
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            import hashlib

            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, _, query = self.path.partition("?")
            facts = RequestFacts.make(self.command, self.headers["Host"], path, query, self.headers.items())
            key_id = nonce = ""
            if self.headers.get("Signature"):
                request = verify_request(facts, resolve=resolve, now=datetime.now(UTC))
                if body:
                    verify_body_digest(request, hashlib.sha256(body).digest())
                key_id, nonce = request.key_id, request.nonce
            seen = Seen(
                self.command, path, query, body, key_id, nonce, dict(self.headers.items()), self.client_address[1]
            )
            state.seen.append(seen)
            status, content, kind = state.answer(seen)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content) + state.cut_bytes))
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            # What an idle time limit does: the answer said nothing of it.
            self.close_connection = state.close_after or state.cut_bytes > 0

        do_GET = do_POST = _serve

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def resolve(key_id: str) -> tuple[AuthenticationVerifyKey, ClassicalVerifyKey]:
    keys = device_keys().public
    if key_id != keys.authentication.key_id.hex():
        raise NotAuthenticatedError("a stranger")
    return keys.authentication, keys.classical


def transport(url: str, tmp_path: Path, interruption: Interruption | None = None) -> HttpTransport:
    config = AgentConfig(home=tmp_path, read_seconds=2.0)
    return HttpTransport.make(config, url, device_keys(), interruption or Interruption())


def problem(status: int, code: str, detail: str = "because", *, retryable: bool = False) -> tuple[int, bytes, str]:
    body = {"type": code, "title": "x", "status": status, "detail": detail, "retryable": retryable}
    return status, json.dumps(body).encode(), "application/problem+json"


def test_requests_are_signed_with_a_new_nonce_on_one_connection(site: Site, tmp_path: Path) -> None:
    agent = transport(site.url, tmp_path)
    agent.join(ROUND)
    agent.join(ROUND)
    first, second = site.seen
    assert first.key_id == device_keys().authentication.verify_key.key_id.hex()
    assert first.nonce != second.nonce
    assert first.connection == second.connection
    assert (first.method, first.path, first.body) == ("POST", f"/api/v1/rounds/{ROUND}/join", b"{}")


def test_a_connection_that_the_server_closed_is_replaced_and_the_request_signed_anew(
    site: Site, tmp_path: Path
) -> None:
    site.close_after = True
    agent = transport(site.url, tmp_path)
    for _ in range(3):
        agent.join(ROUND)
        time.sleep(0.02)
    assert len({seen.connection for seen in site.seen}) == 3
    assert len({seen.nonce for seen in site.seen}) == 3


def test_work_is_asked_for_with_token_and_wait(site: Site, tmp_path: Path) -> None:
    row = {
        "round": ROUND,
        "training": "t",
        "number": 2,
        "kind": "training",
        "state": "recruiting",
        "participant": "invited",
        "base_model": None,
        "code": None,
    }
    answer = {
        "token": "abc",
        "server_time": "2026-11-21T12:00:00Z",
        "rounds": [row],
        "models": [{"model": "m", "training": "t", "number": 1, "weights_digest": "00"}],
        "submissions": [],
    }
    site.answer = lambda seen: (200, json.dumps(answer).encode(), "application/json")
    work = transport(site.url, tmp_path).work(after="xyz", wait_seconds=0)
    assert site.seen[0].query == "wait=0&after=xyz"
    assert (work.token, work.rounds[0].round_id, work.models[0].number) == ("abc", ROUND, 1)
    assert work.server_time == datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_submission_carries_its_idempotency_key(site: Site, tmp_path: Path) -> None:
    site.answer = lambda seen: (201, b"receipt", "application/cbor")
    receipt = transport(site.url, tmp_path).submit(ROUND, b"envelope", submission_digest=b"d" * 32)
    assert receipt == b"receipt"
    assert site.seen[0].headers["Idempotency-Key"] == (b"d" * 32).hex()
    assert site.seen[0].body == b"envelope"


def test_the_calls_of_an_enrolment(site: Site, tmp_path: Path) -> None:
    def answer(seen: Seen) -> tuple[int, bytes, str]:
        if seen.path.endswith("/certificate"):
            if len(site.seen) == 3:
                return 202, b'{"state": "pending"}', "application/json"
            return 200, json.dumps(ISSUED).encode(), "application/json"
        if seen.path.endswith("/finish"):
            return 202, b'{"device": "d", "state": "pending"}', "application/json"
        return 201, json.dumps({"enrolment": "e", "answer": "AQ", "mac": "Ag"}).encode(), "application/json"

    site.answer = answer
    agent = transport(site.url, tmp_path)
    assert agent.begin_enrolment(b"t1", b"mac") == ("e", b"\x01", b"\x02")
    proofs = FinishProofs(challenge_mac=b"m", authentication=b"a", classical=b"c", signing=b"s")
    assert agent.finish_enrolment("e", proofs) == "pending"
    assert agent.collect_certificate("e", wait_seconds=0) is None
    issued = agent.collect_certificate("e", wait_seconds=0)
    assert issued is not None and issued.chain == (b"\x01\x02\x3e",) and issued.statement == b"\x03"
    assert [bool(seen.key_id) for seen in site.seen] == [False, False, True, True]
    assert json.loads(site.seen[0].body) == {"transcript": "dDE", "mac": "bWFj"}
    assert json.loads(site.seen[1].body)["signatures"] == {"authentication": "YQ", "classical": "Yw", "signing": "cw"}


def test_a_declined_device_is_told_so(site: Site, tmp_path: Path) -> None:
    site.answer = lambda seen: (200, b'{"state": "declined"}', "application/json")
    with pytest.raises(PermanentTransportError, match="declined"):
        transport(site.url, tmp_path).collect_certificate("e", wait_seconds=0)


def test_pairs_come_as_canonical_maps(site: Site, tmp_path: Path) -> None:
    site.answer = lambda seen: (200, canonical.encode({"plan": b"p", "assignment": b"a"}), "application/cbor")
    agent = transport(site.url, tmp_path)
    assert agent.assignment(ROUND) == (b"p", b"a")
    with pytest.raises(MalformedMessageError):
        agent.manifest(ROUND)


@pytest.mark.parametrize(
    ("status", "code"), [(503, "busy"), (429, "throttled"), (500, "x"), (401, "clock_skew"), (409, "stale_state")]
)
def test_answers_that_ask_to_come_back_are_transient(site: Site, tmp_path: Path, status: int, code: str) -> None:
    site.answer = lambda seen: problem(status, code, "the clock is 90 s ahead", retryable=status < 429)
    with pytest.raises(TransientTransportError, match=f"{code}: the clock is 90 s ahead"):
        transport(site.url, tmp_path).join(ROUND)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (problem(403, "not_permitted"), "not_permitted"),
        (problem(409, "https://example.org/problems/wrong_state"), "wrong_state"),
        (problem(404, "urn:latticeward:not_found"), "not_found"),
        (problem(400, "Bad Code!"), ""),
        ((400, b"<html>", "text/html"), ""),
        ((302, b"", "text/html"), ""),
    ],
    ids=str,
)
def test_refusals_are_permanent_and_carry_the_servers_code(
    site: Site, tmp_path: Path, content: tuple[int, bytes, str], code: str
) -> None:
    site.answer = lambda seen: content
    with pytest.raises(PermanentTransportError) as caught:
        transport(site.url, tmp_path).join(ROUND)
    assert caught.value.server_code == code


def test_what_a_server_writes_cannot_break_the_log(site: Site, tmp_path: Path) -> None:
    site.answer = lambda seen: problem(403, "not_permitted", "a\nb\x1b[31m" + "c" * 1000)
    with pytest.raises(PermanentTransportError) as caught:
        transport(site.url, tmp_path).join(ROUND)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 400


def test_an_answer_larger_than_its_limit_is_refused(site: Site, tmp_path: Path) -> None:
    site.answer = lambda seen: (200, b"x" * 101, "application/octet-stream")
    with pytest.raises(MalformedMessageError):
        transport(site.url, tmp_path).model_body(ROUND, limit_bytes=100)
    assert len(transport(site.url, tmp_path).model_body(ROUND, limit_bytes=101)) == 101


def test_the_record_of_the_largest_cohort_arrives_whole(site: Site, tmp_path: Path) -> None:
    site.answer = lambda seen: (200, bytes(RECORD_LIMIT_BYTES), "application/cbor")
    assert len(transport(site.url, tmp_path).round_record(ROUND)) == RECORD_LIMIT_BYTES


def test_an_answer_that_breaks_off_is_transient_and_not_taken_for_a_whole_one(site: Site, tmp_path: Path) -> None:
    site.answer, site.cut_bytes = lambda seen: (200, b"x" * 99, "application/octet-stream"), 1
    with pytest.raises(TransientTransportError, match="cannot be reached"):
        transport(site.url, tmp_path).model_body(ROUND, limit_bytes=200)


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        (429, "7", 7.0),
        (503, "Sat, 21 Nov 2026 12:00:30 GMT", 30.0),
        (503, "Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        (503, "soon", None),
        (429, "-3", None),
        (429, "1e9", None),
        (503, "", None),
    ],
)
def test_what_retry_after_asks_for_comes_with_the_error(
    site: Site, tmp_path: Path, status: int, value: str, expected: float | None
) -> None:
    site.answer = lambda seen: problem(status, "throttled")
    site.headers = {"Retry-After": value} if value else {}
    now = datetime.now(UTC)
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    client = HttpClient(
        site.url, config=AgentConfig(home=tmp_path), keys=device_keys(), interruption=Interruption(), clock=lambda: now
    )
    with pytest.raises(TransientTransportError) as caught:
        client.request("GET", "/api/v1/me")
    assert caught.value.server_code == "throttled"
    if "GMT" not in value:
        assert caught.value.retry_after_seconds == expected
    assert retry_after_seconds(value, now=noon) == expected


def test_a_server_that_is_not_there_is_transient(tmp_path: Path) -> None:
    with pytest.raises(TransientTransportError, match="cannot be reached"):
        transport("http://127.0.0.1:9", tmp_path).trust()


@pytest.mark.parametrize("url", ["http://10.0.0.1", "http://hospital.example:8750", "http://0.0.0.0:1"])
def test_plain_http_to_another_machine_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(PermanentTransportError, match=r"this machine itself only.*https"):
        transport(url, tmp_path)


@pytest.mark.parametrize("url", ["ftp://x", "https://", "https://x/path", "https://u@x", "https://x:port", "x"])
def test_what_is_not_a_servers_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(PermanentTransportError, match="not the address"):
        transport(url, tmp_path)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://fl.example", "fl.example"),
        ("https://fl.example:443/", "fl.example"),
        ("https://FL.example:8443", "fl.example:8443"),
        ("http://localhost:80", "localhost"),
        ("http://[::1]:8750", "[::1]:8750"),
    ],
)
def test_the_authority_leaves_the_schemes_own_port_out(tmp_path: Path, url: str, expected: str) -> None:
    config = AgentConfig(home=tmp_path)
    client = HttpClient(url, config=config, keys=device_keys(), interruption=Interruption())
    assert client.authority == expected


def test_a_stop_asked_for_before_is_honoured_at_the_next_wait(site: Site, tmp_path: Path) -> None:
    interruption = Interruption()
    interruption.request()
    with pytest.raises(StopRequested):
        transport(site.url, tmp_path, interruption).join(ROUND)
    with pytest.raises(StopRequested):
        interruption.pause(10)
    assert site.seen == []


def test_base64_is_read_in_either_alphabet() -> None:
    assert decode_base64("-_8=") == decode_base64("+/8") == b"\xfb\xff"
    with pytest.raises(MalformedMessageError):
        decode_base64("!!")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_long_poll_at_once(site: Site, tmp_path: Path, number: int) -> None:
    release = threading.Event()

    def hold(seen: Seen) -> tuple[int, bytes, str]:
        release.wait(20)
        return 200, b"{}", "application/json"

    site.answer = hold
    home = tmp_path / "home"
    secrets = load_or_make_secrets(home)
    base = identity_of(authority())
    Identity(
        **{
            **{name: getattr(base, name) for name in base.__slots__},
            "server": site.url,
            "secrets": secrets,
        }
    ).save(home)
    keys = secrets.keys.public
    known = resolve.__globals__
    known["resolve"], kept = (lambda key_id: (keys.authentication, keys.classical)), resolve
    try:
        command = [sys.executable, "-m", "latticeward.agent", "run", "--home", str(home), "--job", "heart"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
        deadline = time.monotonic() + 20
        while not site.seen and time.monotonic() < deadline:
            time.sleep(0.02)
        assert site.seen and site.seen[0].path == "/api/v1/work"
        started = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
        assert time.monotonic() - started < 2
        assert process.returncode == 0
        assert "stopped as asked" in errors and "Traceback" not in errors
    finally:
        known["resolve"] = kept
        release.set()
