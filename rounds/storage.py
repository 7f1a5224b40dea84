"""Sealed blobs in and out, by name: envelopes, partial sums and model bodies never live in the database.

A blob is written beside its final place, flushed to the disk and renamed, so a name that exists is a whole blob, and
it never changes. What comes from a device is named by its SHA-256 in hex; what we seal ourselves has a random name of
the same form, since hashing a model takes as long as all else that is done to it and the digest says nothing that
opening does not check. Reading checks nothing: what is read is sealed.
"""

import hashlib
import mmap
import os
import re
import secrets
from pathlib import Path
from typing import IO, Final, Self

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
        self._path = _incoming() / secrets.token_hex(16)
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
        return _publish(self._file, self._path, self._hash.hexdigest())

    def discard(self) -> None:
        """Forget what was written; harmless after ``finish``."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


def write_blob(data: bytes | bytearray) -> str:
    """Store what was sealed here under a random name; returns the name."""
    name = secrets.token_hex(32)
    path = _incoming() / name
    file = path.open("xb", buffering=0)
    try:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        return _publish(file, path, name)
    finally:
        file.close()
        path.unlink(missing_ok=True)


def _incoming() -> Path:
    folder = Path(settings.BLOB_DIR) / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _publish(file: IO[bytes], path: Path, name: str) -> str:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    target = _path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)
    # The name must outlive a power cut as the bytes do: a row will speak of it.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return name


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


def is_older(path: Path, than: float) -> bool:
    """Whether a file or folder is there and was last written before ``than`` (unix seconds)."""
    try:
        return path.stat().st_mtime < than
    except FileNotFoundError:  # it was moved to its place, or deleted, since it was seen
        return False
