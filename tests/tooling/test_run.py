"""What `./ward test` starts on which machine, and what it counts as left out."""

import socket
from pathlib import Path

import pytest

from tests import run

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_one"/>
<testcase classname="tests.a" name="test_two"><failure message="no"/></testcase>
<testcase classname="tests.a" name="test_three"><error message="no"/></testcase>
<testcase classname="tests.a" name="test_four"><skipped message="no liboqs here"/></testcase>
</testsuite></testsuites>"""


def test_a_machine_with_everything_has_three_invocations() -> None:
    assert run.invocations({}) == [
        ("main", "not e2e and not postgres"),
        ("postgres", "postgres and not e2e"),
        ("e2e", "e2e"),
    ]


def test_what_the_machine_lacks_is_deselected_everywhere() -> None:
    lacking = {"postgres": "", "services": "", "e2e": "", "browser": "", "slow": ""}
    assert run.invocations(lacking) == [
        ("main", "not e2e and not postgres and not services and not browser and not slow")
    ]


def test_a_report_is_counted_and_its_skips_are_named(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT, encoding="utf-8")
    counts, skips = run.read_report(tmp_path / "report.xml")
    assert (counts["passed"], counts["failed"], counts["skipped"]) == (1, 2, 1)
    assert skips == ["tests.a.test_four: no liboqs here"]


def test_a_silent_service_is_named_and_its_tests_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound but not listening: a connection is refused
        monkeypatch.setenv("LATTICEWARD_TEST_LIVE_URL", f"redis://127.0.0.1:{bound.getsockname()[1]}/0")
        machine = run.look_around()
    assert "Redis" in machine.lacking["services"]


def test_without_a_browser_no_page_is_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    machine = run.look_around()
    assert "Chromium" in machine.lacking["e2e"]
    assert "Chromium" in machine.lacking["browser"]
