"""Building the compiled form: with a compiler, without one, with a broken one, and after a change of the sources."""

import shutil
import subprocess
from pathlib import Path

import pytest

from latticeward.crypto import ascon_compiled, build_ascon
from latticeward.errors import SelfTestError


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources in a folder of their own, which the build and the loader then take for the package's."""
    for name in ascon_compiled.SOURCES:
        shutil.copy(ascon_compiled.SOURCE_DIR / name, tmp_path)
    monkeypatch.setattr(ascon_compiled, "SOURCE_DIR", tmp_path)
    monkeypatch.setattr(build_ascon, "SOURCE_DIR", tmp_path)
    return tmp_path


needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler here")


@needs_compiler
def test_it_builds_once_and_again_after_a_change(sources: Path) -> None:
    assert "built" in build_ascon.build()
    first = ascon_compiled.library_path()
    assert first.exists()
    assert "up to date" in build_ascon.build()

    with (sources / "_ascon.c").open("a") as source:
        source.write("/* changed */\n")
    assert ascon_compiled.available_cores.__wrapped__() == {}
    assert "built" in build_ascon.build()
    assert ascon_compiled.library_path() != first
    assert [path.name for path in sources.glob("*.so")] == [ascon_compiled.library_path().name]
    assert 1 in ascon_compiled.available_cores.__wrapped__()


@needs_compiler
def test_a_library_that_computes_wrongly_is_refused(sources: Path) -> None:
    lanes = sources / "_ascon_lanes.h"
    lanes.write_text(lanes.read_text().replace("ROR(t0, 19)", "ROR(t0, 18)"))
    build_ascon.build()
    with pytest.raises(SelfTestError):
        ascon_compiled.available_cores.__wrapped__()


def test_without_a_compiler_it_says_so_and_succeeds(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert build_ascon.main() == 0
    assert capsys.readouterr().out == "ascon: no C compiler found, the NumPy form serves (slow)\n"
    assert ascon_compiled.available_cores.__wrapped__() == {}


def test_a_compiler_that_fails_costs_one_line(
    sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "fatal error: stdint.h: No such file\nmore\n")

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/cc")
    monkeypatch.setattr(subprocess, "run", fail)
    assert build_ascon.main() == 0
    assert "stdint.h" in (line := capsys.readouterr().out) and line.count("\n") == 1
    assert not list(sources.glob("*.so"))
