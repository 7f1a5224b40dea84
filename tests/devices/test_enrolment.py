"""From a claim code to an active device, and every way in which that must fail and leave nothing behind."""

import base64
import secrets
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices import authentication, claims, enrolment, services, suites
from devices.models import Claim, Device, Enrolment, Site
from keys.models import Certificate, Key, Statement
from keys.rotation import server_address
from keys.selectors import server_verify_key, trust_anchor
from keys.services import forget_loaded_keys
from latticeward.claim_code import ClaimCode
from latticeward.crypto.certificate import DeviceNames, make_csr, verify_chain
from latticeward.crypto.keys import AuthenticationSigningKey
from latticeward.crypto.signing import Purpose
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment import FinishProofs, transcript_mac
from latticeward.enrolment_messages import Meeting
from latticeward.errors import (
    ClaimRefusedError,
    ClockSkewError,
    CustodyError,
    InvalidSignatureError,
    KeyUsageError,
    LatticewardError,
    MalformedMessageError,
    NotFoundError,
    UnsupportedSuiteError,
    WrongContextError,
)
from latticeward.statements import verify_own_statement, verify_statement
from tests.devices.machine import Machine, enrolled


def nothing_enrolled() -> bool:
    no_device_keys = not Key.objects.filter(owner="device").exists()
    return no_device_keys and not Device.objects.exists() and not Claim.objects.exclude(consumed_at=None).exists()


def test_a_machine_with_a_claim_becomes_an_active_device_with_a_certificate_and_a_statement(site: Site) -> None:
    machine = Machine.with_claim(site)
    device = machine.enrol()
    assert device.state == "active"
    assert machine.enrolment_id is not None
    answer = services.collect(enrolment_id=machine.enrolment_id, device=device)

    chain = [base64.b64decode(text) for text in answer["certificate_chain"]]
    root = bytes(Certificate.objects.get(key__purpose="root").der)
    names = DeviceNames(federation="heart", site="cleveland", device_id=str(device.id))
    certificate = verify_chain(chain, root=root, now=datetime.now(UTC), names=names)
    assert certificate.public_key == machine.keys.authentication.verify_key.raw

    statement = verify_statement(
        base64.urlsafe_b64decode(answer["statement"] + "=="),
        key=server_verify_key(Purpose.KEY_STATEMENT),
        federation_id=str(site.federation_id),
    )
    verify_own_statement(
        statement,
        device_id=str(device.id),
        keys=machine.keys.public,
        certificate_digest=certificate.fingerprint,
    )
    assert set(Key.objects.filter(owner="device").values_list("state", flat=True)) == {"active"}


def test_every_step_is_in_the_ledger_with_its_actor(site: Site) -> None:
    device = Machine.with_claim(site).enrol()
    about = AuditEntry.objects.filter(subject_kind="device", subject_id=str(device.id)).order_by("feed_seq")
    assert list(about.values_list("event", "actor")) == [
        ("device.requested", f"device:{device.id}"),
        ("key.generated", f"device:{device.id}"),
        ("device.approved", "user:1"),
        ("certificate.issued", "worker:authority"),
        ("device.activated", "worker:authority"),
    ]


def test_no_secret_of_the_claim_reaches_the_database_or_the_ledger(site: Site) -> None:
    machine = Machine.with_claim(site)
    machine.enrol()
    with connection.cursor() as cursor:
        cursor.execute("SELECT details FROM audit_auditentry")
        ledger = str(cursor.fetchall())
    for secret in (machine.code.secret.hex(), machine.code.mac_key.hex()):
        assert secret not in ledger
    assert Claim.objects.get().wrapped_key is None


def test_a_claim_with_automatic_approval_needs_no_person(site: Site) -> None:
    machine = Machine.with_claim(site, auto_approve=True)
    device = machine.finish(machine.begin())
    assert device.state == "approved"
    entry = AuditEntry.objects.get(event="device.approved")
    assert entry.actor == "user:1"
    assert entry.details["why"] == "claim with automatic approval"


def test_without_approval_a_machine_waits(site: Site) -> None:
    machine = Machine.with_claim(site)
    device = machine.finish(machine.begin())
    services.issue(device_id=device.id)
    assert services.get_device(device.id).state == "pending"
    assert machine.enrolment_id is not None
    assert services.collect(enrolment_id=machine.enrolment_id, device=device) == {"state": "pending"}
    assert not Certificate.objects.filter(key__owner="device").exists()


def test_a_declined_machine_cannot_come_again_with_the_same_keys(site: Site) -> None:
    machine = Machine.with_claim(site)
    device = machine.finish(machine.begin())
    services.decline_device(device_id=device.id, actor="user:1")
    again = Machine.with_claim(site)
    again.keys = machine.keys
    with pytest.raises(KeyUsageError):
        again.begin()


def refused(machine: Machine, **named: object) -> tuple[str, str]:
    with pytest.raises(ClaimRefusedError) as caught:
        machine.begin(**named)  # type: ignore[arg-type]
    return type(caught.value).__name__, caught.value.code


def test_unknown_used_expired_cancelled_and_wrong_claims_get_one_answer(site: Site) -> None:
    used = Machine.with_claim(site)
    used.enrol()
    fresh_keys = DeviceKeys.generate()
    used.keys = fresh_keys

    expired = Machine.with_claim(site)
    Claim.objects.filter(pk=expired.claim.pk).update(expires_at=timezone.now() - timedelta(seconds=1))

    cancelled = Machine.with_claim(site)
    claims.cancel_claim(claim_id=cancelled.claim.id, actor="user:1")

    unknown = Machine.with_claim(site)
    unknown.code = ClaimCode(
        lookup_id=secrets.token_bytes(5), secret=secrets.token_bytes(16), anchor=unknown.code.anchor
    )
    wrong = Machine.with_claim(site)
    wrong.code = ClaimCode(lookup_id=wrong.code.lookup_id, secret=secrets.token_bytes(16), anchor=wrong.code.anchor)
    answers = {refused(machine) for machine in (used, expired, cancelled, unknown, wrong)}
    assert answers == {("ClaimRefusedError", "claim_refused")}
    assert Device.objects.count() == 1


def test_all_refusals_do_the_same_database_and_vault_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    unwrapped: list[str] = []
    real = enrolment.vault.unwrap

    def counted(wrapped: bytes, **named: Any) -> bytes:
        unwrapped.append(named["purpose"])
        return real(wrapped, **named)

    monkeypatch.setattr(enrolment.vault, "unwrap", counted)
    unknown, wrong, expired = (Machine.with_claim(site) for _ in range(3))
    unknown.code = ClaimCode(
        lookup_id=secrets.token_bytes(5), secret=secrets.token_bytes(16), anchor=unknown.code.anchor
    )
    wrong.code = ClaimCode(lookup_id=wrong.code.lookup_id, secret=secrets.token_bytes(16), anchor=wrong.code.anchor)
    Claim.objects.filter(pk=expired.claim.pk).update(expires_at=timezone.now())
    work = []
    for machine in (unknown, wrong, expired):
        unwrapped.clear()
        with CaptureQueriesContext(connection) as queries:
            refused(machine)
        work.append((len(queries), tuple(unwrapped)))
    assert len(set(work)) == 1


def test_wrong_codes_are_counted_per_claim_and_lock_nobody_out(site: Site) -> None:
    machine = Machine.with_claim(site)
    raw = machine.transcript()
    for _ in range(5):
        with pytest.raises(ClaimRefusedError):
            machine.begin(raw, b"\x00" * 32)
    assert enrolment.refusals_of([machine.claim]) == {machine.claim.id: 5}
    assert enrolment.refusals_of_unknown() == 0
    assert machine.enrol().state == "active"


def test_many_refusals_of_one_source_are_told_and_lock_nobody_out(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine.with_claim(site)
    raw = machine.transcript()
    for _ in range(60):
        with pytest.raises(ClaimRefusedError):
            machine.begin(raw, b"\x00" * 32)
    assert [line.message for line in caplog.records if "192.0.2.7" in line.message] == [
        "50 claim codes were refused to 192.0.2.7 in the last minutes"
    ]
    assert machine.enrol().state == "active"


def test_the_same_first_message_gets_the_same_stored_answer(site: Site) -> None:
    machine = Machine.with_claim(site)
    raw = machine.transcript()
    mac = transcript_mac(raw, mac_key=machine.code.mac_key)
    first = enrolment.begin_enrolment(transcript=raw, mac=mac, source="a")
    second = enrolment.begin_enrolment(transcript=raw, mac=mac, source="b")
    assert first == second
    assert Enrolment.objects.count() == 1


def test_a_reserved_claim_refuses_another_machine_until_the_reservation_ends(site: Site) -> None:
    machine = Machine.with_claim(site)
    machine.begin()
    thief = Machine(site=site, code=machine.code, claim=machine.claim)
    refused(thief)
    later = timezone.now() + timedelta(minutes=6)
    raw = thief.transcript()
    mac = transcript_mac(raw, mac_key=thief.code.mac_key)
    assert enrolment.begin_enrolment(transcript=raw, mac=mac, source="a", now=later)


def test_the_first_of_two_enrolments_of_one_claim_loses_its_right_when_its_reservation_ended(site: Site) -> None:
    slow = Machine.with_claim(site)
    proofs = slow.begin()
    Claim.objects.update(reserved_until=timezone.now() - timedelta(seconds=1))
    quick = Machine(site=site, code=slow.code, claim=slow.claim)
    quick_proofs = quick.begin()
    with pytest.raises(ClaimRefusedError):
        slow.finish(proofs)
    assert quick.finish(quick_proofs).state == "pending"
    assert Device.objects.count() == 1


def test_finishing_again_with_the_same_proofs_gives_the_same_device(site: Site) -> None:
    machine = Machine.with_claim(site)
    proofs = machine.begin()
    assert machine.finish(proofs).id == machine.finish(proofs).id
    assert Device.objects.count() == 1
    with pytest.raises(InvalidSignatureError):
        machine.finish(replace(proofs, challenge_mac=b"\x01" * 32))


@pytest.mark.parametrize("proof", ["challenge_mac", "authentication", "classical", "signing"])
def test_each_wrong_proof_is_refused_and_leaves_nothing(site: Site, proof: str) -> None:
    machine = Machine.with_claim(site)
    proofs = machine.begin()
    good = getattr(proofs, proof)
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good[:-1], b""):
        with pytest.raises(InvalidSignatureError):
            machine.finish(replace(proofs, **{proof: bad}))
    assert nothing_enrolled()
    assert machine.finish(proofs).state == "pending"


def test_proofs_for_another_enrolment_are_refused(site: Site) -> None:
    first, second = Machine.with_claim(site), Machine.with_claim(site)
    proofs = first.begin()
    second.begin()
    with pytest.raises(InvalidSignatureError):
        second.finish(proofs)
    assert nothing_enrolled()


def test_an_expired_challenge_is_refused_and_forgotten(site: Site) -> None:
    machine = Machine.with_claim(site)
    proofs = machine.begin()
    later = timezone.now() + timedelta(minutes=5)
    assert machine.enrolment_id is not None
    with pytest.raises(ClockSkewError):
        enrolment.finish_enrolment(enrolment_id=machine.enrolment_id, proofs=proofs, now=later)
    services.expire_enrolments(now=later)
    assert Enrolment.objects.get().wrapped_challenge is None
    with pytest.raises(ClaimRefusedError):
        machine.finish(proofs)
    assert nothing_enrolled()


def test_an_unknown_enrolment_is_not_found(site: Site) -> None:
    with pytest.raises(NotFoundError):
        enrolment.finish_enrolment(
            enrolment_id=uuid4(), proofs=FinishProofs(challenge_mac=b"", authentication=b"", classical=b"", signing=b"")
        )


def changed_transcripts(machine: Machine) -> list[tuple[bytes, type[LatticewardError]]]:
    other = DeviceKeys.generate()
    meeting = Meeting(
        federation_id=str(machine.site.federation_id), authority=server_address(), anchor=machine.code.anchor
    )
    return [
        (machine.transcript(csr=make_csr(other.authentication)), KeyUsageError),
        (machine.transcript(csr=b"\x30\x03abc"), MalformedMessageError),
        (machine.transcript(meeting=replace(meeting, authority="evil.example")), WrongContextError),
        (machine.transcript(meeting=replace(meeting, anchor=b"\x00" * 32)), WrongContextError),
        (machine.transcript(meeting=replace(meeting, federation_id=str(uuid4()))), WrongContextError),
        (machine.transcript(site="hungary"), WrongContextError),
        (machine.transcript(device_class="phone"), WrongContextError),
        (machine.transcript(suites=("classical",), floor="classical"), UnsupportedSuiteError),
        (machine.transcript(suites=("high",), floor="high"), UnsupportedSuiteError),
    ]


def test_the_holder_of_a_code_is_told_what_is_wrong_with_a_first_message_and_nothing_remains(site: Site) -> None:
    machine = Machine.with_claim(site)
    for raw, error in changed_transcripts(machine):
        with pytest.raises(error):
            machine.begin(raw)
        assert not Enrolment.objects.exists()
    assert Claim.objects.get().reserved_for == ""
    assert nothing_enrolled()


def test_any_flipped_byte_of_the_first_message_is_refused(site: Site) -> None:
    machine = Machine.with_claim(site)
    raw = machine.transcript()
    mac = transcript_mac(raw, mac_key=machine.code.mac_key)
    for position in range(0, len(raw), 211):
        changed = bytearray(raw)
        changed[position] ^= 1
        cache.clear()
        with pytest.raises((ClaimRefusedError, MalformedMessageError)):
            machine.begin(bytes(changed), mac)
    assert not Enrolment.objects.exists()


def test_a_key_agreement_half_of_small_order_is_refused_at_registration(site: Site) -> None:
    machine = Machine.with_claim(site)
    raw = machine.transcript()
    public = machine.keys.public.encapsulation.raw
    weak = raw.replace(public, public[:-32] + bytes(32))
    assert weak != raw
    with pytest.raises((KeyUsageError, MalformedMessageError)):
        machine.begin(weak)
    assert nothing_enrolled()


def test_a_key_of_another_device_is_refused_in_each_role(site: Site) -> None:
    known = enrolled(site)
    for role in ("authentication", "classical", "signing", "decapsulation"):
        machine = Machine.with_claim(site)
        machine.keys = replace(machine.keys, **{role: getattr(known.keys, role)})
        with pytest.raises(KeyUsageError):
            machine.begin()
    assert Device.objects.count() == 1


def test_a_key_that_another_machine_registers_meanwhile_is_refused_and_the_claim_stays_unused(site: Site) -> None:
    first, second = Machine.with_claim(site), Machine.with_claim(site)
    second.keys = replace(second.keys, authentication=first.keys.authentication)
    first_proofs, second_proofs = first.begin(), second.begin()
    first.finish(first_proofs)
    with pytest.raises(KeyUsageError):
        second.finish(second_proofs)
    assert Device.objects.count() == 1
    assert Key.objects.filter(owner="device").count() == 4
    assert Claim.objects.get(pk=second.claim.pk).consumed_at is None
    assert Enrolment.objects.get(claim=second.claim).finished_at is None


def test_another_devices_enrolment_cannot_be_collected(site: Site) -> None:
    first, second = enrolled(site), enrolled(site)
    assert first.enrolment_id is not None and second.device is not None
    with pytest.raises(NotFoundError):
        services.collect(enrolment_id=first.enrolment_id, device=second.device)


def test_the_web_enrols_and_the_authority_worker_issues_each_with_its_own_key_files(
    site: Site, settings: Any, tmp_path: Path
) -> None:
    def become(role: str, *groups: str) -> None:
        folder = tmp_path / role
        folder.mkdir(exist_ok=True)
        for group in groups:
            shutil.copy(everything / f"{group}.kek", folder / f"{group}.kek")
        settings.ROLE, settings.VAULT_DIR = role, folder
        forget_loaded_keys()

    everything = Path(settings.VAULT_DIR)
    become("web", "web")
    machine = Machine.with_claim(site, auto_approve=True)
    device = machine.finish(machine.begin())
    with pytest.raises(CustodyError):
        services.issue(device_id=device.id)
    become("authority", "authority", "web")
    services.issue(device_id=device.id)
    become("web", "web")
    assert machine.enrolment_id is not None
    assert services.collect(enrolment_id=machine.enrolment_id, device=device)["state"] == "active"
    assert authentication.authenticate(machine.facts()).device == device


def test_a_claim_whose_wrapped_key_was_exchanged_opens_for_nobody(site: Site) -> None:
    mine, other = Machine.with_claim(site), Machine.with_claim(site)
    Claim.objects.filter(pk=other.claim.pk).update(wrapped_key=mine.claim.wrapped_key)
    with pytest.raises(CustodyError):
        other.begin()
    with pytest.raises(CustodyError):
        other.begin(mac=transcript_mac(other.transcript(), mac_key=mine.code.mac_key))
    assert nothing_enrolled()
    assert mine.enrol().state == "active"


def test_a_challenge_that_was_exchanged_proves_nothing(site: Site) -> None:
    first, second = Machine.with_claim(site), Machine.with_claim(site)
    first.begin()
    proofs = second.begin()
    stolen = Enrolment.objects.get(pk=first.enrolment_id or "").wrapped_challenge
    Enrolment.objects.filter(claim=second.claim).update(wrapped_challenge=stolen)
    with pytest.raises(CustodyError):
        second.finish(proofs)
    assert nothing_enrolled()


def test_issuing_twice_makes_one_certificate(site: Site) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    services.issue(device_id=machine.device.id)
    assert Certificate.objects.filter(key__owner="device").count() == 1
    assert Statement.objects.filter(kind="device").count() == 1


def test_a_failed_issue_leaves_the_device_approved(site: Site, settings: Any) -> None:
    machine = Machine.with_claim(site, auto_approve=True)
    device = machine.finish(machine.begin())
    settings.ROLE = "web"
    with pytest.raises(CustodyError):
        services.issue(device_id=device.id)
    settings.ROLE = "all"
    assert services.get_device(device.id).state == "approved"
    assert not AuditEntry.objects.filter(event="device.activated").exists()
    services.issue(device_id=device.id)
    assert services.get_device(device.id).state == "active"


def test_a_machine_that_nobody_approves_is_declined_after_a_week(site: Site) -> None:
    machine = Machine.with_claim(site)
    device = machine.finish(machine.begin())
    services.expire_enrolments(now=timezone.now() + timedelta(days=8))
    assert services.get_device(device.id).state == "declined"


def test_a_person_who_approves_while_the_sweep_declines_stops_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = [Machine.with_claim(site) for _ in range(2)]
    first, second = (machine.finish(machine.begin()) for machine in machines)
    look = services.get_device

    def approved_meanwhile(device_id: UUID) -> Device:
        Device.objects.filter(pk=first.id, pk__in=[device_id]).update(state="approved")
        return look(device_id)

    monkeypatch.setattr(services, "get_device", approved_meanwhile)
    services.expire_enrolments(now=timezone.now() + timedelta(days=8))
    assert (look(first.id).state, look(second.id).state) == ("approved", "declined")


def test_the_anchor_of_a_claim_is_the_servers(site: Site) -> None:
    Machine.with_claim(site).code.verify_anchor(trust_anchor().fingerprint)


def test_two_racing_calls_of_one_device_make_one_device(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine.with_claim(site)
    proofs = machine.begin()
    real = enrolment.verify_finish
    winners: list[Device] = []

    def overtaken(*arguments: Any, **named: Any) -> Any:
        """Between the proofs of the first call and its transaction, a second call goes all the way."""
        monkeypatch.setattr(enrolment, "verify_finish", real)
        winners.append(machine.finish(proofs))
        return real(*arguments, **named)

    monkeypatch.setattr(enrolment, "verify_finish", overtaken)
    winners.append(machine.finish(proofs))
    assert winners[0] == winners[1] == Device.objects.get()
    assert Key.objects.filter(owner="device").count() == 4
    assert AuditEntry.objects.filter(event="device.requested").count() == 1


def test_of_two_machines_that_begin_at_once_one_gets_the_claim(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine.with_claim(site)
    rival = Machine(site=site, code=machine.code, claim=machine.claim)
    real = suites.negotiate
    proofs: list[FinishProofs] = []

    def overtaken(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(suites, "negotiate", real)
        proofs.append(rival.begin())
        return real(*arguments, **named)

    monkeypatch.setattr(suites, "negotiate", overtaken)
    refused(machine)
    assert Enrolment.objects.count() == 1
    assert rival.finish(proofs[0]).state == "pending"


def test_the_certificate_request_of_an_unproven_key_is_not_enough(site: Site) -> None:
    machine = Machine.with_claim(site)
    raw = machine.transcript()
    machine.keys = replace(machine.keys, authentication=AuthenticationSigningKey.generate())
    proofs = machine.begin(raw)
    with pytest.raises(InvalidSignatureError):
        machine.finish(proofs)
    assert nothing_enrolled()
