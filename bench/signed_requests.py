"""Signed requests a second: what one web process authenticates, with every check, on the door and on a DRF view.

Requests are signed before the clock starts (signing is the devices' work), each with its own nonce, and sent over a
connection of its device that stays open. A request counts when its answer came with the expected status.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from bench.installation import Installation
from bench.processes import DemoError
from latticeward.agent.assembly import utc_now
from latticeward.agent.config import AgentConfig
from latticeward.agent.enrol import EnrolmentRequest, enrol
from latticeward.agent.identity import Identity, load_or_make_secrets
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports import TRANSPORTS
from latticeward.claim_code import parse_claim
from latticeward.crypto.httpsig import NONCE_BYTES, sign_request

DEVICES: Final = 64
BASE_BYTES: Final = 464


def enrolled_device(server: Installation, name: str = "bench") -> Identity:
    """One machine, enrolled by the real agent with a claim that approves by itself."""
    code = server.api.post("/api/v1/claims", {"site": "northside", "device_class": "edge-server", "auto_approve": True})
    config = AgentConfig.load(server.folder / name, given={})
    secrets = load_or_make_secrets(config.home, suite=config.suite)
    transport = TRANSPORTS["http"](config, server.address, secrets.keys, Interruption())
    return enrol(
        EnrolmentRequest(claim=parse_claim(code["uri"]), server=server.address, name=name),
        home=config.home,
        secrets=secrets,
        transport=transport,
        authority=transport.authority,
        clock=utc_now,
        poll_seconds=20,
    )


def signed_requests(identity: Identity, method: str, path: str, query: str, body: bytes, *, count: int) -> list[bytes]:
    """Complete HTTP/1.1 requests, each good once and only within the window of its time of creation."""
    authority = urlsplit(identity.server).netloc
    keys = identity.secrets.keys
    target = f"{path}?{query}" if query else path
    made = []
    for _ in range(count):
        headers = sign_request(
            method,
            authority,
            path,
            query,
            (),
            hashlib.sha256(body).digest() if body else None,
            key_id=keys.authentication.verify_key.key_id.hex(),
            mldsa=keys.authentication,
            ed25519=keys.classical,
            created_at=datetime.now(UTC),
            nonce=os.urandom(NONCE_BYTES),
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        made.append(head.encode("ascii") + body)
    return made


def send_all(address: str, devices: Sequence[Sequence[bytes]], *, expected: int) -> float:
    """Answers a second, with the requests of each device on a connection of its own.

    Raises:
        DemoError: an answer with another status; its body is in the text.
    """
    parts = urlsplit(address)
    return asyncio.run(_send_all(parts.hostname or "", parts.port or 80, devices, expected))


def verified_bare(identity: Identity, *, count: int) -> float:
    """The limit: both signatures and the body's digest a second, verified one after the other on one core.

    No parsing, no lookup, no nonce, no HTTP; in CPU time of this process, since others may want the core.
    """
    keys, body = identity.secrets.keys, b"[]"
    # As long as what a request with a body signs.
    base = os.urandom(BASE_BYTES)
    signed = [(keys.authentication.sign(base), keys.classical.sign(base)) for _ in range(count)]
    mldsa, ed25519 = keys.authentication.verify_key, keys.classical.verify_key
    started = time.process_time()
    for pq, cl in signed:
        mldsa.verify(pq, base)
        ed25519.verify(cl, base)
        hashlib.sha256(body).digest()
    return count / (time.process_time() - started)


async def _send_all(host: str, port: int, devices: Sequence[Sequence[bytes]], expected: int) -> float:
    async def one_device(requests: Sequence[bytes]) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for request in requests:
            writer.write(request)
            status, body = await _answer(reader)
            if status != expected:
                raise DemoError(f"a signed request was answered {status}: {body[:300].decode(errors='replace')}")
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*map(one_device, devices))
    return sum(map(len, devices)) / (time.perf_counter() - started)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    return int(head[9:12]), await reader.readexactly(length)
