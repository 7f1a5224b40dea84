"""A device's line to the door: hand-made ASGI messages around requests that a real machine signs."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from controlplane.asgi import application
from controlplane.errors import PROBLEM_TYPE
from keys.rotation import server_address
from latticeward.crypto.envelope import parse_envelope
from latticeward.crypto.httpsig import sign_request
from tests.devices.machine import Machine

# In a request's pieces: the device hangs up here.
HANG_UP = None


@dataclass
class Answer:
    """What came back, how many pieces of the body the door asked for before it said so, and in how many it came."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces_taken: int = 0
    pieces_sent: int = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and stable code of a problem document that is as it should be."""
        assert self.headers["content-type"] == PROBLEM_TYPE
        document = self.json
        assert document["status"] == self.status
        assert document["title"] and document["detail"]
        assert document["instance"].startswith("urn:uuid:")
        return self.status, document["type"]


def digest_of(envelope: bytes) -> str:
    """The submission digest, which a device sends as its idempotency key."""
    return parse_envelope(envelope, limit_bytes=len(envelope)).signed_digest.hex()


@dataclass
class Line:
    """Requests of one machine."""

    machine: Machine

    def headers(
        self,
        method: str,
        path: str,
        query: str = "",
        *,
        digest: bytes | None = None,
        headers: Iterable[tuple[str, str]] = (),
        signer: Machine | None = None,
        nonce: bytes | None = None,
    ) -> list[tuple[str, str]]:
        """Header lines of a signed request; ``signer`` puts another machine's signatures under this one's key id."""
        keys = (signer or self.machine).keys
        sent = [("host", server_address()), *headers]
        added = sign_request(
            method,
            server_address(),
            path,
            query,
            sent,
            digest,
            key_id=self.machine.keys.authentication.verify_key.key_id.hex(),
            mldsa=keys.authentication,
            ed25519=keys.classical,
            created_at=datetime.now(UTC),
            nonce=nonce or secrets.token_bytes(16),
        )
        return [*sent, *((name.lower(), value) for name, value in added.items())]

    async def asking(
        self, method: str, path: str, query: str = "", *, body: bytes | None = None, **named: Any
    ) -> Answer:
        """Sign a request, send it, and wait for the whole answer."""
        digest = None if body is None else hashlib.sha256(body).digest()
        lines = self.headers(method, path, query, digest=digest, **named)
        return await exchange(method, path, query, lines, [body or b""])

    def ask(self, method: str, path: str, query: str = "", **named: Any) -> Answer:
        """``asking``, from a test that is not a coroutine."""
        return asyncio.run(self.asking(method, path, query, **named))

    def submit(self, round_id: object, envelope: bytes, *, key: str | None = None, body: bytes | None = None) -> Answer:
        """Send an envelope as the agent does; ``body`` is sent in its place under the envelope's signature."""
        return asyncio.run(self.submitting(round_id, envelope, [envelope if body is None else body], key=key))

    async def submitting(
        self,
        round_id: object,
        envelope: bytes,
        pieces: Iterable[bytes | None],
        *,
        key: str | None = None,
        declared_bytes: int | None = None,
    ) -> Answer:
        """Send an envelope in pieces, and its length only if it is declared."""
        path = f"/api/v1/rounds/{round_id}/submissions"
        headers = [("content-type", "application/octet-stream")]
        if key != "":
            headers.append(("idempotency-key", key or digest_of(envelope)))
        lines = self.headers("POST", path, digest=hashlib.sha256(envelope).digest(), headers=headers)
        if declared_bytes is not None:
            lines.append(("content-length", str(declared_bytes)))
        return await exchange("POST", path, "", lines, pieces)


async def exchange(
    method: str, path: str, query: str, lines: list[tuple[str, str]], pieces: Iterable[bytes | None]
) -> Answer:
    """One exchange with the application of the product."""
    answer = Answer()
    waiting = list(pieces)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()  # the device listens until it is answered
        if (piece := waiting.pop(0)) is HANG_UP:
            return {"type": "http.disconnect"}
        answer.pieces_taken += 1
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message["body"]
            answer.pieces_sent += 1

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in lines],
        "client": ("192.0.2.7", 40000),
        "server": ("192.0.2.1", 80),
    }
    await application(scope, receive, send)
    return answer
