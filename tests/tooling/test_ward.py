"""The `ward` script: what it says, what it does once, and what it does where something is missing."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench import BENCHES
from latticeward.jobs import JOB_SPECS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ward(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, with an environment folder of its own."""
    monkeypatch.setenv("LATTICEWARD_ENV", str(tmp_path / "env"))
    loader = SourceFileLoader("ward_under_test", str(ROOT / "ward"))
    spec = importlib.util.spec_from_loader("ward_under_test", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def run_ward(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "ward", *arguments], capture_output=True, text=True, check=False)


def test_without_a_command_it_lists_them_all(ward: ModuleType) -> None:
    done = run_ward()
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in ward.COMMANDS)


def test_an_unknown_command_is_refused_with_the_list() -> None:
    done = run_ward("dmeo")
    assert done.returncode == 2
    assert "no command 'dmeo'" in done.stderr
    assert "demo" in done.stderr


def test_it_knows_which_jobs_need_torch(ward: ModuleType) -> None:
    assert set(ward.TORCH_JOBS) == {name for name, job in JOB_SPECS.items() if job.needs_torch}
    assert set(ward.TORCH_BENCHES) <= set(BENCHES)


def test_its_torch_is_the_pinned_one(ward: ModuleType) -> None:
    assert any(line.startswith(f"{ward.TORCH} ") for line in (ROOT / "requirements.txt").read_text().splitlines())


def test_without_venv_a_user_is_told_the_one_command(ward: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(ward.os, "geteuid", lambda: 1000)
    with pytest.raises(ward.WardError, match="sudo apt-get install -y --no-install-recommends python3-venv"):
        ward.make_environment()


def test_without_venv_root_has_it_installed_and_lists_are_fetched_only_if_need_be(
    ward: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        calls.append(command)
        return subprocess.CompletedProcess(command, returncode=100 if len(calls) == 1 else 0)

    monkeypatch.setattr(ward.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(ward.os, "geteuid", lambda: 0)
    monkeypatch.setattr(ward.shutil, "which", lambda name, path=None: f"/usr/bin/{name}")
    monkeypatch.setattr(ward.subprocess, "run", run)
    monkeypatch.setattr(ward, "run_logged", lambda *_, **__: "")
    ward.make_environment()
    assert [command[1] for command in calls] == ["install", "update", "install"]


def test_a_folder_that_is_no_environment_is_left_alone(ward: ModuleType) -> None:
    ward.ENVIRONMENT.mkdir()
    (ward.ENVIRONMENT / "thesis.txt").write_text("do not delete")
    with pytest.raises(ward.WardError, match="is no virtual environment"):
        ward.make_environment()
    assert (ward.ENVIRONMENT / "thesis.txt").exists()


def recording(calls: list[list[str]]) -> Callable[..., str]:
    def run_logged(command: list[Any], **_: Any) -> str:
        calls.append([str(part) for part in command])
        return ""

    return run_logged


def test_a_lock_is_installed_once_with_hashes_and_again_when_it_changed(
    ward: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(ward, "run_logged", recording(calls))
    monkeypatch.setattr(ward, "ROOT", tmp_path)
    ward.ENVIRONMENT.mkdir()
    lock = tmp_path / "requirements.lock"
    lock.write_text("six==1.17.0 \\\n    --hash=sha256:00\n")
    for _ in range(2):
        ward.install_lock("requirements.lock", "things", ward.read_stamp())
    assert len(calls) == 1
    assert "--require-hashes" in calls[0]
    lock.write_text("six==1.17.0 \\\n    --hash=sha256:01\n")
    ward.install_lock("requirements.lock", "things", ward.read_stamp())
    assert len(calls) == 2


def test_page_files_are_fetched_again_if_one_is_gone(
    ward: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(ward, "run_logged", recording(calls))
    monkeypatch.setattr(ward, "ROOT", tmp_path)
    monkeypatch.setattr(ward, "node_is_new_enough", lambda path: True)
    ward.ENVIRONMENT.mkdir()
    served = tmp_path / "frontend" / "static" / "vendor"
    served.mkdir(parents=True)
    for name in ("package-lock.json", "vendor.py"):
        (tmp_path / "frontend" / name).write_text("")
    (tmp_path / "frontend" / "vendor.json").write_text('[{"from": "a/b.js", "to": "b.js", "sha256": ""}]')
    (served / "b.js").write_text("")
    for _ in range(2):
        ward.fetch_page_files(ward.read_stamp(), everything=False)
    assert len(calls) == 1
    (served / "b.js").unlink()
    ward.fetch_page_files(ward.read_stamp(), everything=False)
    assert len(calls) == 2


def test_a_failed_step_shows_the_end_of_its_output(ward: ModuleType) -> None:
    ward.ENVIRONMENT.mkdir()
    with pytest.raises(ward.WardError, match="no such thing"), ward.Step("trying") as step:
        ward.run_logged([sys.executable, "-c", "raise SystemExit('no such thing')"], step=step)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Collecting django==5.2.19 (from -r requirements.lock (line 3))", "django (1 of 64)"),
        ("Requirement already satisfied: six==1.17.0 in /x", "six (1 of 64)"),
        ("Installing collected packages: six, django", "unpacking"),
        ("  Downloading django-5.2.19-py3-none-any.whl (8.3 MB)", ""),
    ],
)
def test_pip_is_followed_package_by_package(ward: ModuleType, line: str, shown: str) -> None:
    assert ward.PipWatch(64)(line) == shown
