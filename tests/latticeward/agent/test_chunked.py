"""The device's side of an upload: what it sends of an envelope, in which case, and what it makes of odd answers."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from latticeward.agent.transports.http import HttpTransport
from latticeward.agent.transports.http_client import HttpAnswer
from latticeward.errors import MalformedMessageError, PermanentTransportError, TransientTransportError
from latticeward.uploads import CHUNK_BYTES

ROUND = "f0000000-0000-4000-8000-000000000001"
UPLOAD = "0b000000-0000-4000-8000-000000000001"
ENVELOPE = bytes(range(256)) * (CHUNK_BYTES // 100)  # two chunks and a half
DIGEST = bytes(32)


@dataclass
class Server:
    """Keeps chunks as the real one does; ``breaks`` lists after how many requests the line breaks."""

    chunks: dict[int, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    says: dict[str, Any] = field(default_factory=dict)
    refuses: str = ""

    authority = "fl.example.org"

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> HttpAnswer:
        headers, body = headers or {}, body or b""
        self.asked.append(f"{method} {path.removeprefix('/api/v1')} {headers.get('Upload-Offset', '')}".strip())
        if self.breaks and len(self.asked) >= self.breaks[0]:
            self.breaks.pop(0)
            raise TransientTransportError("the line broke")
        if self.refuses and method == "PUT":
            raise PermanentTransportError("refused", server_code=self.refuses)
        if path.endswith("/submissions"):
            return HttpAnswer(status=201, body=b"receipt")
        if path.endswith("/uploads"):
            whole = {"digest": DIGEST.hex(), "sha256": hashlib.sha256(ENVELOPE).hexdigest()}
            assert json.loads(body) == whole | {"size_bytes": len(ENVELOPE)}
        elif method == "PUT":
            assert (headers["Idempotency-Key"], headers["Upload-Length"]) == (DIGEST.hex(), str(len(ENVELOPE)))
            self.chunks[int(headers["Upload-Offset"]) // CHUNK_BYTES] = body
        missing = [number for number in range(3) if number not in self.chunks]
        receipt = None
        if path.endswith("/submission") and not missing:
            assert b"".join(self.chunks[number] for number in range(3)) == ENVELOPE
            receipt = base64.urlsafe_b64encode(b"receipt").decode().rstrip("=")
        told = {"upload": UPLOAD, "chunk_bytes": CHUNK_BYTES, "missing": missing, "receipt": receipt, **self.says}
        return HttpAnswer(status=200, body=json.dumps(told).encode())


def transport(server: Server, *, above: int = 0) -> HttpTransport:
    return HttpTransport(server, chunks_above_bytes=above)  # type: ignore[arg-type]


def submit(server: Server, **named: Any) -> bytes:
    return transport(server, **named).submit(ROUND, ENVELOPE, submission_digest=DIGEST)


def test_a_large_submission_goes_in_chunks_and_brings_the_receipt() -> None:
    server = Server()
    assert submit(server) == b"receipt"
    assert server.asked == [
        f"POST /rounds/{ROUND}/uploads",
        *(f"PUT /uploads/{UPLOAD} {number * CHUNK_BYTES}" for number in range(3)),
        f"POST /uploads/{UPLOAD}/submission",
    ]


def test_a_small_submission_goes_in_one_piece() -> None:
    server = Server()
    assert submit(server, above=len(ENVELOPE)) == b"receipt"
    assert server.asked == [f"POST /rounds/{ROUND}/submissions"]


def test_after_a_broken_line_the_rest_goes_in_chunks() -> None:
    server = Server(breaks=[1])
    device = transport(server, above=len(ENVELOPE))
    with pytest.raises(TransientTransportError):
        device.submit(ROUND, ENVELOPE, submission_digest=DIGEST)
    assert device.submit(ROUND, ENVELOPE, submission_digest=DIGEST) == b"receipt"
    assert server.asked[1] == f"POST /rounds/{ROUND}/uploads"


def test_an_agent_that_was_killed_sends_only_what_is_missing() -> None:
    server = Server(breaks=[3])
    with pytest.raises(TransientTransportError):
        submit(server)
    server.asked.clear()
    assert submit(server) == b"receipt"  # another transport, as after a restart
    assert [line.split()[-1] for line in server.asked[1:-1]] == [str(CHUNK_BYTES), str(2 * CHUNK_BYTES)]


def test_an_upload_that_the_server_forgot_is_begun_anew_later() -> None:
    with pytest.raises(TransientTransportError):
        submit(Server(refuses="not_found"))
    with pytest.raises(PermanentTransportError):
        submit(Server(refuses="wrong_state"))


@pytest.mark.parametrize(
    "says",
    [
        {"chunk_bytes": 5},
        {"missing": [3]},
        {"missing": [-1]},
        {"missing": ["0"]},
        {"missing": [True]},
        {"upload": None},
        {"upload": "../../models"},
    ],
    ids=str,
)
def test_an_answer_that_would_send_bytes_elsewhere_is_refused(says: dict[str, Any]) -> None:
    server = Server(says=says)
    with pytest.raises(MalformedMessageError):
        submit(server)
    assert not server.chunks
