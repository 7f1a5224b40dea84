"""A wire without a network: the agent's own HTTP client talks to the server's own application, in one process.

Only the socket is replaced. Requests are signed and verified, bodies stream through the door, refusals are problem
documents. What can happen on a wire happens where a test says so: the server is away, a request or its answer is
lost, a device is killed in the middle of a call.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from keys.rotation import server_address
from latticeward.agent.config import AgentConfig
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports.http import HttpTransport
from latticeward.agent.transports.http_client import HttpClient
from latticeward.device_keys import DeviceKeys
from tests.rounds.line import Answer, exchange


class Killed(BaseException):
    """The device's process has ended: no handler of the agent may notice."""


@dataclass
class Fault:
    """What happens to the next calls that match.

    Attributes:
        kind: ``request`` (lost on the way there), ``answer`` (lost on the way back), ``kill`` (the device dies after
            the server has answered).
        part: of the path.
        who: the device's name; empty for anybody's.
        skip: matching calls that go well before.
        times: calls that it happens to.
    """

    kind: str
    part: str
    who: str = ""
    method: str = ""
    skip: int = 0
    times: int = 1

    def strikes(self, who: str, method: str, path: str) -> bool:
        if self.times <= 0 or self.part not in path or self.who not in ("", who) or self.method not in ("", method):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Web:
    """The server's web process: an event loop in a thread of its own, as behind a real server.

    Attributes:
        down: nobody can connect.
        faults: what happens to calls.
        calls: device, method and path of each that reached the application.
    """

    down: bool = False
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, who: str, method: str, target: str, lines: list[tuple[str, str]], body: bytes) -> Answer:
        path, _, query = target.partition("?")
        struck = {fault.kind for fault in self.faults if fault.strikes(who, method, path)}
        if self.down or "request" in struck:
            raise ConnectionRefusedError("nobody answers")
        self.calls.append((who, method, path))
        pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)] or [b""]
        answer = asyncio.run_coroutine_threadsafe(exchange(method, path, query, lines, pieces), self._loop).result()
        if "kill" in struck:
            raise Killed
        if "answer" in struck:
            raise TimeoutError("the answer was lost")
        return answer


class _Connection:
    """What ``HttpClient`` needs of ``http.client.HTTPConnection``."""

    sock = None

    def __init__(self, web: Web, who: str) -> None:
        self._web = web
        self._who = who

    def request(self, method: str, target: str, *, body: bytes | None, headers: Mapping[str, str]) -> None:
        lines = [("host", server_address()), *((name.lower(), value) for name, value in headers.items())]
        if body is not None:
            lines.append(("content-length", str(len(body))))
        self._answer = self._web.call(self._who, method, target, lines, body or b"")

    def getresponse(self) -> "_Response":
        return _Response(self._answer)

    def close(self) -> None:
        """There is nothing to close."""


@dataclass
class _Response:
    answer: Answer
    will_close = False
    length = 0

    @property
    def status(self) -> int:
        return self.answer.status

    def getheader(self, name: str) -> str | None:
        return self.answer.headers.get(name.lower())

    def read(self, limit: int) -> bytes:
        return self.answer.body[:limit]


class MemoryClient(HttpClient):
    """The agent's client with another kind of connection."""

    def __init__(self, web: Web, who: str, **named: Any) -> None:
        super().__init__(f"http://{server_address()}", **named)
        self._web = web
        self._who = who

    def _connect(self) -> Any:
        return _Connection(self._web, self._who)


def memory_transport(
    web: Web, who: str, config: AgentConfig, keys: DeviceKeys, clock: Callable[[], datetime]
) -> HttpTransport:
    """The device API over a wire in memory, for one device."""
    client = MemoryClient(web, who, config=config, keys=keys, interruption=Interruption(), clock=clock)
    return HttpTransport(cast(HttpClient, client), chunks_above_bytes=config.chunks_above_bytes)
