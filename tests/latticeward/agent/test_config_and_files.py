"""Configuration, the floor, and files that survive a power cut."""

import os
from pathlib import Path
from typing import Any

import pytest

from latticeward.agent.config import AgentConfig
from latticeward.agent.files import read_json, write_atomically, write_json
from latticeward.agent.floor import Floor
from latticeward.agent.identity import KEYS_FILE, Identity, load_or_make_secrets, load_secrets
from latticeward.agent.state import AgentState
from latticeward.errors import CustodyError, MalformedMessageError, PlanBelowFloorError
from latticeward.plan_parts import StragglerRule
from tests.latticeward.agent.fakes import heart_plan, identity_of
from tests.latticeward.peers import authority


def load(home: Path, text: str = "", environment: dict[str, str] | None = None, **given: Any) -> AgentConfig:
    home.mkdir(exist_ok=True)
    (home / "agent.toml").write_text(text, encoding="utf-8")
    return AgentConfig.load(home, given=given, environment=environment or {})


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    text = 'job = "heart"\nsite = "hungary"\npoll_seconds = 5\n'
    environment = {"LATTICEWARD_AGENT_SITE": "cleveland", "LATTICEWARD_AGENT_POLL_SECONDS": "7"}
    config = load(tmp_path, text, environment, site="switzerland", job="")
    assert (config.job, config.site, config.poll_seconds) == ("heart", "switzerland", 7)
    assert load(tmp_path, text, environment).site == "cleveland"
    assert load(tmp_path).poll_seconds == 20


@pytest.mark.parametrize(
    "text",
    ["jop = 'heart'", "poll_seconds = 61", "poll_seconds = 'soon'", "[floor]\nquorun = 4", "[floor]\nquorum = 'four'",
     "job = ", "[floor]\nquorum = true"],
)  # fmt: skip
def test_a_setting_that_does_not_exist_or_fit_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MalformedMessageError):
        load(tmp_path, text)


def test_the_floor_comes_from_the_file_and_not_from_the_environment(tmp_path: Path) -> None:
    config = load(tmp_path, "[floor]\nquorum = 4\nclip_norm_max = 2\nsuites = ['high']\n")
    assert (config.floor.quorum, config.floor.clip_norm_max, config.floor.suites) == (4, 2.0, ("high",))
    assert load(tmp_path, "", {"LATTICEWARD_AGENT_FLOOR": "none"}).floor == Floor()


def test_the_default_floor_accepts_the_default_plan() -> None:
    Floor().require(heart_plan())


@pytest.mark.parametrize(
    "changes",
    [
        {"protections": ("masked",)},
        {"suites": ("high",)},
        {"quorum": 4},
        {"k_hospitals": 4},
        {"k_patients": 11},
        {"clip_norm_max": 3.9},
        {"noise_multiplier_min": 0.1},
        {"metrics": ("accuracy",)},
        {"rounds_max": 14},
        {"trainer_max": {"epochs": 0.5}},
    ],
    ids=lambda value: next(iter(value)),
)
def test_each_line_of_the_floor_refuses_in_words(changes: dict[str, Any]) -> None:
    with pytest.raises(PlanBelowFloorError, match="below this hospital's floor: it"):
        Floor(**changes).require(heart_plan())


def test_a_plan_that_waits_longer_for_stragglers_than_the_hospital_allows_is_refused() -> None:
    plan = heart_plan(stragglers=StragglerRule(rule="wait", seconds=60)).validate()
    Floor(straggler_seconds_max=60).require(plan)
    with pytest.raises(PlanBelowFloorError, match="it waits 60 s for stragglers"):
        Floor(straggler_seconds_max=59).require(plan)


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


def test_files_and_directories_are_their_owners_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "home" / "file.json", {"a": 1})
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "home" / "file.json").stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_not_taken_for_a_fresh_start(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b'{"v": 1')
    with pytest.raises(CustodyError):
        AgentState.load(tmp_path)
    (tmp_path / "state.json").write_bytes(b"[]")
    with pytest.raises(CustodyError):
        read_json(tmp_path / "state.json")


def test_keys_are_made_once_and_survive(tmp_path: Path) -> None:
    made = load_or_make_secrets(tmp_path)
    again = load_or_make_secrets(tmp_path)
    assert made.keys.public.matches(again.keys.public)
    assert made.local_seed == again.local_seed
    assert (tmp_path / KEYS_FILE).stat().st_mode & 0o777 == 0o600
    for text in (repr(made), str(made)):
        assert made.local_seed.hex() not in text and repr(made.local_seed) not in text


def test_keys_that_others_may_read_or_that_are_damaged_are_refused(tmp_path: Path) -> None:
    load_or_make_secrets(tmp_path)
    (tmp_path / KEYS_FILE).chmod(0o644)
    with pytest.raises(CustodyError, match="0600"):
        load_secrets(tmp_path)
    (tmp_path / KEYS_FILE).chmod(0o600)
    (tmp_path / KEYS_FILE).write_text('{"v": 1, "seeds": {"local": "00"}}', encoding="utf-8")
    with pytest.raises(CustodyError, match="seeds"):
        load_secrets(tmp_path)


def test_an_identity_survives_and_needs_its_keys(tmp_path: Path) -> None:
    assert Identity.load(tmp_path) is None
    secrets = load_or_make_secrets(tmp_path)
    identity = identity_of(authority())
    identity.save(tmp_path)
    read = Identity.load(tmp_path)
    assert read is not None
    assert (read.device_id, read.anchor, read.certificate_chain) == (
        identity.device_id,
        identity.anchor,
        identity.certificate_chain,
    )
    assert read.secrets.keys.public.matches(secrets.keys.public)
    (tmp_path / KEYS_FILE).unlink()
    with pytest.raises(CustodyError):
        Identity.load(tmp_path)
