"""The authority: what it makes, what it signs with, and what a device believes of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices.models import Federation
from keys import offline, rotation, vault
from keys.ceremony import init_authority
from keys.models import Authority, Certificate, Key, Statement
from keys.selectors import server_keys, server_verify_key, trust_anchor, trust_document
from keys.services import forget_loaded_keys, sign_receipt, sign_with
from latticeward.crypto.signing import Purpose, verify_message
from latticeward.errors import CustodyError, DecryptionError, KeyUsageError, StateError, UntrustedIssuerError
from latticeward.trust import TrustStore

PASSPHRASE = "correct horse battery staple"


def believed(federation: Federation) -> TrustStore:
    """What a device makes of the trust document."""
    return TrustStore.from_signed(
        trust_document(),
        anchor_fingerprint=trust_anchor().fingerprint,
        now=datetime.now(UTC),
        authority=rotation.server_address(),
    )


def test_a_device_believes_the_trust_document_and_every_key_in_it(federation: Federation) -> None:
    store = believed(federation)
    assert store.federation_id == str(federation.id)
    for purpose in (*rotation.ANCHORED, Purpose.SUBMISSION_RECEIPT):
        signed = sign_with(purpose, b"words")
        assert verify_message(signed, purpose=purpose, key=store.verify_key(purpose)) == b"words"
        assert server_verify_key(purpose).key_id == store.verify_key(purpose).key_id
    assert store.root_certificate == bytes(Certificate.objects.get(key__purpose="root").der)


def test_the_anchor_signs_trust_statements_and_nothing_else(federation: Federation) -> None:
    with pytest.raises(UntrustedIssuerError):
        believed(federation).verify_key(Purpose.TRUST)


def test_every_secret_is_wrapped_under_its_own_purpose(federation: Federation) -> None:
    rows = Key.objects.filter(owner="authority")
    assert rows.count() == 2 + 1 + len(rotation.ANCHORED) + 1
    for row in rows:
        seed = vault.unwrap(
            bytes(row.wrapped_secret or b""), purpose=row.purpose, row_id=str(row.id), algorithm=row.algorithm
        )
        assert seed not in bytes(row.wrapped_secret or b"")


def test_a_swapped_row_stops_signing(federation: Federation) -> None:
    plan, record = server_keys(Purpose.PLAN).get(), server_keys(Purpose.ROUND_RECORD).get()
    Key.objects.filter(pk=plan.pk).update(wrapped_secret=record.wrapped_secret)
    forget_loaded_keys()
    with pytest.raises(CustodyError):
        sign_with(Purpose.PLAN, b"words")


def test_a_row_with_another_public_key_stops_signing(federation: Federation) -> None:
    other = server_keys(Purpose.ROUND_RECORD).get()
    server_keys(Purpose.PLAN).update(public_key=other.public_key)
    with pytest.raises(CustodyError, match="another public key"):
        sign_with(Purpose.PLAN, b"words")


def test_a_web_process_can_sign_receipts_only(federation: Federation, settings: Any) -> None:
    settings.ROLE = "web"
    forget_loaded_keys()
    assert sign_receipt(b"words")
    for purpose in rotation.ANCHORED:
        with pytest.raises(CustodyError):
            sign_with(purpose, b"words")


def test_the_receipt_key_is_renewed_before_it_ends_and_the_old_one_is_still_believed(
    federation: Federation,
) -> None:
    old = server_keys(Purpose.SUBMISSION_RECEIPT).get()
    signed = sign_receipt(b"words")
    rotation.keep_current()
    assert server_keys(Purpose.SUBMISSION_RECEIPT).get() == old
    Key.objects.filter(pk=old.pk).update(not_after_at=timezone.now() + timedelta(hours=11))
    rotation.keep_current()
    new = server_keys(Purpose.SUBMISSION_RECEIPT).get()
    assert new != old
    assert Key.objects.get(pk=old.pk).state == "deactivated"
    key = believed(federation).verify_key(Purpose.SUBMISSION_RECEIPT, key_id=bytes.fromhex(old.key_id))
    assert verify_message(signed, purpose=Purpose.SUBMISSION_RECEIPT, key=key) == b"words"
    again = verify_message(
        sign_receipt(b"words"),
        purpose=Purpose.SUBMISSION_RECEIPT,
        key=believed(federation).verify_key(Purpose.SUBMISSION_RECEIPT, key_id=bytes.fromhex(new.key_id)),
    )
    assert again == b"words"


def test_an_expired_key_is_not_signed_with(federation: Federation) -> None:
    server_keys(Purpose.SUBMISSION_RECEIPT).update(not_after_at=timezone.now())
    forget_loaded_keys()
    with pytest.raises(CustodyError, match="no active key"):
        sign_receipt(b"words")


def test_rotating_a_server_key_publishes_a_trust_statement_that_names_both(federation: Federation) -> None:
    before = believed(federation)
    signed = sign_with(Purpose.PLAN, b"words")
    rotation.rotate_server_key(purpose=Purpose.PLAN, actor="user:1")
    after = believed(federation)
    assert after.sequence == before.sequence + 1
    old_id = before.verify_key(Purpose.PLAN).key_id
    assert after.verify_key(Purpose.PLAN).key_id == server_verify_key(Purpose.PLAN).key_id != old_id
    old = after.verify_key(Purpose.PLAN, key_id=old_id)
    assert verify_message(signed, purpose=Purpose.PLAN, key=old) == b"words"


def test_another_address_gets_another_trust_statement(federation: Federation, settings: Any) -> None:
    first = believed(federation).sequence
    settings.PUBLIC_URL = "https://ward.example"
    rotation.keep_current()
    store = believed(federation)
    assert (store.statement.authority, store.sequence) == ("ward.example", first + 1)


def test_initialising_again_keeps_everything(federation: Federation) -> None:
    keys, statements = Key.objects.count(), Statement.objects.count()
    init_authority(federation_id=federation.id, federation="heart")
    assert (Key.objects.count(), Statement.objects.count(), Authority.objects.count()) == (keys, statements, 1)


def test_another_federation_is_refused(federation: Federation) -> None:
    with pytest.raises(StateError):
        init_authority(federation_id="0d3e0b0e-8f0c-4d5e-9b0f-000000000001", federation="other")


def test_a_lost_vault_is_told_and_not_replaced(federation: Federation, settings: Any, tmp_path: Path) -> None:
    settings.VAULT_DIR = tmp_path
    with pytest.raises(CustodyError, match="is missing: restore it"):
        init_authority(federation_id=federation.id, federation="heart")
    assert list(tmp_path.iterdir()) == []


def test_the_trust_document_is_served_to_anybody(federation: Federation, client: Client) -> None:
    answer = client.get("/api/v1/trust")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/cbor"
    assert answer.content == trust_document()


def test_without_an_authority_the_trust_document_is_a_problem(db: None, client: Client) -> None:
    answer = client.get("/api/v1/trust")
    assert answer.status_code == 500
    assert answer.json()["type"] == "custody_failed"


def test_root_and_anchor_leave_and_come_back(federation: Federation) -> None:
    file = offline.export_offline(passphrase=PASSPHRASE, actor="user:2")
    anchor = server_keys(Purpose.TRUST).get()
    offline.remove_offline(file=file, passphrase=PASSPHRASE, actor="user:2")
    assert set(Key.objects.filter(wrapped_secret=None).values_list("purpose", flat=True)) == {"root", "trust"}
    assert believed(federation).sequence == 1
    keys = Key.objects.count()
    with pytest.raises(CustodyError, match="kept offline"):
        rotation.rotate_server_key(purpose=Purpose.PLAN, actor="user:1")
    assert Key.objects.count() == keys
    assert Key.objects.filter(purpose="plan", state="active").count() == 1
    assert sign_with(Purpose.PLAN, b"words")

    offline.restore_offline(file=file, passphrase=PASSPHRASE, actor="user:2")
    rotation.rotate_server_key(purpose=Purpose.PLAN, actor="user:1")
    assert believed(federation).sequence == 2
    assert server_keys(Purpose.TRUST).get() == anchor


def test_the_receipt_key_is_renewed_while_the_anchor_is_offline(federation: Federation, settings: Any) -> None:
    file = offline.export_offline(passphrase=PASSPHRASE, actor="user:2")
    offline.remove_offline(file=file, passphrase=PASSPHRASE, actor="user:2")
    settings.PUBLIC_URL = "https://ward.example"
    server_keys(Purpose.SUBMISSION_RECEIPT).update(not_after_at=timezone.now() + timedelta(hours=1))
    with pytest.raises(CustodyError, match="kept offline"):
        rotation.keep_current()
    later = timezone.now() + timedelta(hours=23)
    assert server_keys(Purpose.SUBMISSION_RECEIPT).filter(not_after_at__gt=later).exists()


def test_a_wrong_file_or_passphrase_removes_nothing(federation: Federation) -> None:
    file = offline.export_offline(passphrase=PASSPHRASE, actor="user:2")
    with pytest.raises(DecryptionError):
        offline.remove_offline(file=file, passphrase=PASSPHRASE + "!", actor="user:2")
    with pytest.raises(KeyUsageError):
        offline.export_offline(passphrase="short", actor="user:2")
    assert not Key.objects.filter(owner="authority", wrapped_secret=None).exists()


def test_the_command_founds_an_authority_and_says_its_fingerprint(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("init_authority", "--federation", "heart", "--name", "Heart", skip_checks=True)
    assert trust_anchor().key.fingerprint in capsys.readouterr().out
    assert AuditEntry.objects.filter(event="authority.initialised").count() == 1
    with pytest.raises(CommandError):
        call_command("init_authority", "--federation", "thyroid", skip_checks=True)
