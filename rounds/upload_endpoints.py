"""Submissions in chunks, at the door: four routes over ``services.uploads`` (docs/protocol.md, "Uploads").

The order is that of a submission in one piece: who sends it, whether it may come now and how long it may be are known
before a byte of the body is read.
"""

import base64
import hashlib
import re
import time
from typing import Final
from uuid import UUID

from latticeward.crypto.httpsig import verify_body_digest
from latticeward.errors import LatticewardError, MalformedMessageError, ProtocolError, VerificationError
from latticeward.uploads import CHUNK_BYTES
from rounds import ingress, tasks
from rounds.door import Call, Entry, Reply, in_thread, path, small_json
from rounds.few import BODIES
from rounds.services import uploads
from rounds.services.intake import refuse_at_door
from rounds.services.uploads import UploadStatus
from rounds.storage import BlobWriter

_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")


async def open_upload(call: Call) -> Reply:
    """Make room for a submission, or say what is missing of it."""
    told = await small_json(call)
    if told.keys() != {"digest", "sha256", "size_bytes"}:
        raise MalformedMessageError("an upload is declared by digest, sha256 and size_bytes")
    size_bytes = told["size_bytes"]
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool):
        raise MalformedMessageError("size_bytes is a number of bytes")
    digest, sha256 = _hex_digest(told["digest"]), _hex_digest(told["sha256"])
    round_id = UUID(call.id)
    try:
        status = await in_thread(
            uploads.open_upload,
            round_id=round_id,
            device=call.device,
            digest=digest,
            sha256=sha256,
            size_bytes=size_bytes,
        )
    except LatticewardError as error:
        await in_thread(refuse_at_door, round_id=round_id, device=call.device, error=error)
        raise
    return _told(status, 201 if status.is_new else 200)


async def look(call: Call) -> Reply:
    """What is missing."""
    return _told(await in_thread(uploads.find_upload, UUID(call.id), call.device))


async def chunk(call: Call) -> Reply:
    """Take one chunk, and say what is missing now."""
    offset, size_bytes = _number(call, "upload-offset"), _number(call, "upload-length")
    digest = _hex_digest(call.facts.header("idempotency-key"))
    call.body.require_declared_within(CHUNK_BYTES)
    status = await in_thread(uploads.find_upload, UUID(call.id), call.device)
    if status.submission is not None or status.upload is None:
        return _told(status)
    with BODIES.one_more(call.device.id):
        raw = await call.body.whole(CHUNK_BYTES)
        verify_body_digest(call.request, hashlib.sha256(raw).digest())
        kept = {"offset": offset, "size_bytes": size_bytes, "digest": digest, "data": raw}
        await in_thread(uploads.keep_chunk, status.upload, **kept)
    return _told(await in_thread(uploads.status_of, status.upload))


async def submit_upload(call: Call) -> Reply:
    """Make the submission of a whole upload, exactly as if it had come in one piece."""
    await small_json(call)
    status = await in_thread(uploads.find_upload, UUID(call.id), call.device)
    upload = status.upload
    if upload is None or status.submission is not None or status.missing:
        return _told(status)
    round_id = upload.participant.round_id
    started = time.perf_counter()
    with BODIES.one_more(call.device.id), BlobWriter() as writer:
        try:
            await in_thread(uploads.assemble, upload, writer)
            submission = await in_thread(
                ingress.accept,
                round_id=round_id,
                device=call.device,
                writer=writer,
                declared_digest=upload.digest,
                via="http",
                seconds=time.perf_counter() - started,
            )
        except (ProtocolError, VerificationError) as error:
            # These bytes can never become a submission; a round that closed meanwhile is left to the sweep.
            await in_thread(uploads.forget_upload, upload)
            await in_thread(refuse_at_door, round_id=round_id, device=call.device, error=error)
            raise
    await in_thread(uploads.forget_upload, upload)
    await in_thread(tasks.process_update.delay, str(submission.id))
    return _told(UploadStatus(upload=None, missing=(), submission=submission), 201)


def _told(status: UploadStatus, code: int = 200) -> Reply:
    upload, submission = status.upload, status.submission
    return Reply.json(
        {
            "upload": str(upload.id) if upload else None,
            "chunk_bytes": CHUNK_BYTES,
            "missing": list(status.missing),
            "expires_at": upload.expires_at.isoformat().replace("+00:00", "Z") if upload else None,
            "receipt": base64.urlsafe_b64encode(bytes(submission.receipt)).decode().rstrip("=") if submission else None,
        },
        code,
    )


def _number(call: Call, name: str) -> int:
    text = call.facts.header(name) or ""
    if _NUMBER.fullmatch(text) is None:
        raise MalformedMessageError(f"{name} is a number of bytes")
    return int(text)


def _hex_digest(value: object) -> str:
    if not isinstance(value, str) or _HEX_DIGEST.fullmatch(value) is None:
        raise MalformedMessageError("a digest is 64 hexadecimal digits in lower case")
    return value


UPLOAD_ROUTES: Final[list[Entry]] = [
    path("POST", "/api/v1/rounds/<id>/uploads", open_upload),
    path("GET", "/api/v1/uploads/<id>", look),
    path("PUT", "/api/v1/uploads/<id>", chunk),
    path("POST", "/api/v1/uploads/<id>/submission", submit_upload),
]
