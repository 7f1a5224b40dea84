"""The vault: who may open what, and that nothing changed, moved or lost opens at all."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from django.core import checks

from keys import vault
from keys.checks import check_foreign_key_files
from keys.vault import GROUP_OF_PURPOSE, GROUPS_OF_ROLE
from keys.vault_providers import FileProvider, Group, KeyRing
from latticeward.crypto.signing import Purpose
from latticeward.errors import CustodyError

SEED = bytes(range(32))
ROW = "0d3e0b0e-8f0c-4d5e-9b0f-000000000001"


@pytest.fixture(autouse=True)
def own_vault(settings: Any, tmp_path: Path) -> None:
    settings.VAULT_DIR = tmp_path / "vault"
    settings.VAULT_PROVIDER = "file"
    settings.ROLE = "all"


def wrapped(purpose: str = "plan") -> bytes:
    vault.initialise()
    return vault.wrap(SEED, purpose=purpose, row_id=ROW, algorithm="mldsa65-ed25519")


def test_what_was_wrapped_opens_and_does_not_show() -> None:
    raw = wrapped()
    assert SEED not in raw
    assert vault.unwrap(raw, purpose="plan", row_id=ROW, algorithm="mldsa65-ed25519") == SEED


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "checkpoint"},
        {"purpose": "submission-receipt"},
        {"row_id": "0d3e0b0e-8f0c-4d5e-9b0f-000000000002"},
        {"algorithm": "mldsa87-p384"},
    ],
)
def test_a_row_swapped_for_another_does_not_open(changes: dict[str, str]) -> None:
    right = {"purpose": "plan", "row_id": ROW, "algorithm": "mldsa65-ed25519"}
    with pytest.raises(CustodyError):
        vault.unwrap(wrapped(), **{**right, **changes})


def test_a_changed_or_cut_row_does_not_open() -> None:
    raw = wrapped()
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        with pytest.raises(CustodyError):
            vault.unwrap(bytes(changed), purpose="plan", row_id=ROW, algorithm="mldsa65-ed25519")
        with pytest.raises(CustodyError):
            vault.unwrap(raw[:position], purpose="plan", row_id=ROW, algorithm="mldsa65-ed25519")


@pytest.mark.parametrize("role", GROUPS_OF_ROLE)
@pytest.mark.parametrize("purpose", GROUP_OF_PURPOSE)
def test_a_role_opens_its_own_purposes_and_no_others(settings: Any, role: str, purpose: str) -> None:
    raw = wrapped(purpose)
    settings.ROLE = role
    if GROUP_OF_PURPOSE[purpose] in GROUPS_OF_ROLE[role]:
        assert vault.unwrap(raw, purpose=purpose, row_id=ROW, algorithm="mldsa65-ed25519") == SEED
        return
    with pytest.raises(CustodyError, match=f"role {role}"):
        vault.unwrap(raw, purpose=purpose, row_id=ROW, algorithm="mldsa65-ed25519")
    with pytest.raises(CustodyError):
        vault.wrap(SEED, purpose=purpose, row_id=ROW)


def test_a_web_process_signs_receipts_and_nothing_else() -> None:
    signing = {purpose for purpose in Purpose if purpose in GROUP_OF_PURPOSE}
    web = {purpose for purpose in signing if GROUP_OF_PURPOSE[purpose] in GROUPS_OF_ROLE["web"]}
    assert web == {Purpose.SUBMISSION_RECEIPT}


def test_the_keys_of_one_group_do_not_open_another_even_with_the_code_changed(settings: Any) -> None:
    raw = wrapped("plan")
    authority = Path(settings.VAULT_DIR) / "authority.kek"
    authority.write_text((Path(settings.VAULT_DIR) / "web.kek").read_text())
    vault.forget_keks()
    with pytest.raises(CustodyError):
        vault.unwrap(raw, purpose="plan", row_id=ROW, algorithm="mldsa65-ed25519")


def test_key_files_are_made_for_this_user_only_and_never_replaced(settings: Any) -> None:
    assert set(vault.initialise()) == set(Group)
    for group in Group:
        path = Path(settings.VAULT_DIR) / f"{group}.kek"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert vault.initialise() == []


def test_a_role_makes_its_own_key_files_only(settings: Any) -> None:
    settings.ROLE = "aggregate"
    assert vault.initialise() == [Group.ROUNDS]


def test_a_missing_key_file_is_told_in_one_sentence(settings: Any) -> None:
    raw = wrapped()
    (Path(settings.VAULT_DIR) / "authority.kek").unlink()
    vault.forget_keks()
    for use in (
        vault.require_keks,
        lambda: vault.unwrap(raw, purpose="plan", row_id=ROW, algorithm="mldsa65-ed25519"),
    ):
        with pytest.raises(CustodyError, match=r"authority\.kek is missing: restore it"):
            use()


def test_a_key_file_that_others_can_read_is_refused_and_not_replaced(settings: Any) -> None:
    vault.initialise()
    path = Path(settings.VAULT_DIR) / "rounds.kek"
    before = path.read_text()
    path.chmod(0o644)
    vault.forget_keks()
    with pytest.raises(CustodyError, match="open to others"):
        vault.initialise()
    assert path.read_text() == before


@pytest.mark.parametrize(
    "text", ["", "1:abcd\n", "one:" + "00" * 32, "0:" + "00" * 32, "1:" + "00" * 32 + "\n1:" + "11" * 32]
)
def test_a_damaged_key_file_is_refused(settings: Any, text: str) -> None:
    vault.initialise()
    (Path(settings.VAULT_DIR) / "web.kek").write_text(text)
    vault.forget_keks()
    with pytest.raises(CustodyError):
        vault.require_keks()


def test_an_older_version_still_opens_and_the_newest_wraps(settings: Any) -> None:
    old = wrapped()
    path = Path(settings.VAULT_DIR) / "authority.kek"
    path.write_text(path.read_text() + "2:" + "5a" * 32 + "\n")
    vault.forget_keks()
    new = vault.wrap(SEED, purpose="plan", row_id=ROW, algorithm="mldsa65-ed25519")
    assert (old[4], new[4]) == (1, 2)
    for raw in (old, new):
        assert vault.unwrap(raw, purpose="plan", row_id=ROW, algorithm="mldsa65-ed25519") == SEED


def while_the_other_is_about_to_write(
    monkeypatch: pytest.MonkeyPatch, first: Callable[[], object], second: Callable[[], bytes]
) -> list[bytes]:
    """Run both, the second in the instant before the first writes its key file; what the second wrapped, if it did."""
    write, made, threads = FileProvider.write, [], []

    def come() -> None:
        with suppress(CustodyError):
            made.append(second())

    def interrupted(provider: FileProvider, group: Group, ring: KeyRing) -> None:
        if not threads:
            threads.append(Thread(target=come))
            threads[0].start()
            threads[0].join(0.3)  # it is through by then, or waits for us
        write(provider, group, ring)

    monkeypatch.setattr(FileProvider, "write", interrupted)
    first()
    threads[0].join()
    vault.forget_keks()
    return made


def test_of_two_processes_that_start_first_at_once_both_wrap_with_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    (raw,) = while_the_other_is_about_to_write(monkeypatch, vault.initialise, wrapped)
    assert vault.unwrap(raw, purpose="plan", row_id=ROW, algorithm="mldsa65-ed25519") == SEED


def test_of_two_rotations_at_once_none_writes_over_a_version_that_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    vault.initialise()

    def rotate_and_wrap() -> bytes:
        vault.stage_version(Group.AUTHORITY)
        vault.activate_version(Group.AUTHORITY)
        return wrapped()

    made = while_the_other_is_about_to_write(monkeypatch, lambda: vault.stage_version(Group.AUTHORITY), rotate_and_wrap)
    for raw in made:
        assert vault.unwrap(raw, purpose="plan", row_id=ROW, algorithm="mldsa65-ed25519") == SEED


def test_keys_may_come_from_the_environment(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.VAULT_PROVIDER, settings.ROLE = "env", "web"
    with pytest.raises(CustodyError, match="LATTICEWARD_KEK_WEB is not set"):
        vault.wrap(SEED, purpose="claim", row_id=ROW)
    with pytest.raises(CustodyError):
        vault.initialise()
    monkeypatch.setenv("LATTICEWARD_KEK_WEB", "1:" + "11" * 32)
    raw = vault.wrap(SEED, purpose="claim", row_id=ROW)
    assert vault.unwrap(raw, purpose="claim", row_id=ROW) == SEED


def test_an_unknown_purpose_is_refused() -> None:
    vault.initialise()
    with pytest.raises(CustodyError):
        vault.wrap(SEED, purpose="anything", row_id=ROW)


def test_the_system_check_refuses_a_role_that_can_read_foreign_key_files(settings: Any) -> None:
    vault.initialise()
    assert check_foreign_key_files(None) == []
    settings.ROLE = "web"
    found = check_foreign_key_files(None)
    assert {problem.id for problem in found} == {"latticeward.E101"}
    assert len(found) == 2
    for group in (Group.AUTHORITY, Group.ROUNDS):
        os.unlink(Path(settings.VAULT_DIR) / f"{group}.kek")
    assert check_foreign_key_files(None) == []
    assert check_foreign_key_files in checks.registry.registry.get_checks()
