"""Small C kernels, compiled in place and loaded with ctypes: optional, since each has a NumPy form of the same bits.

Plain shared libraries and not CPython extensions, for three reasons. They build where Python's headers are not
installed, as on a fresh Debian; one file serves every Python version; and ctypes lets go of the interpreter lock around
each call, which is all that work on whole vectors asks of its binding. What a call costs more, about two microseconds,
is nothing to a model.

A library's name holds a digest of its sources, so a stale build is never loaded: it is simply not found, and
``build_kernels.py`` makes the new one. Who loads a kernel checks a known answer before anybody may use it.
"""

import ctypes
import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One library: where its sources lie and what it is called.

    Attributes:
        name: for people and in the file's name, ``_<name>-<digest>.so``.
        folder: of the sources and of the library.
        sources: file names, the one to compile first.
        fallback: the words that say what serves when there is no compiler.
    """

    name: str
    folder: Path
    sources: tuple[str, ...]
    fallback: str = "the NumPy form serves (slow)"

    def path(self) -> Path:
        """Where the build of exactly these sources for this machine's architecture stands, built or not.

        Raises:
            OSError: a source is missing.
        """
        digest = hashlib.sha256(platform.machine().encode())
        for name in self.sources:
            digest.update(hashlib.sha256((self.folder / name).read_bytes()).digest())
        return self.folder / f"_{self.name}-{digest.hexdigest()[:16]}.so"

    def load(self) -> ctypes.CDLL | None:
        """The library, or None where it is not built."""
        try:
            return ctypes.CDLL(str(self.path()))
        except OSError:
            return None
