"""``DeviceClient`` as other tools of a hospital use it: an agent's home, a socket, and the server's application."""

import asyncio
import hashlib
import re
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from controlplane.asgi import application
from controlplane.throttles import forget_drawn
from devices.models import Site
from keys.selectors import certificate_of_epoch, device_statement, trust_anchor
from latticeward.agent.client import DeviceClient
from latticeward.agent.config import AgentConfig
from latticeward.agent.identity import Identity, load_or_make_secrets
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports.http_client import ANSWER_LIMIT_BYTES, HttpClient
from latticeward.errors import (
    CustodyError,
    MalformedMessageError,
    PermanentTransportError,
    TransientTransportError,
)
from tests.devices.conftest import federation, nothing_remembered, site
from tests.devices.machine import Machine

__all__ = ["federation", "nothing_remembered", "site"]

pytestmark = pytest.mark.django_db(transaction=True)

ME = "/api/v1/me"
NOBODY = "/api/v1/rounds/8d0c0f3e-5a31-4b43-9b0a-0c2f5f9a7d11/join"


@dataclass
class Line:
    """What lies between client and application: it keeps what was sent, and may answer or change it.

    Attributes:
        headers: of each request that came, by name.
        stand_in: answers in the application's place.
        forge: changes a body on its way.
    """

    headers: list[dict[str, str]] = field(default_factory=list)
    stand_in: Callable[..., Any] | None = None
    forge: Callable[[bytes], bytes] = lambda body: body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})

        async def forged() -> Any:
            message = await receive()
            return {**message, "body": self.forge(message.get("body", b""))}

        await (self.stand_in or application)(scope, forged, send)


def answering(status: int, body: bytes = b"", **headers: str) -> Callable[..., Any]:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    return answer


@pytest.fixture
def line(settings: Any) -> Iterator[Line]:
    """The application on a socket of this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    settings.PUBLIC_URL = f"http://127.0.0.1:{listening.getsockname()[1]}"
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    between = Line()
    server = uvicorn.Server(uvicorn.Config(between, lifespan="off", log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield between
    server.should_exit = True
    thread.join()


@pytest.fixture
def machine(line: Line, site: Site, tmp_path: Path, settings: Any) -> Machine:
    """An enrolled device whose identity lies in an agent's home, as ``enrol`` leaves it."""
    machine = Machine.with_claim(site)
    secrets = load_or_make_secrets(tmp_path)
    machine.keys = secrets.keys
    device = machine.enrol()
    certificate = certificate_of_epoch(str(device.id), epoch=1)
    assert certificate.issuer is not None
    Identity(
        device_id=str(device.id),
        federation_id=str(site.federation_id),
        site=site.slug,
        server=settings.PUBLIC_URL,
        anchor=trust_anchor().fingerprint,
        epoch=1,
        secrets=secrets,
        certificate_chain=(bytes(certificate.der), bytes(certificate.issuer.der)),
        statement=device_statement(str(device.id), epoch=1),
    ).save(tmp_path)
    return machine


@pytest.fixture
def client(machine: Machine, tmp_path: Path) -> Iterator[DeviceClient]:
    (tmp_path / "agent.toml").write_text("read_seconds = 5.0\n")
    with closing(DeviceClient.from_home(tmp_path)) as client:
        yield client


def test_a_signed_request_is_answered_as_the_devices_own(client: DeviceClient, machine: Machine) -> None:
    assert machine.device is not None
    assert client.get(ME)["device"] == str(machine.device.id)
    assert client.get("/api/v1/work", {"wait": 0})["rounds"] == []
    assert len(client.get_bytes("/api/v1/trust")) > 1000


def test_every_request_has_a_nonce_of_its_own(client: DeviceClient, line: Line) -> None:
    for _ in range(3):
        client.get(ME)
    nonces = [re.findall(r';nonce="([^"]+)"', headers["signature-input"]) for headers in line.headers]
    assert all(nonces) and len({found[0] for found in nonces}) == 3


def test_the_body_is_under_the_signatures(client: DeviceClient, line: Line) -> None:
    with pytest.raises(PermanentTransportError) as caught:
        client.post(NOBODY, {})
    assert caught.value.server_code == "not_permitted"  # believed, and not invited to such a round
    digest = b64encode(hashlib.sha256(b"{}").digest()).decode()
    assert line.headers[-1]["content-digest"] == f"sha-256=:{digest}:"
    assert '"content-digest"' in line.headers[-1]["signature-input"]
    line.forge = lambda body: body.replace(b"{}", b"[]")
    with pytest.raises(PermanentTransportError) as caught:
        client.post(NOBODY, {})
    assert caught.value.server_code in ("invalid_signature", "malformed_message", "wrong_context")


@pytest.mark.parametrize(("seconds", "side"), [(412, "ahead of"), (-3600, "behind")])
def test_a_clock_that_is_off_is_an_error_that_says_by_how_much_and_to_which_side(
    machine: Machine, settings: Any, tmp_path: Path, seconds: int, side: str
) -> None:
    wrong = HttpClient(
        settings.PUBLIC_URL,
        config=AgentConfig(home=tmp_path),
        keys=machine.keys,
        interruption=Interruption(),
        clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds),
    )
    with closing(DeviceClient(wrong)) as client, pytest.raises(TransientTransportError) as caught:
        client.get(ME)
    assert caught.value.server_code == "clock_skew"
    told = re.search(r"clock is (\d+) s (ahead of|behind) the server's; 300 s are allowed", str(caught.value))
    assert told is not None and told[2] == side
    assert abs(int(told[1]) - abs(seconds)) <= 5


def test_problem_documents_become_errors_with_their_code(client: DeviceClient, machine: Machine, settings: Any) -> None:
    with pytest.raises(PermanentTransportError, match="404 not_found") as caught:
        client.get("/api/v1/nothing-here")
    assert caught.value.server_code == "not_found"
    settings.LIMITS, settings.EMBEDDED = {**settings.LIMITS, "limit_refused": 1}, False
    forget_drawn()
    stranger = HttpClient(
        settings.PUBLIC_URL, config=AgentConfig(home=Path()), keys=machine.keys, interruption=Interruption()
    )
    stranger._key_id = "0" * 64
    with closing(DeviceClient(stranger)) as other:
        with pytest.raises(PermanentTransportError) as caught:
            other.get(ME)
        assert caught.value.server_code == "not_authenticated"
        with pytest.raises(TransientTransportError) as later:
            other.get(ME)
    assert later.value.server_code == "throttled"
    assert later.value.retry_after_seconds is not None and 0 < later.value.retry_after_seconds <= 60
    forget_drawn()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_refusal_and_takes_the_signatures_nowhere(
    client: DeviceClient, line: Line, status: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        line.stand_in = answering(status, location=f"http://127.0.0.1:{elsewhere.getsockname()[1]}{ME}")
        with pytest.raises(PermanentTransportError, match=f"answered {status}"):
            client.get(ME)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    assert len(line.headers) == 1


def test_an_answer_past_the_limit_is_not_read_to_its_end(client: DeviceClient, line: Line) -> None:
    line.stand_in = answering(200, b" " * (ANSWER_LIMIT_BYTES + 1))
    with pytest.raises(MalformedMessageError, match=f"larger than {ANSWER_LIMIT_BYTES} bytes"):
        client.get(ME)
    line.stand_in = answering(200, b"x" * 101)
    with pytest.raises(MalformedMessageError, match="larger than 100 bytes"):
        client.get_bytes(ME, limit_bytes=100)
    line.stand_in = None
    assert client.get(ME)["state"] == "active"  # on a new connection


def test_an_answer_that_is_not_json_is_said_to_be_none(client: DeviceClient, line: Line) -> None:
    line.stand_in = answering(200, b"<html>")
    with pytest.raises(MalformedMessageError, match="not JSON"):
        client.get(ME)


def test_a_server_that_does_not_answer_is_given_up_after_the_configured_time(
    machine: Machine, line: Line, tmp_path: Path
) -> None:
    held = threading.Event()

    async def hold(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(held.wait, 20)

    line.stand_in = hold
    (tmp_path / "agent.toml").write_text("read_seconds = 0.2\n")
    with closing(DeviceClient.from_home(tmp_path)) as client:
        with pytest.raises(TransientTransportError, match="cannot be reached: timed out"):
            client.get(ME)
        held.set()
        line.stand_in = None
        assert client.get(ME)["state"] == "active"


def test_a_home_without_an_identity_or_open_to_others_gives_no_client(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(CustodyError, match="enrol the agent first"):
        DeviceClient.from_home(tmp_path / "other")
    (tmp_path / "keys.json").chmod(0o644)
    with pytest.raises(CustodyError):
        DeviceClient.from_home(tmp_path)
