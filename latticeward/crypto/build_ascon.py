"""Compile the C core of Ascon-AEAD128 in place: ``python -m latticeward.crypto.build_ascon``.

It takes ``$CC``, ``cc``, ``gcc`` or ``clang``, whichever is there first, needs no headers but those of the C library
and fetches nothing. The result lies beside its sources under a name that holds their digest: built already means
nothing to do, changed sources mean a new name. Without a compiler it says so in one line and succeeds, since the
NumPy form gives the same bytes, slower.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from latticeward.crypto.ascon_compiled import SOURCE_DIR, library_path

# No -march: every function names its own target, and the one to use is chosen at run time.
_FLAGS: Final = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fvisibility=default")
_TIME_LIMIT_SECONDS: Final = 120


def build() -> str:
    """Build the library if its present form is not there.

    Returns:
        One line that says what was done, for a person.
    """
    target = library_path()
    if target.exists():
        return f"ascon: {target.name} is up to date"
    compiler = _compiler()
    if compiler is None:
        return "ascon: no C compiler found, the NumPy form serves (slow)"
    with tempfile.TemporaryDirectory(dir=SOURCE_DIR, prefix=".build-ascon-") as folder:
        output = Path(folder) / target.name
        try:
            done = subprocess.run(
                [*compiler, *_FLAGS, "-o", str(output), str(SOURCE_DIR / "_ascon.c")],
                capture_output=True,
                text=True,
                timeout=_TIME_LIMIT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"ascon: {compiler[0]} could not be run ({error}), the NumPy form serves (slow)"
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[0]
            return f"ascon: {compiler[0]} failed ({reason}), the NumPy form serves (slow)"
        # Into place by a rename, so that a process that loads it now finds the whole of it or nothing.
        os.replace(output, target)
    for stale in SOURCE_DIR.glob("_ascon-*.so"):
        if stale != target:
            stale.unlink(missing_ok=True)
    return f"ascon: built {target.name} with {compiler[0]}"


def _compiler() -> list[str] | None:
    named = shlex.split(os.environ.get("CC", ""))
    candidates = [named] if named else [["cc"], ["gcc"], ["clang"]]
    return next((command for command in candidates if shutil.which(command[0])), None)


def main() -> int:
    try:
        print(build())
    except OSError as error:
        print(f"ascon: not built ({error}), the NumPy form serves (slow)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
