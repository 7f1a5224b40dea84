"""What the benches say of the machine: every trait the document lists, with or without a compiler."""

import re
from pathlib import Path

import pytest

from bench import machine

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def test_the_document_explains_every_trait() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Reading figures of another machine\n")[2]
    explained = re.findall(r"^\| `(\w+)`", section.partition("\n## ")[0], re.MULTILINE)
    assert set(explained) >= {row["metric"] for row in machine.run()}


def test_speeds_are_positive_and_the_head_line_tells_them() -> None:
    rows = {row["metric"]: row["value"] for row in machine.run()}
    speeds = {name for name in rows if name.endswith(("_mbps", "_ms", "_msteps"))}
    assert len(speeds) == 5
    assert all(rows[name] > 0 for name in speeds)
    line = machine.head_line()
    assert all(word in line for word in ("cores", "SHA-256", "AES-256-GCM", "ML-DSA-65 sign", "steps/s", "load"))


def test_without_a_compiler_the_clock_is_left_out_and_the_head_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "clock_ghz" not in {row["metric"] for row in machine.run()}
    assert "clock not measured (no C compiler)" in machine.head_line()
