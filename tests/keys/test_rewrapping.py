"""Changing key-encryption keys while everything runs, and what a tampered row does to it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command

from controlplane.audit.models import AuditEntry
from controlplane.management.commands.rotate_kek import COLUMNS
from devices import enrolment
from devices.models import Claim, Federation, Site
from keys import rewrapping, vault
from keys.models import Key
from keys.services import forget_loaded_keys, sign_receipt, sign_with
from keys.vault_providers import Group
from latticeward.crypto.signing import Purpose
from latticeward.errors import ClaimRefusedError, CustodyError
from tests.devices.machine import Machine, enrolled
from tests.rounds.cohort import Cohort


@pytest.fixture(autouse=True)
def own_vault(settings: Any, tmp_path: Path) -> Iterator[None]:
    settings.VAULT_DIR, settings.VAULT_PROVIDER, settings.ROLE = tmp_path / "vault", "file", "all"
    settings.BLOB_DIR = tmp_path / "blobs"
    enrolment._decoy.cache_clear()
    yield
    enrolment._decoy.cache_clear()


def versions_in_use() -> set[int]:
    found = set()
    for column in COLUMNS:
        for raw in column.model._default_manager.values_list(column.column, flat=True):
            if raw:
                found.add(vault.version_of(bytes(raw)))
    return found


def let_time_pass(settings: Any) -> None:
    """As if the files had been changed a minute ago."""
    for group in Group:
        os.utime(Path(settings.VAULT_DIR) / f"{group}.kek", (time.time() - 60, time.time() - 60))


def test_every_wrapped_column_of_every_app_is_rotated() -> None:
    found = {
        (model._meta.label, field.name)
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if field.name.startswith("wrapped_")
    }
    assert {(column.model._meta.label, column.column) for column in COLUMNS} == found


def test_a_whole_system_goes_on_across_a_rotation(db: None, settings: Any) -> None:
    cohort = Cohort.enrol()
    training = cohort.train()
    first = cohort.whole_round(training)
    waiting = Machine.with_claim(cohort.hospitals[0].machine.site)
    second = cohort.collecting(training)
    cohort.hospitals[0].contribute(second, cohort.weights(first))

    call_command("rotate_kek", skip_checks=True)
    assert versions_in_use() == {2}
    let_time_pass(settings)
    call_command("rotate_kek", "--retire", skip_checks=True)
    assert all(set(vault.key_ring(group).versions) == {2} for group in Group)

    forget_loaded_keys()
    first = cohort.look(first)
    for hospital in cohort.hospitals[1:]:
        assert hospital.contribute(second, cohort.weights(first)).outcome == "accepted"
    assert cohort.publish(second).state == "published"
    assert waiting.enrol().state == "active"
    events = AuditEntry.objects.filter(event__startswith="vault.").values_list("event", flat=True)
    assert set(events) == {
        "vault.version_staged",
        "vault.version_activated",
        "vault.rewrapped",
        "vault.versions_retired",
    }


def test_a_rotation_that_was_interrupted_goes_on_where_it_stopped(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rewrapping, "BATCH", 3)
    vault.stage_version(Group.AUTHORITY)
    vault.activate_version(Group.AUTHORITY)

    class Crash(Exception):
        pass

    def crash(label: str, done: int) -> None:
        if done >= 6:
            raise Crash

    with pytest.raises(Crash):
        rewrapping.rewrap(COLUMNS, Group.AUTHORITY, actor="system", progress=crash)
    assert versions_in_use() == {1, 2}
    assert sign_with(Purpose.PLAN, b"words")
    call_command("rotate_kek", "--group", "authority", "--rewrap", skip_checks=True)
    said = capsys.readouterr().out
    assert "keys.Key.wrapped_secret, 3 rows looked at" in said and "were so already" in said
    authority = Key.objects.exclude(purpose="submission-receipt").exclude(wrapped_secret=None)
    assert {vault.version_of(bytes(row.wrapped_secret or b"")) for row in authority} == {2}


def test_a_pending_version_is_read_and_does_not_wrap(federation: Federation, settings: Any) -> None:
    path = Path(settings.VAULT_DIR) / "web.kek"
    before = path.read_text()
    call_command("rotate_kek", "--group", "web", "--stage", skip_checks=True)
    staged = path.read_text()
    assert staged.startswith(before) and staged.endswith(":pending\n")
    raw = vault.wrap(b"words", purpose="claim", row_id="1")
    assert vault.version_of(raw) == 1
    with pytest.raises(CommandError, match="is pending already"):
        call_command("rotate_kek", "--group", "web", "--stage", skip_checks=True)
    call_command("rotate_kek", "--group", "web", "--activate", skip_checks=True)
    newer = vault.wrap(b"words", purpose="claim", row_id="1")
    assert vault.version_of(newer) == 2
    # Another machine, whose copy of the file still says pending, opens what this one wraps.
    path.write_text(staged)
    vault.forget_keks()
    assert vault.unwrap(newer, purpose="claim", row_id="1") == b"words"


def test_another_process_notices_a_new_version_by_itself(
    federation: Federation, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(settings.VAULT_DIR) / "web.kek"
    vault.wrap(b"words", purpose="claim", row_id="1")  # this process has read the file
    path.write_text(path.read_text() + "2:" + "5a" * 32 + "\n")
    assert vault.version_of(vault.wrap(b"words", purpose="claim", row_id="1")) == 1
    monkeypatch.setattr(vault, "READ_AGAIN_SECONDS", -1.0)
    assert vault.version_of(vault.wrap(b"words", purpose="claim", row_id="1")) == 2


def test_old_versions_are_not_retired_while_another_process_may_still_wrap_under_them(federation: Federation) -> None:
    call_command("rotate_kek", "--group", "web", skip_checks=True)
    with pytest.raises(CommandError, match="a moment ago"):
        call_command("rotate_kek", "--group", "web", "--retire", skip_checks=True)
    assert set(vault.key_ring(Group.WEB).versions) == {1, 2}


def test_a_tampered_row_is_named_left_alone_and_keeps_its_version_from_being_retired(
    site: Site, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine.with_claim(site)
    claim = Claim.objects.get(pk=machine.claim.pk)
    bent = bytes(claim.wrapped_key or b"")
    bent = bent[:-1] + bytes([bent[-1] ^ 1])
    Claim.objects.filter(pk=claim.pk).update(wrapped_key=bent)
    with pytest.raises(CommandError, match="1 rows do not open"):
        call_command("rotate_kek", "--group", "web", skip_checks=True)
    assert f"devices.Claim.wrapped_key {claim.pk}" in capsys.readouterr().err
    claim.refresh_from_db()
    assert bytes(claim.wrapped_key or b"") == bent
    assert sign_receipt(b"words")  # everything else was wrapped anew and opens
    let_time_pass(settings)
    with pytest.raises(CommandError, match="do not open"):
        call_command("rotate_kek", "--group", "web", "--retire", skip_checks=True)
    assert set(vault.key_ring(Group.WEB).versions) == {1, 2}


def test_a_role_rotates_its_own_keys_only(federation: Federation, settings: Any) -> None:
    settings.ROLE = "web"
    with pytest.raises(CommandError, match="role web"):
        call_command("rotate_kek", "--group", "rounds", "--stage", skip_checks=True)
    settings.VAULT_PROVIDER = "env"
    with pytest.raises(CustodyError):
        vault.stage_version(Group.WEB)


def test_unknown_claims_are_refused_alike_after_a_rotation(
    site: Site, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine.with_claim(site)
    raw = machine.transcript(claim_id=b"12345")
    minute = 60 * (int(time.time()) // 60)
    clock = mock.Mock(time=lambda: minute)
    monkeypatch.setattr(enrolment, "time", clock)
    with pytest.raises(ClaimRefusedError):
        enrolment.begin_enrolment(transcript=raw, mac=bytes(32), source="192.0.2.7")
    call_command("rotate_kek", "--group", "web", skip_checks=True)
    let_time_pass(settings)
    call_command("rotate_kek", "--group", "web", "--retire", skip_checks=True)
    clock.time = lambda: minute + 2 * vault.READ_AGAIN_SECONDS  # the earliest that versions are retired
    with pytest.raises(ClaimRefusedError):
        enrolment.begin_enrolment(transcript=raw, mac=bytes(32), source="192.0.2.7")
    assert enrolled(site).device is not None
