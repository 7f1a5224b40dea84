"""Compile the C kernels in place: ``python -m latticeward.build_kernels``.

It takes ``$CC``, ``cc``, ``gcc`` or ``clang``, whichever is there first, needs no headers but those of the C library
and fetches nothing. Built already means nothing to do, changed sources mean a new name. Without a compiler it says so
in one line a kernel and succeeds, since the NumPy forms give the same bytes, slower.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from latticeward.compiled import Kernel
from latticeward.crypto import ascon_compiled
from latticeward.updates import ring

# No -march: every function names its own target, and the one to use is chosen at run time.
_FLAGS: Final = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fvisibility=default")
_TIME_LIMIT_SECONDS: Final = 120
KERNELS: Final = (ascon_compiled.KERNEL, ring.KERNEL)


def build(kernel: Kernel) -> str:
    """Build a library if its present form is not there.

    Returns:
        One line that says what was done, for a person.

    Raises:
        OSError: the folder cannot be written, or a source is missing.
    """
    target = kernel.path()
    if target.exists():
        return f"{kernel.name}: {target.name} is up to date"
    compiler = _compiler()
    if compiler is None:
        return f"{kernel.name}: no C compiler found, {kernel.fallback}"
    with tempfile.TemporaryDirectory(dir=kernel.folder, prefix=f".build-{kernel.name}-") as folder:
        output = Path(folder) / target.name
        try:
            done = subprocess.run(
                [*compiler, *_FLAGS, "-o", str(output), str(kernel.folder / kernel.sources[0])],
                capture_output=True,
                text=True,
                timeout=_TIME_LIMIT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{kernel.name}: {compiler[0]} could not be run ({error}), {kernel.fallback}"
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[0]
            return f"{kernel.name}: {compiler[0]} failed ({reason}), {kernel.fallback}"
        # Into place by a rename, so that a process that loads it now finds the whole of it or nothing.
        os.replace(output, target)
    for stale in kernel.folder.glob(f"_{kernel.name}-*.so"):
        if stale != target:
            stale.unlink(missing_ok=True)
    return f"{kernel.name}: built {target.name} with {compiler[0]}"


def _compiler() -> list[str] | None:
    named = shlex.split(os.environ.get("CC", ""))
    candidates = [named] if named else [["cc"], ["gcc"], ["clang"]]
    return next((command for command in candidates if shutil.which(command[0])), None)


def main() -> int:
    """Build all; what cannot be built costs a line each."""
    for kernel in KERNELS:
        try:
            print(build(kernel))
        except OSError as error:
            print(f"{kernel.name}: not built ({error}), {kernel.fallback}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
