"""Uploads: a submission that comes in chunks, from the first word about it until it is whole.

Opening one is admitted by the same rule as a submission in one piece, and room is bounded for each device and for the
server, so nobody fills the disk. An upload changes nothing in its round and is no fact of the ledger: the submission
that it becomes is. It is found by the submission's digest, so both ends may be restarted at any time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q, Sum
from django.utils import timezone

from devices.models import Device, Federation
from latticeward.errors import (
    IdempotencyMismatchError,
    MalformedMessageError,
    MessageTooLargeError,
    NotFoundError,
    TooManyRequestsError,
    WrongContextError,
)
from latticeward.lifecycle import RoundState
from latticeward.uploads import chunk_count, chunk_length, chunk_number
from rounds.chunks import FOLDER, chunks_held, forget_chunks, read_chunks, write_chunk
from rounds.models import Submission, Upload
from rounds.services.coordination import participant_of
from rounds.services.intake import envelope_limit, require_submitter
from rounds.storage import BlobWriter, is_older

UPLOADS_PER_DEVICE: Final = 2
LONGEST_LIFE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadStatus:
    """How far an upload is; ``submission`` once it has become one, and then ``upload`` may be gone."""

    upload: Upload | None
    missing: tuple[int, ...]
    submission: Submission | None = None
    is_new: bool = False


def open_upload(*, round_id: UUID, device: Device, digest: str, sha256: str, size_bytes: int) -> UploadStatus:
    """Make room for a submission in chunks, or find the room that was made for it before.

    Args:
        digest: hex submission digest.
        sha256: hex SHA-256 of the whole envelope.
        size_bytes: its length.

    Raises:
        NotPermittedError, ReplayError, StateError: as ``require_submitter``.
        MessageTooLargeError: longer than an envelope of this round can be.
        IdempotencyMismatchError: the same submission was declared before with other bytes.
        TooManyRequestsError: this device or the server has no room for another one now.
    """
    limit = min(settings.MAX_UPDATE_BYTES, envelope_limit(round_id, device))
    if not 1 <= size_bytes <= limit:
        raise MessageTooLargeError(f"declared {size_bytes} bytes, the limit is {limit}")
    earlier = require_submitter(round_id=round_id, device=device, digest=digest)
    if earlier is not None:
        if (earlier.blob, earlier.size_bytes) != (sha256, size_bytes):
            raise IdempotencyMismatchError(f"submission {earlier.id} was made of other bytes")
        return UploadStatus(upload=None, missing=(), submission=earlier)
    participant = participant_of(round_id, device)
    now = timezone.now()
    with transaction.atomic():
        # One opening at a time: two that count the room together would both find it free.
        Federation.objects.select_for_update(no_key=True).get(pk=device.site.federation_id)
        found = Upload.objects.filter(participant=participant, digest=digest, expires_at__gt=now).first()
        if found is not None:
            if (found.sha256, found.size_bytes) != (sha256, size_bytes):
                raise IdempotencyMismatchError(f"upload {found.id} was opened for other bytes")
            return status_of(found)
        room = Upload.objects.exclude(_over(now))
        if room.filter(participant__device=device).count() >= UPLOADS_PER_DEVICE:
            raise TooManyRequestsError(f"device {device.id} has {UPLOADS_PER_DEVICE} uploads open")
        declared = room.aggregate(total=Sum("size_bytes"))["total"] or 0
        if declared + size_bytes > settings.MAX_OPEN_UPLOAD_BYTES:
            raise TooManyRequestsError(f"{declared} bytes of uploads are open")
        Upload.objects.filter(participant=participant, digest=digest).delete()  # expired, and not swept yet
        opened = Upload.objects.create(
            participant=participant, digest=digest, sha256=sha256, size_bytes=size_bytes, expires_at=now + LONGEST_LIFE
        )
    return UploadStatus(upload=opened, missing=tuple(range(chunk_count(size_bytes))), is_new=True)


def find_upload(upload_id: UUID, device: Device) -> UploadStatus:
    """How far an upload is, for the device that opened it and while it may still submit.

    Raises:
        NotFoundError: there is none of this device, or it has expired.
        StateError, ReplayError: its round has stopped collecting, or another submission counts.
    """
    found = (
        Upload.objects.filter(pk=upload_id, participant__device=device, expires_at__gt=timezone.now())
        .select_related("participant")
        .first()
    )
    if found is None:
        raise NotFoundError(f"no upload {upload_id} of device {device.id}")
    earlier = require_submitter(round_id=found.participant.round_id, device=device, digest=found.digest)
    return status_of(found, earlier)


def status_of(upload: Upload, submission: Submission | None = None) -> UploadStatus:
    """What is missing of an upload; nothing once it is a submission."""
    held = chunks_held(upload.id) if submission is None else set()
    count = chunk_count(upload.size_bytes) if submission is None else 0
    missing = tuple(number for number in range(count) if number not in held)
    return UploadStatus(upload=upload, missing=missing, submission=submission)


def keep_chunk(upload: Upload, *, offset: int, size_bytes: int, digest: str, data: bytes) -> None:
    """Store one chunk whose digest the door has compared with the signed one.

    Args:
        offset, size_bytes, digest: as the request's headers say; they must be this upload's.

    Raises:
        MalformedMessageError: it is no chunk of this upload.
        IdempotencyMismatchError: other bytes came under this offset before.
    """
    if size_bytes != upload.size_bytes or digest != upload.digest:
        raise MalformedMessageError(f"upload {upload.id} was opened for another envelope")
    number = chunk_number(offset, size_bytes)
    if len(data) != chunk_length(number, size_bytes):
        raise MalformedMessageError(f"chunk {number} of upload {upload.id} has {len(data)} bytes")
    write_chunk(upload.id, number, data)


def assemble(upload: Upload, writer: BlobWriter) -> None:
    """Write all chunks in order, hashing them.

    Raises:
        NotFoundError: a chunk is missing.
        WrongContextError: the whole is not what was declared; the upload is forgotten, since its chunks are worthless.
    """
    for data in read_chunks(upload.id, upload.size_bytes):
        writer.write(data)
    if writer.digest.hex() != upload.sha256:
        forget_upload(upload)
        raise WrongContextError(f"the chunks of upload {upload.id} are not the declared whole")


def forget_upload(upload: Upload) -> None:
    """The upload has become a submission, or can never become one."""
    Upload.objects.filter(pk=upload.pk).delete()
    forget_chunks(upload.id)


def sweep_uploads() -> int:
    """Forget uploads whose time or round is over; returns how many."""
    over = list(Upload.objects.filter(_over(timezone.now())))
    for upload in over:
        forget_upload(upload)
    return len(over)


def sweep_orphaned_chunks(before: float) -> int:
    """Delete folders of chunks that no upload names and that nobody wrote to since ``before`` (unix seconds)."""
    named = {identity.hex for identity in Upload.objects.values_list("id", flat=True)}
    removed = 0
    for folder in (Path(settings.BLOB_DIR) / FOLDER).glob("*"):
        if folder.name not in named and is_older(folder, before):
            forget_chunks(UUID(folder.name))
            removed += 1
    return removed


def _over(now: datetime) -> Q:
    return Q(expires_at__lte=now) | ~Q(participant__round__state=RoundState.COLLECTING)
