"""Sealed blobs in and out, by digest: envelopes, partial sums and model bodies never live in the database.

A blob is written beside its final place, flushed to the disk and renamed, so a name that exists is a whole blob.
Names are SHA-256 of the bytes in hex. Reading checks nothing: what is read is sealed, and opening it checks.
"""

import hashlib
import mmap
import os
import re
import secrets
from pathlib import Path
from typing import Final, Self

from django.conf import settings

from latticeward.errors import NotFoundError

_NAME: Final = re.compile(r"[0-9a-f]{64}\Z")


def _path(name: str) -> Path:
    if not _NAME.match(name):
        raise NotFoundError("not a blob's name")
    return Path(settings.BLOB_DIR) / name[:2] / name


class BlobWriter:
    """Takes bytes as they arrive, hashing them; nothing is visible before ``finish``."""

    def __init__(self) -> None:
        folder = Path(settings.BLOB_DIR) / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / secrets.token_hex(16)
        self._file = self._path.open("xb")
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)
        self.size_bytes += len(data)

    @property
    def digest(self) -> bytes:
        """SHA-256 of what was written so far, 32 bytes."""
        return self._hash.digest()

    def mapped(self) -> memoryview:
        """What was written so far, mapped and not copied into memory; goes with its last user."""
        self._file.flush()
        if not self.size_bytes:
            return memoryview(b"")
        with self._path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def finish(self) -> str:
        """Make the blob durable and visible; returns its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name = self._hash.hexdigest()
        target = _path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._path, target)
        # The name must outlive a power cut as the bytes do: a row will speak of it.
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return name

    def discard(self) -> None:
        """Forget what was written; harmless after ``finish``."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


def write_blob(data: bytes) -> str:
    """Store bytes; returns their name."""
    with BlobWriter() as writer:
        writer.write(data)
        return writer.finish()


def read_blob(name: str) -> memoryview:
    """The bytes of a blob, mapped and not copied into memory; goes with its last user.

    Raises:
        NotFoundError: there is none of this name.
    """
    try:
        with _path(name).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise NotFoundError(f"blob {name} is missing") from error


def blob_path(name: str) -> Path:
    """Where a blob lies, for streaming it out."""
    return _path(name)


def delete_blob(name: str) -> None:
    """Remove a blob if it is there."""
    _path(name).unlink(missing_ok=True)
