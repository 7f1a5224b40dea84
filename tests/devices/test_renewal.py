"""Renewal at the server: new keys by the authority of the old ones, and every way in which that must fail."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices import renewal, selectors, services, tasks
from devices.authentication import Admit, authenticate
from devices.models import Device, DeviceClass, Renewal, Site
from devices.renewal_issuing import issue_renewals
from keys import issuing
from keys.models import Certificate, Key, Reason, Statement
from keys.selectors import device_keys, key_standing, read_statement, server_verify_key
from latticeward.crypto.certificate import DeviceNames, make_csr, verify_chain
from latticeward.crypto.signing import Purpose, sign
from latticeward.device_keys import DeviceKeys
from latticeward.errors import (
    CertificateNotValidError,
    CertificateRevokedError,
    ClockSkewError,
    InvalidSignatureError,
    KeyUsageError,
    LatticewardError,
    NotFoundError,
    NotPermittedError,
    RenewalConflictError,
    StateError,
    UnsupportedSuiteError,
    WrongContextError,
)
from latticeward.renewal import renewal_opens_at, replaces
from latticeward.statements import verify_archive, verify_live, verify_own_statement, verify_statement
from tests.devices.machine import Machine, enrolled
from tests.devices.renewing import Renewing, ask, device_of, renewed


@pytest.fixture
def machine(site: Site) -> Machine:
    return enrolled(site)


def states(machine: Machine, epoch: int) -> set[str]:
    return {key.state for key in device_keys(str(device_of(machine).id), epoch=epoch).values()}


def nothing_renewed(machine: Machine) -> bool:
    device = device_of(machine)
    return (
        (device.state, device.key_epoch) == ("active", 1)
        and states(machine, 1) == {"active"}
        and not device_keys(str(device.id), epoch=2)
        and not Renewal.objects.filter(state__in=("proven", "issued")).exists()
        and Statement.objects.filter(kind="device", subject_id=str(device.id)).count() == 1
    )


def test_a_device_renews_all_four_keys_and_gets_a_certificate_and_a_statement_of_the_next_epoch(
    machine: Machine, site: Site
) -> None:
    after = renewed(machine)
    device = device_of(machine)
    assert (device.key_epoch, device.renewal_reason) == (2, "")
    assert (states(machine, 1), states(machine, 2)) == ({"deactivated"}, {"active"})

    answer = services.collect_renewal(renewal_id=device.renewals.get().id, device=device)
    chain = [base64.b64decode(text) for text in answer["certificate_chain"]]
    names = DeviceNames(federation="heart", site="cleveland", device_id=str(device.id))
    root = bytes(Certificate.objects.get(key__purpose="root").der)
    certificate = verify_chain(chain, root=root, now=datetime.now(UTC), names=names)
    assert certificate.public_key == after.keys.authentication.verify_key.raw
    statement = verify_statement(
        base64.urlsafe_b64decode(answer["statement"] + "=="),
        key=server_verify_key(Purpose.KEY_STATEMENT),
        federation_id=str(site.federation_id),
    )
    verify_own_statement(
        statement, device_id=str(device.id), keys=after.keys.public, certificate_digest=certificate.fingerprint
    )
    assert statement.epoch == 2


def test_every_step_of_a_renewal_is_in_the_ledger(machine: Machine) -> None:
    before = set(AuditEntry.objects.values_list("id", flat=True))
    renewed(machine)
    entries = AuditEntry.objects.exclude(id__in=before).order_by("feed_seq")
    events = [entry.event for entry in entries]
    assert events[:4] == ["renewal.begun", "renewal.proven", "key.generated", "renewal.issued"]
    assert events.count("key.rotated") == events.count("key.activated") == 4
    assert events[-1] == "certificate.issued"
    actor = f"device:{device_of(machine).id}"
    assert [entry.actor for entry in entries] == [actor] * 3 + ["worker:authority"] * (len(events) - 3)
    assert not any(machine.keys.signing.export_seed().hex() in str(entry.details) for entry in entries)


def test_epochs_rise_one_by_one_and_the_newest_keys_are_the_ones_that_count(machine: Machine) -> None:
    present = machine
    for epoch in (2, 3, 4):
        present = renewed(present)
        assert device_of(machine).key_epoch == epoch
    device = device_of(machine)
    assert selectors.encapsulation_keys(device.site.federation)[device.id].raw == present.keys.public.encapsulation.raw
    assert selectors.signing_keys([device])[device.id].raw == present.keys.public.signing.raw


def test_a_device_may_renew_from_two_thirds_of_its_time_or_when_it_is_asked(machine: Machine) -> None:
    opens_at = renewal_opens_at(read_statement(str(device_of(machine).id), epoch=1))
    with pytest.raises(StateError, match="may renew from"):
        Renewing(machine).begin(now=opens_at - timedelta(minutes=1))
    assert not Renewal.objects.exists()
    asked = Renewing(machine)
    ask(machine)
    assert asked.finish(asked.begin()) == "proven"


def test_a_device_that_nobody_asked_renews_when_its_time_has_come(machine: Machine) -> None:
    opens_at = renewal_opens_at(read_statement(str(device_of(machine).id), epoch=1))
    renewing = Renewing(machine)
    assert renewing.finish(renewing.begin(now=opens_at), now=opens_at) == "proven"


# --- repetitions ---------------------------------------------------------------------------------------------------


def test_the_same_transcript_again_gets_the_same_answer_and_is_no_second_renewal(machine: Machine) -> None:
    ask(machine)
    renewing = Renewing(machine)
    renewing.begin()
    first = renewing.renewal_id
    proofs = renewing.begin()
    assert renewing.renewal_id == first and Renewal.objects.count() == 1
    assert renewing.finish(proofs) == "proven"
    assert renewing.finish(proofs) == "proven"
    renewing.begin()
    assert Renewal.objects.get().state == "proven"
    issue_renewals()
    assert issue_renewals() == 0
    assert device_of(machine).key_epoch == 2


def test_a_transcript_that_comes_twice_at_once_gets_one_new_answer(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A device that has waited too long asks again while its first question is still being answered. With an answer that
    # the server has forgotten its proofs would be wrong, and its next renewal a second one from the same keys.
    ask(machine)
    renewing = Renewing(machine)
    renewing.begin()
    later = timezone.now() + timedelta(minutes=10)
    make, came = renewal._answer, []

    def slowly(*given: Any) -> Any:
        made = make(*given)
        if not came:
            came.append(None)
            came.append(renewing.begin(now=later))
        return made

    monkeypatch.setattr(renewal, "_answer", slowly)
    assert renewing.finish(renewing.begin(now=later), now=later) == "proven"
    assert renewing.finish(came[1], now=later) == "proven"


def test_an_expired_answer_is_given_anew_for_the_same_transcript(machine: Machine) -> None:
    ask(machine)
    renewing = Renewing(machine)
    proofs = renewing.begin()
    later = timezone.now() + timedelta(minutes=6)
    with pytest.raises(ClockSkewError):
        renewing.finish(proofs, now=later)
    renewal.forget_challenges(now=later)
    with pytest.raises(KeyUsageError, match="expired"):
        renewing.finish(proofs, now=later)
    again = renewing.begin(now=later)
    assert renewing.finish(again, now=later) == "proven"
    assert Renewal.objects.count() == 1


def test_a_crash_between_proof_and_certificate_is_found_by_the_sweep(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.issue_renewals, "delay", tasks.issue_renewals)
    ask(machine)
    renewing = Renewing(machine)
    renewing.finish(renewing.begin())
    tasks.sweep()
    assert device_of(machine).key_epoch == 2


# --- the copied key --------------------------------------------------------------------------------------------------


def test_a_second_renewal_from_the_same_key_suspends_both_branches_and_alarms(machine: Machine) -> None:
    ask(machine)
    mine, copy = Renewing(machine), Renewing(machine)
    proofs = mine.begin()
    with pytest.raises(RenewalConflictError):
        copy.begin()
    assert device_of(machine).state == "suspended"
    assert states(machine, 1) == {"suspended"}
    assert Renewal.objects.get().state == "conflicted"
    alarm = AuditEntry.objects.get(event="renewal.conflicted")
    assert {"first", "second", "device"} <= set(alarm.details)
    with pytest.raises(StateError):
        mine.finish(proofs)
    assert not device_keys(str(device_of(machine).id), epoch=2)


def test_a_copy_that_comes_when_the_certificate_is_there_suspends_the_new_keys_too(machine: Machine) -> None:
    copy = Renewing(machine)
    raw = copy.transcript()
    renewed(machine)
    with pytest.raises(RenewalConflictError):
        copy.begin(raw, epoch=1)
    assert device_of(machine).state == "suspended"
    assert states(machine, 2) == {"suspended"}
    assert set(Renewal.objects.values_list("state", flat=True)) == {"conflicted"}


def test_a_copy_of_a_key_of_long_ago_is_still_heard_of_as_long_as_its_certificate_lasts(machine: Machine) -> None:
    renewed(machine)
    Key.objects.filter(epoch=1).exclude(overlap_until=None).update(overlap_until=timezone.now())
    with pytest.raises(CertificateRevokedError):
        authenticate(machine.facts())
    assert authenticate(machine.facts(), admit=Admit.RENEWING).device.id == device_of(machine).id


def test_a_proven_branch_is_not_issued_after_a_conflict_and_its_keys_are_retired(machine: Machine) -> None:
    ask(machine)
    mine, copy = Renewing(machine), Renewing(machine)
    mine.finish(mine.begin())
    with pytest.raises(RenewalConflictError):
        copy.begin()
    assert issue_renewals() == 0
    assert states(machine, 2) == {"deactivated"}


def test_after_a_proven_branch_was_retired_the_keys_of_the_next_one_are_those_that_count(machine: Machine) -> None:
    ask(machine)
    first = Renewing(machine)
    first.finish(first.begin())
    with pytest.raises(RenewalConflictError):
        Renewing(machine).begin()
    services.reinstate_device(device_id=device_of(machine).id, actor="user:1")
    present = renewed(machine)
    device = device_of(machine)
    assert authenticate(present.facts()).device == device
    wanted = present.keys.public.to_wire()
    found = {role: bytes(key.public_key) for role, key in device_keys(str(device.id), epoch=2).items()}
    assert found == {role: wanted[role]["public_key"] for role in found}
    again = renewed(present)
    assert authenticate(again.facts()).device == device_of(machine)
    with pytest.raises(CertificateRevokedError):
        authenticate(replace(machine, keys=first.keys).facts())


def test_a_device_that_a_person_reinstates_after_a_conflict_may_renew_again(machine: Machine) -> None:
    ask(machine)
    mine = Renewing(machine)
    mine.begin()
    with pytest.raises(RenewalConflictError):
        Renewing(machine).begin()
    services.reinstate_device(device_id=device_of(machine).id, actor="user:1")
    again = Renewing(machine)
    assert again.finish(again.begin()) == "proven"


def test_what_a_class_asks_for_now_counts_and_not_what_it_asked_when_the_keys_were_first_seen(machine: Machine) -> None:
    ask(machine)
    authenticate(machine.facts())
    DeviceClass.objects.update(suite_floor="high", default_suite="high")
    asking = authenticate(machine.facts()).device
    with pytest.raises(UnsupportedSuiteError):
        renewal.begin_renewal(device=asking, epoch=1, transcript=Renewing(machine).transcript())
    assert nothing_renewed(machine) and not Renewal.objects.exists()


# --- bad input: nothing half-done remains ----------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [3, 7])
def test_a_renewal_with_a_skipped_epoch_leaves_nothing(machine: Machine, epoch: int) -> None:
    ask(machine)
    renewing = Renewing(machine)
    with pytest.raises(WrongContextError):
        renewing.begin(renewing.transcript(epoch=epoch))
    assert nothing_renewed(machine) and not Renewal.objects.exists()


def test_a_renewal_with_an_old_epoch_leaves_nothing(machine: Machine) -> None:
    present = renewed(machine)
    ask(machine)
    renewing = Renewing(present)
    with pytest.raises(WrongContextError):
        renewing.begin(renewing.transcript(epoch=2))
    assert device_of(machine).key_epoch == 2 and states(machine, 2) == {"active"}


def test_a_renewal_with_another_devices_certificate_leaves_nothing(machine: Machine, site: Site) -> None:
    other = device_of(enrolled(site))
    ask(machine)
    renewing = Renewing(machine)
    with pytest.raises(WrongContextError):
        renewing.begin(renewing.transcript(renews=replaces(read_statement(str(other.id), epoch=1))))
    assert not Renewal.objects.exists() and device_of(machine).key_epoch == 1


def test_a_request_for_a_key_that_is_not_the_proven_one_leaves_nothing(machine: Machine) -> None:
    ask(machine)
    renewing = Renewing(machine)
    with pytest.raises(KeyUsageError):
        renewing.begin(renewing.transcript(csr=make_csr(DeviceKeys.generate().authentication)))
    assert nothing_renewed(machine) and not Renewal.objects.exists()


@pytest.mark.parametrize("role", ["authentication", "classical", "signing", "encapsulation"])
@pytest.mark.parametrize("whose", ["another device's", "this device's, of long ago"])
def test_a_key_that_is_registered_already_leaves_nothing(machine: Machine, site: Site, role: str, whose: str) -> None:
    if whose == "another device's":
        known, present, epoch = enrolled(site).keys, machine, 1
    else:
        known, present, epoch = machine.keys, renewed(machine), 2
    ask(machine)
    renewing = Renewing(present)
    keys = replace(renewing.keys.public, **{role: getattr(known.public, role)})
    csr = make_csr(known.authentication if role == "authentication" else renewing.keys.authentication)
    with pytest.raises(KeyUsageError, match="registered"):
        renewing.begin(renewing.transcript(keys=keys, csr=csr))
    assert device_of(machine).key_epoch == epoch and not Renewal.objects.filter(state="begun").exists()


def test_a_key_that_is_registered_meanwhile_ends_the_renewal_and_leaves_no_other_key(
    machine: Machine, site: Site
) -> None:
    ask(machine)
    renewing = Renewing(machine)
    proofs = renewing.begin()
    thief = Machine.with_claim(site)
    thief.keys = replace(thief.keys, signing=renewing.keys.signing)
    thief.enrol()
    with pytest.raises(KeyUsageError):
        renewing.finish(proofs)
    assert not device_keys(str(device_of(machine).id), epoch=2)
    assert Renewal.objects.get().state == "lapsed"
    again = Renewing(machine)
    assert again.finish(again.begin()) == "proven"


@pytest.mark.parametrize("name", ["challenge_mac", "authentication", "classical", "signing", "continuity"])
def test_each_wrong_proof_leaves_nothing(machine: Machine, name: str) -> None:
    ask(machine)
    renewing = Renewing(machine)
    good = renewing.begin()
    if name == "continuity":
        forged = sign(b"another", purpose=Purpose.RENEW, key=machine.keys.signing)
        bad = replace(good, continuity=forged)
    else:
        value: Any = getattr(good.finish, name)
        bad = replace(good, finish=replace(good.finish, **{name: value[:-1] + bytes([value[-1] ^ 1])}))
    with pytest.raises(InvalidSignatureError):
        renewing.finish(bad)
    assert nothing_renewed(machine)
    assert renewing.finish(good) == "proven"


def test_a_renewal_of_another_device_cannot_be_finished(machine: Machine, site: Site) -> None:
    ask(machine)
    renewing = Renewing(machine)
    proofs = renewing.begin()
    assert renewing.renewal_id is not None
    with pytest.raises(NotFoundError):
        renewal.finish_renewal(device=device_of(enrolled(site)), renewal_id=renewing.renewal_id, proofs=proofs)
    assert nothing_renewed(machine)


def test_keys_of_a_suite_that_is_not_accepted_leave_nothing(machine: Machine, settings: LazySettings) -> None:
    ask(machine)
    with pytest.raises(UnsupportedSuiteError):
        Renewing(machine, "high").begin()
    assert not Renewal.objects.exists()
    settings.ACCEPTED_SUITES = ("hybrid", "high")
    after = renewed(machine, suite="high")
    assert device_of(machine).suite == "high"
    assert after.keys.signing.verify_key.algorithm == "mldsa87-p384"


def test_an_expired_certificate_cannot_renew(machine: Machine) -> None:
    Key.objects.filter(owner="device").update(not_after_at=timezone.now())
    with pytest.raises(CertificateNotValidError):
        authenticate(machine.facts(), admit=Admit.RENEWING)


def test_a_suspended_and_a_revoked_device_cannot_renew(machine: Machine) -> None:
    services.suspend_device(device_id=device_of(machine).id, actor="user:1")
    with pytest.raises(NotPermittedError):
        authenticate(machine.facts(), admit=Admit.RENEWING)
    services.revoke_device(device_id=device_of(machine).id, actor="user:1", reason=Reason.KEY_COMPROMISE)
    with pytest.raises(CertificateRevokedError):
        authenticate(machine.facts(), admit=Admit.RENEWING)


def test_a_device_that_is_revoked_between_proof_and_certificate_gets_none(machine: Machine) -> None:
    ask(machine)
    renewing = Renewing(machine)
    renewing.finish(renewing.begin())
    services.revoke_device(device_id=device_of(machine).id, actor="user:1", reason=Reason.CESSATION_OF_OPERATION)
    assert issue_renewals() == 0
    assert Certificate.objects.filter(key__owner="device").count() == 1


# --- overlap ------------------------------------------------------------------------------------------------------


def test_the_old_certificates_requests_are_accepted_in_the_overlap_only(machine: Machine) -> None:
    after = renewed(machine)
    now = timezone.now()
    assert authenticate(machine.facts()).device.id == device_of(machine).id
    assert authenticate(after.facts()).device.id == device_of(machine).id
    Key.objects.filter(purpose="authentication", epoch=1).update(overlap_until=now)
    with pytest.raises(CertificateRevokedError):
        authenticate(machine.facts())
    authenticate(after.facts())


def test_the_old_keys_end_by_their_roles(machine: Machine) -> None:
    renewed(machine)
    old = device_keys(str(device_of(machine).id), epoch=1)
    for role in ("authentication", "classical"):
        assert old[role].overlap_until == old[role].superseded_at + issuing.REQUEST_OVERLAP
    for role in ("signing", "encapsulation"):
        assert old[role].overlap_until == old[role].not_after_at


def test_the_old_signing_key_verifies_live_for_earlier_rounds_and_in_the_archive_by_receive_time(
    machine: Machine,
) -> None:
    renewed(machine)
    device = device_of(machine)
    key = device_keys(str(device.id), epoch=1)["signing"]
    superseded_at, now = key.superseded_at, timezone.now()
    assert superseded_at is not None
    earlier, later = superseded_at - timedelta(seconds=1), superseded_at + timedelta(seconds=1)
    found = selectors.superseded_signing_key(device, bytes.fromhex(key.key_id), round_opened_at=earlier, now=now)
    assert found.raw == machine.keys.public.signing.raw
    for opened_at in (later, superseded_at, None):
        with pytest.raises(KeyUsageError, match="superseded"):
            selectors.superseded_signing_key(device, bytes.fromhex(key.key_id), round_opened_at=opened_at, now=now)
    statement, standing = read_statement(str(device.id), epoch=1), key_standing(key)
    verify_archive(statement, standing, received_at=now)
    with pytest.raises(KeyUsageError):
        verify_live(statement, standing, now=now, round_opened_at=None)


def test_a_compromised_old_key_is_not_relied_on(machine: Machine, site: Site) -> None:
    renewed(machine)
    device = device_of(machine)
    services.revoke_device(device_id=device.id, actor="user:1", reason=Reason.KEY_COMPROMISE)
    key = device_keys(str(device.id), epoch=1)["signing"]
    with pytest.raises(KeyUsageError):
        selectors.superseded_signing_key(
            device, bytes.fromhex(key.key_id), round_opened_at=device.activated_at, now=timezone.now()
        )
    stranger = device_of(enrolled(site))
    with pytest.raises(WrongContextError):
        selectors.superseded_signing_key(
            stranger, bytes.fromhex(key.key_id), round_opened_at=stranger.activated_at, now=timezone.now()
        )


# --- batches ------------------------------------------------------------------------------------------------------


def test_a_batch_is_issued_in_as_many_statements_as_one(site: Site, django_assert_max_num_queries: Any) -> None:
    machines = [enrolled(site) for _ in range(6)]
    for machine in machines:
        ask(machine)
        renewing = Renewing(machine)
        renewing.finish(renewing.begin())
    with django_assert_max_num_queries(40):
        assert issue_renewals() == 6
    assert set(Device.objects.values_list("key_epoch", flat=True)) == {2}
    assert Key.objects.filter(owner="device", state="active", epoch=2).count() == 24


def test_one_broken_renewal_keeps_no_others_up(site: Site) -> None:
    machines = [enrolled(site) for _ in range(3)]
    for machine in machines:
        ask(machine)
        renewing = Renewing(machine)
        renewing.finish(renewing.begin())
    broken = device_of(machines[0])
    Key.objects.filter(subject_id=str(broken.id), epoch=2, purpose="signing").update(state="deactivated")
    assert issue_renewals() == 2
    assert [device_of(machine).key_epoch for machine in machines] == [1, 2, 2]
    assert broken.renewals.get().state == "lapsed"
    assert states(machines[0], 1) == {"active"}


def test_renewals_that_cannot_go_on_do_not_stand_in_the_way_of_the_others(site: Site) -> None:
    gone, held, next_one = (enrolled(site) for _ in range(3))
    for machine in (gone, held, next_one):
        ask(machine)
        renewing = Renewing(machine)
        renewing.finish(renewing.begin())
    services.revoke_device(device_id=device_of(gone).id, actor="user:1", reason=Reason.CESSATION_OF_OPERATION)
    services.suspend_device(device_id=device_of(held).id, actor="user:1")
    assert issue_renewals(limit=1) == 1
    assert [device_of(machine).key_epoch for machine in (gone, held, next_one)] == [1, 1, 2]
    services.reinstate_device(device_id=device_of(held).id, actor="user:1")
    assert issue_renewals(limit=1) == 1
    assert device_of(held).key_epoch == 2


@pytest.mark.parametrize("changes", [{"operation": "enrol", "renews": None, "epoch": 1, "claim_id": bytes(5)}])
def test_an_enrolments_transcript_is_no_renewal(machine: Machine, changes: dict[str, Any]) -> None:
    ask(machine)
    renewing = Renewing(machine)
    with pytest.raises(LatticewardError):
        renewing.begin(renewing.transcript(**changes))
    assert nothing_renewed(machine)
