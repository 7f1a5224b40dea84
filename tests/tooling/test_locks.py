"""The lock files fit the requirement files, and say what they must and nothing that they must not."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]+\])?==([^\s;\\]+)", re.MULTILINE)
STEMS = ("requirements", "requirements-dev", "requirements-node")


def pins(path: Path) -> dict[str, str]:
    """Package -> version, names in their canonical form."""
    found = PIN.findall(path.read_text(encoding="utf-8"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize("stem", STEMS)
def test_a_lock_holds_every_requirement_at_its_version(stem: str) -> None:
    wanted = pins(ROOT / f"{stem}.txt")
    wanted.pop("torch", None)
    assert wanted.items() <= pins(ROOT / f"{stem}.lock").items()


@pytest.mark.parametrize("stem", STEMS)
def test_every_locked_package_has_hashes(stem: str) -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / f"{stem}.lock").read_text(encoding="utf-8"))[1:]
    assert entries
    assert [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("stem", STEMS)
def test_a_lock_names_no_host_and_no_torch(stem: str) -> None:
    text = (ROOT / f"{stem}.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "torch" not in pins(ROOT / f"{stem}.lock")


def test_the_locks_agree_with_each_other() -> None:
    server, tools = pins(ROOT / "requirements.lock"), pins(ROOT / "requirements-dev.lock")
    shared = server.keys() & tools.keys()
    assert [name for name in shared if server[name] != tools[name]] == []


@pytest.mark.parametrize("stem", ["requirements", "requirements-dev"])
def test_every_requirement_gives_its_reason(stem: str) -> None:
    lines = (ROOT / f"{stem}.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if PIN.match(line) and "  # " not in line] == []
