"""Where key-encryption keys come from: a file for each group, or the environment. What they wrap is ``vault.py``'s.

Both hold lines of ``<version>:<64 hexadecimal digits>``, with ``:pending`` behind a version that does not wrap yet.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from django.conf import settings

from latticeward.errors import CustodyError

_PENDING: Final = ":pending"


class Group(StrEnum):
    """One key-encryption key, and the processes that share it."""

    AUTHORITY = "authority"
    WEB = "web"
    ROUNDS = "rounds"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The KEK of one group: 32 bytes a version. All versions unwrap; the highest that is not pending wraps."""

    versions: Mapping[int, bytes] = field(repr=False)
    pending: frozenset[int] = frozenset()

    @property
    def wrapping(self) -> int:
        """The version that wraps."""
        return max(set(self.versions) - self.pending)


class Provider(Protocol):
    """Where KEKs come from."""

    def read(self, group: Group) -> KeyRing:
        """Raises CustodyError if the group's KEK is missing or unreadable."""
        ...

    def write(self, group: Group, ring: KeyRing) -> None:
        """Raises CustodyError if this provider cannot keep a KEK."""
        ...

    def changing(self, group: Group) -> AbstractContextManager[None]:
        """Inside, no other process of this machine changes the group's KEK: what was read last still stands there."""
        ...

    def written_at(self, group: Group) -> float | None:
        """When the group's KEK was last changed, unix seconds; None where nobody can know."""
        ...


class FileProvider:
    """One file a group in the vault folder, mode 0600; a mounted secret of mode 0400 or 0440 does as well."""

    def path(self, group: Group) -> Path:
        return Path(settings.VAULT_DIR) / f"{group}.kek"

    def read(self, group: Group) -> KeyRing:
        path = self.path(group)
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_text(encoding="ascii")
        except FileNotFoundError as exc:
            raise CustodyError(
                f"the key file {path} is missing: restore it from its backup, or run init_authority on a new system"
            ) from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise CustodyError(f"the key file {path} cannot be read: {exc}") from exc
        if mode & 0o027:
            raise CustodyError(f"the key file {path} is open to others (mode {mode:o}): make it 0600")
        return _parse_ring(text, str(path))

    def write(self, group: Group, ring: KeyRing) -> None:
        path = self.path(group)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(_format_ring(ring))
            file.flush()
            os.fsync(file.fileno())
        # A crash leaves the old file or the new one, never half a key.
        os.replace(part, path)

    @contextmanager
    def changing(self, group: Group) -> Iterator[None]:
        # Beside the file, which is replaced by each change: a lock on it would be on yesterday's.
        path = self.path(group).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def written_at(self, group: Group) -> float | None:
        return self.path(group).stat().st_mtime


class EnvironmentProvider:
    """``LATTICEWARD_KEK_<GROUP>``, as ``version:hex`` separated by commas; for platforms that inject secrets."""

    def read(self, group: Group) -> KeyRing:
        name = self._name(group)
        text = os.environ.get(name)
        if not text:
            raise CustodyError(f"{name} is not set: give it as 1:<64 hexadecimal digits>")
        return _parse_ring(text.replace(",", "\n"), name)

    def write(self, group: Group, ring: KeyRing) -> None:
        raise CustodyError(f"{self._name(group)} comes from outside: set it there, this process cannot keep it")

    def changing(self, group: Group) -> AbstractContextManager[None]:
        return nullcontext()

    def written_at(self, group: Group) -> float | None:
        return None

    @staticmethod
    def _name(group: Group) -> str:
        return f"LATTICEWARD_KEK_{group.upper()}"


def _format_ring(ring: KeyRing) -> str:
    return "".join(
        f"{number}:{kek.hex()}{_PENDING if number in ring.pending else ''}\n"
        for number, kek in sorted(ring.versions.items())
    )


def _parse_ring(text: str, place: str) -> KeyRing:
    versions: dict[int, bytes] = {}
    pending: set[int] = set()
    for line in text.split():
        number, _, value = line.removesuffix(_PENDING).partition(":")
        try:
            kek = bytes.fromhex(value)
            version = int(number)
        except ValueError:
            kek, version = b"", 0
        if len(kek) != 32 or not 0 < version < 2**32 or version in versions:
            raise CustodyError(f"{place} does not hold lines of <version>:<64 hexadecimal digits>")
        versions[version] = kek
        if line.endswith(_PENDING):
            pending.add(version)
    if not set(versions) - pending:
        raise CustodyError(f"{place} holds no version that wraps")
    return KeyRing(versions, frozenset(pending))


VAULTS: Final[Mapping[str, Provider]] = {"file": FileProvider(), "env": EnvironmentProvider()}
