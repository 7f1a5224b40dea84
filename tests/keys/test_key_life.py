"""The life of a key: counted uses, a word before it ends, its secret destroyed, its history kept and shown."""

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import Error, InterfaceError, OperationalError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices import authentication, services
from devices.models import Device, Federation, Site
from keys import endings, renewal, usage
from keys.models import Key, Reason
from keys.publication import keep_published
from keys.rotation import publish_trust
from keys.selectors import server_keys, trust_document
from keys.services import forget_loaded_keys, sign_receipt, sign_with
from latticeward.crypto.signing import Purpose
from latticeward.errors import CustodyError
from tests.devices.machine import Machine, enrolled


def device_of(machine: Machine) -> Device:
    assert machine.device is not None
    return machine.device


def key_of(machine: Machine, role: str = "authentication") -> Key:
    return Key.objects.get(subject_id=str(device_of(machine).id), purpose=role)


def key_of_id(key_id: str) -> Key:
    return Key.objects.get(key_id=key_id)


def at_once(call: Callable[[], None], *, robust: bool) -> None:
    with contextlib.suppress(Error):
        call()


def in_a_transaction(call: Callable[[Any], None], given: Any) -> None:
    with transaction.atomic():
        call(given)


def uses_of(purpose: str) -> int:
    usage.flush_uses()
    return int(server_keys(purpose).get().uses)


# --- uses ----------------------------------------------------------------------------------------------------------


def test_the_servers_signatures_are_counted_without_a_write_for_each(federation: Federation) -> None:
    before = uses_of("plan")
    sign_with(Purpose.PLAN, b"words")  # loads the key
    with CaptureQueriesContext(connection) as queries:
        for _ in range(20):
            sign_with(Purpose.PLAN, b"words")
    assert len(queries) == 0
    assert uses_of("plan") == before + 21
    used_at = server_keys("plan").get().last_used_at
    assert used_at is not None and timezone.now() - used_at < timedelta(minutes=1)


def test_a_devices_requests_are_counted_by_its_two_keys(site: Site) -> None:
    machine = enrolled(site)
    for _ in range(3):
        authentication.authenticate(machine.facts())
    usage.flush_uses()
    assert [key_of(machine, role).uses for role in ("authentication", "classical", "signing")] == [3, 3, 0]


def test_a_refused_request_is_no_use(site: Site) -> None:
    machine, other = enrolled(site), enrolled(site)
    with pytest.raises(Exception, match="hold"):
        authentication.authenticate(machine.facts(signed_by=other))
    usage.flush_uses()
    assert key_of(machine).uses == 0


def test_issuing_and_publishing_are_counted(site: Site) -> None:
    usage.flush_uses()
    issued, stated = uses_of("issuing"), uses_of("key-statement")
    enrolled(site)
    assert (uses_of("issuing"), uses_of("key-statement")) == (issued + 1, stated + 1)
    keep_published()
    assert uses_of("responder") >= 2  # one answer for each digest that clients ask with


def test_counts_are_added_in_batches_after_the_commit(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(usage, "BATCH_USES", 5)
    monkeypatch.setattr(usage, "_flushed_at", float("inf"))
    monkeypatch.setattr(usage, "flush_uses", lambda: flushed.append(1))
    monkeypatch.setattr(transaction, "on_commit", lambda call, **_: call())
    usage.forget_counts()
    for _ in range(4):
        usage.count_use("ab")
    assert flushed == []
    usage.count_use("ab")
    assert flushed == [1]


def test_the_counts_of_a_fleet_are_added_in_a_few_statements(
    site: Site, django_assert_max_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = [enrolled(site) for _ in range(6)]
    usage.flush_uses()
    monkeypatch.setattr(usage, "_flushed_at", float("inf"))
    for times, machine in enumerate(machines, start=1):
        usage.count_use(key_of(machine).key_id, times)
    with django_assert_max_num_queries(4):  # a transaction, its rows, their counts
        usage.flush_uses()
    assert [key_of(machine).uses for machine in machines] == [1, 2, 3, 4, 5, 6]
    assert [key_of(machine, "signing").uses for machine in machines] == [0] * 6


def test_counts_that_cannot_be_added_are_kept_and_added_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key_of(enrolled(site)) for _ in range(5)]
    usage.flush_uses()
    monkeypatch.setattr(usage, "_flushed_at", float("inf"))
    monkeypatch.setattr(usage, "_ROWS_AT_ONCE", 2)
    for key in keys:
        usage.count_use(key.key_id)
    add, calls = usage._add, []

    def fail_at_the_second(counts: Any) -> None:
        calls.append(counts)
        usage.count_use(keys[4].key_id)  # another thread counts meanwhile
        add(counts)
        if len(calls) == 2:
            raise OperationalError("deadlock detected")

    with monkeypatch.context() as patched:
        patched.setattr(usage, "_add", lambda counts: in_a_transaction(fail_at_the_second, counts))
        with pytest.raises(OperationalError):
            usage.flush_uses()
    added = Key.objects.filter(pk__in=[key.pk for key in keys], uses=1)
    assert added.count() == 2  # the first two stay, and are not added again
    usage.flush_uses()
    assert [key_of_id(key.key_id).uses for key in keys] == [1, 1, 1, 1, 3]


def test_a_database_that_refuses_is_not_asked_anew_for_every_use(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def refuse(counts: Any) -> None:
        asked.append(len(counts))
        raise OperationalError("the database is away")

    monkeypatch.setattr(usage, "_add", refuse)
    monkeypatch.setattr(usage, "_flushed_at", float("inf"))
    monkeypatch.setattr(usage, "BATCH_USES", 3)
    monkeypatch.setattr(transaction, "on_commit", at_once)
    usage.forget_counts()
    for _ in range(8):
        usage.count_use("ab")
    assert asked == [1, 1]  # after the third use and after the sixth


def test_a_key_that_nobody_has_is_counted_for_nobody(federation: Federation) -> None:
    usage.count_use("ff" * 32, 7)
    usage.flush_uses()
    assert not Key.objects.filter(key_id="ff" * 32).exists()


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_a_process_that_ends_without_its_database_says_so_in_one_line(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise kind("the connection is gone\nLINE 1: SELECT")

    monkeypatch.setattr(usage, "flush_uses", fail)
    monkeypatch.setattr(usage, "_flushed_at", float("inf"))
    usage._flush_at_exit()
    assert caplog.messages == []  # nothing was counted
    usage.count_use("ab")
    usage._flush_at_exit()
    assert caplog.messages == ["the last uses of keys were not counted: the connection is gone"]


# --- endings -------------------------------------------------------------------------------------------------------


def test_nothing_ends_in_a_new_system(site: Site) -> None:
    enrolled(site)
    keep_published()
    assert endings.endings() == []
    assert endings.tell_endings() == 0


def test_a_key_that_ends_soon_is_told_of_once_and_shown_until_it_is_renewed(site: Site) -> None:
    machine = enrolled(site)
    Key.objects.filter(pk=key_of(machine).pk).update(not_after_at=timezone.now() + timedelta(days=12, hours=1))
    Key.objects.filter(owner="authority", purpose="plan").update(not_after_at=timezone.now() + timedelta(days=40))
    assert [row.key.purpose for row in endings.endings()] == ["authentication", "plan"]
    assert endings.tell_endings() == 2
    assert endings.tell_endings() == 0
    entry = AuditEntry.objects.get(event="key.ending", details__purpose="authentication")
    assert (entry.details["days"], entry.details["device"]) == (12, str(device_of(machine).id))
    renewal.renew("plan", actor="user:1")
    assert [row.key.purpose for row in endings.endings()] == ["authentication"]


def test_the_end_of_keys_out_of_use_is_no_news(site: Site) -> None:
    machine = enrolled(site)
    Key.objects.filter(pk=key_of(machine).pk).update(not_after_at=timezone.now() + timedelta(days=2))
    services.revoke_device(device_id=device_of(machine).id, actor="user:2", reason=Reason.SUPERSEDED)
    assert endings.endings() == []


# --- destruction ---------------------------------------------------------------------------------------------------


def test_a_superseded_secret_is_destroyed_after_its_retention_and_its_row_stays(federation: Federation) -> None:
    old = server_keys("plan").get()
    renewal.renew("plan", actor="user:1")
    assert endings.destroy_ended_secrets() == 0
    later = timezone.now() + endings.SECRET_RETENTION + timedelta(minutes=1)
    named = trust_document()
    assert endings.destroy_ended_secrets(now=later) == 1
    assert endings.destroy_ended_secrets(now=later) == 0
    row = Key.objects.get(pk=old.pk)
    assert (row.state, row.wrapped_secret) == ("destroyed", None)
    assert (row.key_id, row.not_before_at) == (old.key_id, old.not_before_at)
    assert bytes(row.public_key) == bytes(old.public_key)
    assert trust_document() == named
    statement = publish_trust(actor="user:1")
    assert bytes(old.public_key) in bytes(statement.signed)  # what it signed still verifies
    forget_loaded_keys()
    assert sign_with(Purpose.PLAN, b"words")


def test_an_issuing_secret_is_kept_while_its_certificates_live(site: Site) -> None:
    enrolled(site)
    old = server_keys("issuing").get()
    renewal.reissue_authority(actor="user:1")
    soon, late = timezone.now() + timedelta(days=30), timezone.now() + timedelta(days=100)
    endings.destroy_ended_secrets(now=soon)
    assert Key.objects.get(pk=old.pk).wrapped_secret is not None
    endings.destroy_ended_secrets(now=late)
    assert Key.objects.get(pk=old.pk).state == "destroyed"


def test_root_and_anchor_in_their_file_are_not_destroyed_keys(federation: Federation) -> None:
    late = timezone.now() + timedelta(days=400)
    endings.destroy_ended_secrets(now=late)
    assert set(Key.objects.filter(purpose__in=("root", "trust")).values_list("state", flat=True)) == {"active"}


def test_a_destroyed_secret_signs_nothing(federation: Federation) -> None:
    sign_receipt(b"words")
    Key.objects.filter(purpose="submission-receipt").update(state="destroyed", wrapped_secret=None)
    forget_loaded_keys()
    with pytest.raises(CustodyError):
        sign_receipt(b"words")


# --- the API -------------------------------------------------------------------------------------------------------


def test_keys_are_listed_and_narrowed_and_never_show_a_secret(site: Site, client: Client, operator: User) -> None:
    machine = enrolled(site)
    client.force_login(operator)
    subject = str(device_of(machine).id)
    answer = client.get("/api/v1/keys", {"subject": subject, "ordering": "purpose"})
    rows = answer.json()["results"]
    assert [row["purpose"] for row in rows] == ["authentication", "classical", "encapsulation", "signing"]
    assert {row["state"] for row in rows} == {"active"}
    issuing = client.get("/api/v1/keys", {"owner": "authority", "purpose": "issuing"}).json()["results"]
    assert [row["algorithm"] for row in issuing] == ["ml-dsa-65"]
    text = client.get("/api/v1/keys").content.decode()
    assert "secret" not in text and "public_key" not in text
    assert client.get("/api/v1/keys", {"stat": "active"}).status_code == 400


def test_one_key_tells_its_dates_uses_certificates_and_history(site: Site, client: Client, compliance: User) -> None:
    machine = enrolled(site)
    device = device_of(machine)
    key = key_of(machine)
    services.suspend_device(device_id=device.id, actor="user:1")
    services.reinstate_device(device_id=device.id, actor="user:1")
    since = timezone.now() - timedelta(days=1)
    services.revoke_device(device_id=device.id, actor="user:2", reason=Reason.KEY_COMPROMISE, invalid_from=since)
    client.force_login(compliance)
    found: dict[str, Any] = client.get(f"/api/v1/keys/{key.id}").json()
    assert (found["state"], found["reason"]) == ("compromised", "key_compromise")
    assert found["invalid_from"] is not None and found["not_after_at"] is not None
    events = [entry["event"] for entry in found["history"]]
    assert events == ["key.activated", "key.suspended", "key.reinstated", "key.compromised"]
    assert [row["serial"] for row in found["certificates"]] == [key.certificates.get().serial]
    assert client.get("/api/v1/keys/0d3e0b0e-8f0c-4d5e-9b0f-000000000001").status_code == 404


def test_clinicians_see_no_keys(federation: Federation, client: Client, clinician: User) -> None:
    client.force_login(clinician)
    assert client.get("/api/v1/keys").status_code == 403
    assert client.get(f"/api/v1/keys/{server_keys('plan').get().id}").status_code == 403
