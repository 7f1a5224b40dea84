"""An answer that comes byte by byte ends in time, wherever it is slow; a slow line that works gets through."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from latticeward.agent.config import AgentConfig
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports import timed_answer
from latticeward.agent.transports.http_client import HttpClient
from latticeward.errors import TransientTransportError
from tests.latticeward.peers import device_keys

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
PAUSE = 0.05
# What the server sends at once, and what it then drips; each a whole answer at its end, after five seconds.
SLOW = {
    "status line": (b"", b"HTTP/1.1 200 " + b"O" * 100 + b"\r\nContent-Length: 0\r\n\r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-Padding: " + b"a" * 100 + b"\r\nContent-Length: 0\r\n\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 4 + HEAD % 0),
    "body": (HEAD % 100, b"a" * 100),
    "body without an end": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"a" * 100),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 17 + b"0\r\n\r\n"),
}


@pytest.fixture
def serve() -> Iterator[Callable[[bytes, bytes, float], str]]:
    """Make a server of one answer; returns its address."""
    ended = threading.Event()
    threads = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def start(at_once: bytes, then: bytes, pause: float) -> str:
            def answer() -> None:
                line, _ = listening.accept()
                with line, suppress(OSError):
                    line.recv(65_536)
                    line.sendall(at_once)
                    for byte in then:
                        if ended.wait(pause):
                            return
                        line.sendall(bytes([byte]))

            threads.append(threading.Thread(target=answer))
            threads[-1].start()
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield start
        ended.set()
        for thread in threads:
            thread.join()


def client(url: str, home: Path, seconds: float) -> HttpClient:
    config = AgentConfig(home=home, read_seconds=seconds)
    return HttpClient(url, config=config, keys=device_keys(), interruption=Interruption())


@pytest.mark.parametrize("kind", SLOW)
def test_an_answer_that_drips_is_given_up(
    serve: Callable[[bytes, bytes, float], str], tmp_path: Path, kind: str
) -> None:
    url = serve(*SLOW[kind], PAUSE)
    with pytest.raises(TransientTransportError, match="cannot be reached"):
        client(url, tmp_path, 0.3).request("GET", "/", signed=False)


def test_a_line_that_is_slow_and_not_too_slow_gets_through(
    serve: Callable[[bytes, bytes, float], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_answer, "SLOWEST_BYTES_PER_SECOND", 1)
    url = serve(HEAD % 20, b"a" * 20, PAUSE)
    assert client(url, tmp_path, 0.3).request("GET", "/", signed=False).body == b"a" * 20


def test_more_time_is_given_for_what_is_wanted_only(
    serve: Callable[[bytes, bytes, float], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_answer, "SLOWEST_BYTES_PER_SECOND", 10)
    url = serve(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 4 + HEAD % 0, PAUSE)
    with pytest.raises(TransientTransportError, match="cannot be reached"):
        client(url, tmp_path, 0.3).request("GET", "/", signed=False, limit_bytes=5)


def test_silence_is_not_bought_with_what_has_come(
    serve: Callable[[bytes, bytes, float], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_answer, "SLOWEST_BYTES_PER_SECOND", 1)
    url = serve(HEAD % 101 + b"a" * 100, b"a", 5.0)
    with pytest.raises(TransientTransportError, match="timed out"):
        client(url, tmp_path, 0.3).request("GET", "/", signed=False)
