"""The bytes of uploads on their way: one file a chunk, so that any order and any restart leaves whole chunks or none.

A chunk's file appears by a rename after its bytes are on the disk. What has come is read from the folder and stored
nowhere else, so no row and no file can disagree.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

from django.conf import settings

from latticeward.errors import IdempotencyMismatchError, NotFoundError
from latticeward.uploads import chunk_count

FOLDER: Final = "uploads"
_PART: Final = ".part"


def _folder(upload_id: UUID) -> Path:
    return Path(settings.BLOB_DIR) / FOLDER / upload_id.hex


def write_chunk(upload_id: UUID, number: int, data: bytes) -> None:
    """Keep a chunk; the same bytes again change nothing.

    Raises:
        IdempotencyMismatchError: other bytes came under this number before.
    """
    folder = _folder(upload_id)
    target = folder / str(number)
    if target.exists():
        if target.read_bytes() != data:
            raise IdempotencyMismatchError(f"chunk {number} of upload {upload_id} came before with other bytes")
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (secrets.token_hex(8) + _PART)
    with part.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, target)


def chunks_held(upload_id: UUID) -> set[int]:
    """The numbers of the chunks that have come."""
    try:
        names = os.listdir(_folder(upload_id))
    except FileNotFoundError:
        return set()
    return {int(name) for name in names if not name.endswith(_PART)}


def read_chunks(upload_id: UUID, size_bytes: int) -> Iterator[bytes]:
    """All chunks in order, one in memory at a time.

    Raises:
        NotFoundError: one has not come, or the upload was forgotten meanwhile.
    """
    for number in range(chunk_count(size_bytes)):
        try:
            yield (_folder(upload_id) / str(number)).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"chunk {number} of upload {upload_id} is missing") from error


def forget_chunks(upload_id: UUID) -> None:
    """Delete what has come of an upload; harmless if there is nothing."""
    shutil.rmtree(_folder(upload_id), ignore_errors=True)
