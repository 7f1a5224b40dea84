"""Building the compiled forms: with a compiler, without one, with a broken one, and after a change of the sources."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latticeward import build_kernels
from latticeward.compiled import Kernel
from latticeward.crypto import ascon_compiled
from latticeward.errors import SelfTestError
from latticeward.updates import ring

# Module with a KERNEL, its loader without the cache, and a change that makes it compute wrongly.
KERNELS: list[tuple[Any, Any, tuple[str, str, str]]] = [
    (ascon_compiled, ascon_compiled.available_cores.__wrapped__, ("_ascon_lanes.h", "ROR(t0, 19)", "ROR(t0, 18)")),
    (ring, ring._compiled.__wrapped__, ("_ring.c", "s[i] += a[i];", "s[i] -= a[i];")),
    (ring, ring._compiled.__wrapped__, ("_ring.c", "bb_high + 2 * ab_low", "bb_high + ab_low")),
]
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler here")


@pytest.fixture(params=KERNELS, ids=("ascon", "ring", "extent"))
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Kernel, Any, Any]:
    """A copy of a kernel's sources in a folder of their own, which its loader then takes for the package's."""
    module, load, flaw = request.param
    for name in module.KERNEL.sources:
        shutil.copy(module.KERNEL.folder / name, tmp_path)
    copied = replace(module.KERNEL, folder=tmp_path)
    monkeypatch.setattr(module, "KERNEL", copied)
    monkeypatch.setattr(build_kernels, "KERNELS", (copied,))
    return copied, load, flaw


@needs_compiler
def test_it_builds_once_and_again_after_a_change(case: tuple[Kernel, Any, Any]) -> None:
    kernel, load, _ = case
    assert "built" in build_kernels.build(kernel)
    first = kernel.path()
    assert first.exists()
    assert "up to date" in build_kernels.build(kernel)

    with (kernel.folder / kernel.sources[0]).open("a") as source:
        source.write("/* changed */\n")
    assert not load()
    assert "built" in build_kernels.build(kernel)
    assert kernel.path() != first
    assert [path.name for path in kernel.folder.glob("*.so")] == [kernel.path().name]
    assert load()


@needs_compiler
def test_a_library_that_computes_wrongly_is_refused(case: tuple[Kernel, Any, Any]) -> None:
    kernel, load, (name, right, wrong) = case
    source = kernel.folder / name
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, wrong))
    build_kernels.build(kernel)
    with pytest.raises(SelfTestError):
        load()


def test_without_a_compiler_it_says_so_and_succeeds(
    case: tuple[Kernel, Any, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel, load, _ = case
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert build_kernels.main() == 0
    assert capsys.readouterr().out == f"{kernel.name}: no C compiler found, the NumPy form serves (slow)\n"
    assert not load()


def test_a_compiler_that_fails_costs_one_line(
    case: tuple[Kernel, Any, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "fatal error: stdint.h: No such file\nmore\n")

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/cc")
    monkeypatch.setattr(subprocess, "run", fail)
    assert build_kernels.main() == 0
    assert "stdint.h" in (line := capsys.readouterr().out) and line.count("\n") == 1
    assert not list(case[0].folder.glob("*.so"))
