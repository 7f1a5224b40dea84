"""Handing over a large submission in chunks: ask what is missing, send that, ask for the receipt.

Nothing is remembered here. The server finds an upload by the submission's digest, and the envelope's bytes are on this
machine's disk before the first of them is sent, so after a restart of either end the same calls go on where they were.
"""

import hashlib
import re
from typing import Any, Final

from latticeward.agent.transports.http_client import HttpAnswer, HttpClient
from latticeward.agent.work import Answer
from latticeward.errors import MalformedMessageError, PermanentTransportError, TransientTransportError
from latticeward.uploads import CHUNK_BYTES, chunk_count, chunk_length

_API: Final = "/api/v1"
_JSON: Final = {"Content-Type": "application/json"}
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def submit_in_chunks(client: HttpClient, round_id: str, envelope: bytes, *, submission_digest: bytes) -> bytes:
    """Send what the server does not have yet of an envelope; returns the signed receipt.

    Raises:
        TransientTransportError: the line broke, or there is no room yet; what has arrived stays there.
        PermanentTransportError, MalformedMessageError
    """
    view = memoryview(envelope)
    state = _Upload(_json(client, f"{_API}/rounds/{round_id}/uploads", _declared(view, submission_digest)), len(view))
    if state.receipt is None:
        for number in state.missing:
            _send(client, state.address, number, view, submission_digest)
        state = _Upload(_json(client, f"{state.address}/submission", b"{}"), len(view))
    if state.receipt is None:
        raise TransientTransportError(f"the server lacks {len(state.missing)} chunks that it had")
    return state.receipt


def _declared(view: memoryview, submission_digest: bytes) -> bytes:
    sha256 = hashlib.sha256(view).hexdigest()
    return f'{{"digest":"{submission_digest.hex()}","sha256":"{sha256}","size_bytes":{len(view)}}}'.encode()


def _send(client: HttpClient, address: str, number: int, view: memoryview, submission_digest: bytes) -> None:
    offset = number * CHUNK_BYTES
    headers = {
        "Content-Type": "application/octet-stream",
        "Idempotency-Key": submission_digest.hex(),
        "Upload-Length": str(len(view)),
        "Upload-Offset": str(offset),
    }
    body = bytes(view[offset : offset + chunk_length(number, len(view))])
    _asking(client, "PUT", address, body, headers)


def _json(client: HttpClient, address: str, body: bytes) -> Any:
    return _asking(client, "POST", address, body, _JSON).json()


def _asking(client: HttpClient, method: str, address: str, body: bytes, headers: dict[str, str]) -> HttpAnswer:
    try:
        return client.request(method, address, body=body, headers=headers)
    except PermanentTransportError as error:
        if error.server_code == "not_found":
            # Expired, or lost with the server's disk: opening it again begins anew.
            raise TransientTransportError(f"the server knows this upload no longer: {error}") from error
        raise


class _Upload:
    """The server's answer about an upload, read strictly: it steers which bytes are sent where."""

    def __init__(self, value: Any, size_bytes: int) -> None:
        answer = Answer(value)
        self.receipt = None if answer.optional_text("receipt") is None else answer.binary("receipt")
        self.missing = tuple(answer.items("missing"))
        if answer.integer("chunk_bytes") != CHUNK_BYTES:
            raise MalformedMessageError("the server cuts uploads into chunks of another size")
        if not all(type(number) is int and 0 <= number < chunk_count(size_bytes) for number in self.missing):
            raise MalformedMessageError("the server misses chunks that this envelope does not have")
        upload_id = answer.optional_text("upload") or ""
        if self.receipt is None and _UUID.fullmatch(upload_id) is None:
            raise MalformedMessageError("the server's answer names neither an upload nor a receipt")
        self.address = f"{_API}/uploads/{upload_id}"
