"""Writing files so that a power cut leaves the old content or the new, never half of either."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from latticeward.errors import CustodyError

PRIVATE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content, readable by its owner only.

    The content is on the disk before the name points to it, and the name is on the disk before this returns.
    """
    make_private_directory(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, PRIVATE_MODE)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_new(path: Path, content: bytes) -> None:
    """Write a new file, readable by its owner only: whole, or not at all. The same content again is fine.

    Raises:
        CustodyError: another file is there, or the directory cannot be written to.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            # Unlike a rename, a link fails where something stands.
            os.link(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except FileExistsError as exc:
        if path.read_bytes() != content:
            raise CustodyError(f"{path} is there already and is not replaced") from exc
    except OSError as exc:
        raise CustodyError(f"{path} cannot be written: {exc.strerror}") from exc


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a JSON file, with sorted keys so that two equal states are equal files."""
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode("utf-8"))


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None if there is none.

    Raises:
        CustodyError: it is there and cannot be read; starting afresh would forget what has been promised.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise CustodyError(f"{path} cannot be read; restore it from a copy, do not delete it") from exc
    if not isinstance(value, dict):
        raise CustodyError(f"{path} does not hold what the agent wrote")
    return value


def require_private(path: Path) -> None:
    """Refuse a secret file that other people of this machine may read.

    Raises:
        CustodyError: its permissions are wider than 0600.
    """
    if path.stat().st_mode & 0o077:
        raise CustodyError(f"{path} holds keys and is readable by others; set its permissions to 0600")


def make_private_directory(path: Path) -> None:
    """A directory that only its owner may enter."""
    path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
