"""Certificates that standard tools encrypt to: asked for, proven, issued, and everything that is refused."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from controlplane.audit.models import AuditEntry
from devices import encipherment, services
from devices.encipherment_issuing import issue_encipherments
from devices.models import Device, Encipherment, Site
from keys import usage
from keys.encipherment import refuse_known
from keys.models import Certificate, Key, Reason
from keys.selectors import certificate_of_epoch, device_keys, revoked_certificates
from keys.services import register_device_keys
from latticeward import canonical
from latticeward.crypto.encipherment import DeciphermentKey, EnciphermentKey
from latticeward.crypto.keys import DecapsulationKey, EncapsulationKey
from latticeward.device_keys import DeviceKeys
from latticeward.encipherment import EnciphermentRequest, prove_encipherment
from latticeward.enrolment import CHALLENGE_LIFETIME_SECONDS
from latticeward.errors import (
    ClockSkewError,
    InvalidSignatureError,
    KeyUsageError,
    LatticewardError,
    MalformedMessageError,
    NotFoundError,
    NotPermittedError,
    StateError,
    ThrottledError,
    UnsupportedSuiteError,
    WrongContextError,
)
from tests.devices.enciphering import Enciphering, certificate_of, enciphered, key_of
from tests.devices.machine import Machine, enrolled
from tests.devices.renewing import device_of, renewed

pytestmark = pytest.mark.django_db
LATE = timedelta(seconds=CHALLENGE_LIFETIME_SECONDS + 1)


@pytest.fixture
def machine(site: Site) -> Machine:
    return enrolled(site)


def events_of(asking: Enciphering) -> list[str]:
    rows = AuditEntry.objects.filter(subject_kind="encipherment", subject_id=str(asking.encipherment_id))
    return list(rows.order_by("recorded_at").values_list("event", flat=True))


def test_a_device_gets_a_certificate_for_a_key_of_its_own(machine: Machine) -> None:
    asking = enciphered(machine)
    found = asking.collect()
    assert found["state"] == "issued"
    row, own = certificate_of(asking), certificate_of_epoch(str(device_of(machine).id), epoch=1)
    leaf = x509.load_der_x509_certificate(bytes(row.der))
    assert leaf.public_key().public_bytes_raw() == asking.key.encipherment_key.raw  # type: ignore[union-attr]
    assert leaf.subject == x509.load_der_x509_certificate(bytes(own.der)).subject
    assert row.not_after_at == own.not_after_at
    assert (key_of(asking).state, key_of(asking).not_after_at) == ("active", own.not_after_at)
    assert events_of(asking) == ["encipherment.begun", "encipherment.proven", "encipherment.issued"]
    about_key = AuditEntry.objects.filter(subject_kind="key", subject_id=str(key_of(asking).id))
    assert list(about_key.values_list("event", flat=True)) == ["key.activated"]
    usage.flush_uses()
    assert key_of(asking).uses == 1
    # The four keys of the device are still four, and its own certificate is still its identity.
    assert len(device_keys(str(device_of(machine).id), epoch=1)) == 4


def test_a_request_that_comes_twice_at_once_gets_one_new_answer(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Enciphering(machine)
    asking.begin()
    later = datetime.now(UTC) + LATE
    make, came = encipherment._answer, []

    def slowly(*given: Any) -> Any:
        made = make(*given)
        if not came:
            came.append(b"")
            came.append(asking.begin(now=later))
        return made

    monkeypatch.setattr(encipherment, "_answer", slowly)
    assert asking.finish(asking.begin(now=later), now=later) == "proven"
    assert asking.finish(came[1], now=later) == "proven"


def test_the_same_request_and_the_same_proof_again_change_nothing(machine: Machine) -> None:
    asking = Enciphering(machine)
    mac = asking.begin()
    first = (asking.encipherment_id, asking.answer)
    assert asking.begin() == mac and (asking.encipherment_id, asking.answer) == first
    assert asking.finish(mac) == asking.finish(mac) == "proven"
    assert issue_encipherments() == 1 and issue_encipherments() == 0
    assert asking.finish(mac) == "issued" and asking.begin() == mac
    assert Encipherment.objects.count() == 1


def test_a_request_whose_challenge_ran_out_gets_another_one(machine: Machine) -> None:
    asking = Enciphering(machine)
    mac, later = asking.begin(), datetime.now(UTC) + LATE
    with pytest.raises(ClockSkewError):
        asking.finish(mac, now=later)
    encipherment.forget_challenges(now=later)
    assert asking.row.wrapped_challenge is None
    with pytest.raises(KeyUsageError, match="expired"):
        asking.finish(mac)
    again = asking.begin(now=later)
    assert again != mac
    assert asking.finish(again, now=later) == "proven" and asking.row.wrapped_challenge is None


def test_another_request_takes_the_place_of_one_under_way(machine: Machine) -> None:
    first, second = Enciphering(machine), Enciphering(machine)
    mac = first.begin()
    other = second.begin()
    assert (first.row.state, first.row.code) == ("lapsed", "superseded")
    with pytest.raises(StateError):
        first.finish(mac)
    second.finish(other)
    with pytest.raises(StateError, match="being made"):
        Enciphering(machine).begin()
    assert issue_encipherments() == 1 and second.row.state == "issued"


# --- refused at the first message -------------------------------------------------------------------------------


def refused(asking: Enciphering, error: type[LatticewardError], raw: bytes | None = None) -> None:
    before = AuditEntry.objects.count()
    with pytest.raises(error):
        asking.begin(raw)
    assert not Encipherment.objects.exists() and AuditEntry.objects.count() == before


def bent(asking: Enciphering, change: Callable[[bytes], bytes], algorithm: str = "ml-kem-768") -> bytes:
    """R with another public key in it, which the device's own code would not write."""
    fields = canonical.decode(asking.request(), limit_bytes=8192)
    return canonical.encode({**fields, "public_key": change(fields["public_key"]), "algorithm": algorithm})


@pytest.mark.parametrize(
    ("change", "algorithm", "error"),
    [
        (lambda raw: b"\xff\x0f\x00" + raw[3:], "ml-kem-768", MalformedMessageError),  # 4095 is no residue
        (lambda raw: b"\x01\x0d\x00" + raw[3:], "ml-kem-768", MalformedMessageError),  # nor is 3329
        (lambda raw: raw[:-1], "ml-kem-768", MalformedMessageError),
        (lambda raw: raw + b"\x00", "ml-kem-768", MalformedMessageError),
        (lambda raw: raw, "ml-kem-1024", MalformedMessageError),
        (lambda raw: raw, "ml-kem-512", UnsupportedSuiteError),
        (lambda raw: bytes(1184), "ml-kem-768", KeyUsageError),
    ],
    ids=["4095", "3329", "short", "long", "other length", "unknown set", "zeros"],
)
def test_a_key_that_is_none_is_refused(
    machine: Machine, change: Callable[[bytes], bytes], algorithm: str, error: type[LatticewardError]
) -> None:
    asking = Enciphering(machine)
    refused(asking, error, bent(asking, change, algorithm))


def test_3328_is_a_residue(machine: Machine) -> None:
    asking = Enciphering(machine)
    raw = b"\x00\x0d\xd0" + asking.key.encipherment_key.raw[3:]
    assert EnciphermentKey.from_raw(raw, "ml-kem-768").raw == raw


def test_a_key_of_another_parameter_set_than_the_suites_is_refused(machine: Machine) -> None:
    refused(Enciphering(machine, DeciphermentKey.generate("ml-kem-1024")), UnsupportedSuiteError)


def test_a_device_of_the_high_suite_has_a_key_of_the_larger_set(site: Site, settings: Any) -> None:
    settings.ACCEPTED_SUITES = ("hybrid", "high")
    machine = Machine.with_claim(site)
    machine.keys = DeviceKeys.generate("high")
    device = machine.finish(machine.begin(machine.transcript(suites=("high",), floor="high")))
    services.approve_device(device_id=device.id, actor="user:1")
    services.issue(device_id=device.id)
    refused(Enciphering(machine), UnsupportedSuiteError)
    asking = enciphered(machine, DeciphermentKey.generate("ml-kem-1024"))
    assert key_of(asking).algorithm == "ml-kem-1024"


@pytest.mark.parametrize("name", ["federation_id", "authority", "anchor"])
def test_a_request_for_another_server_is_refused(machine: Machine, name: str) -> None:
    asking = Enciphering(machine)
    meeting = EnciphermentRequest.from_bytes(asking.request()).meeting
    other: Any = b"x" * 32 if name == "anchor" else "other"
    refused(asking, WrongContextError, asking.request(meeting=replace(meeting, **{name: other})))


@pytest.mark.parametrize(
    "changes",
    [{"device_id": "another"}, {"epoch": 2}, {"statement_digest": b"x" * 32}],
    ids=["device", "epoch", "keys"],
)
def test_a_request_of_other_keys_than_those_that_sign_it_is_refused(machine: Machine, changes: Any) -> None:
    asking = Enciphering(machine)
    refused(asking, WrongContextError, asking.request(**changes))


def test_a_request_signed_with_superseded_keys_is_refused(machine: Machine) -> None:
    asking = Enciphering(machine)
    old = asking.request()
    renewed(machine)
    with pytest.raises(KeyUsageError, match="superseded"):
        asking.begin(old, epoch=1)
    assert not Encipherment.objects.exists()


@pytest.mark.parametrize("state", ["pending", "approved", "suspended", "revoked", "declined"])
def test_a_device_that_is_not_active_is_refused(machine: Machine, state: str) -> None:
    asking = Enciphering(machine)
    waiting = Enciphering(machine)
    mac = waiting.begin()
    Device.objects.filter(pk=device_of(machine).pk).update(state=state)
    with pytest.raises(NotPermittedError):
        asking.begin()
    with pytest.raises(NotPermittedError):
        waiting.finish(mac)
    assert Encipherment.objects.get().state == "begun" and not Key.objects.filter(purpose="encipherment").exists()


def test_the_lattice_half_of_a_hybrid_key_is_refused(machine: Machine, site: Site) -> None:
    asking = Enciphering(machine)
    own = machine.keys.public.encapsulation.lattice_raw
    with pytest.raises(KeyUsageError, match="half"):
        asking.begin(bent(asking, lambda raw: own))
    other = enrolled(site).keys.public.encapsulation.lattice_raw
    with pytest.raises(KeyUsageError, match="half"):
        asking.begin(bent(asking, lambda raw: other))
    assert not Encipherment.objects.exists()


def test_a_hybrid_key_may_not_be_made_of_an_encipherment_key(machine: Machine) -> None:
    asking = enciphered(machine)
    keys = DeviceKeys.generate().public
    lattice = asking.key.encipherment_key.raw
    made = EncapsulationKey.from_raw(lattice + keys.encapsulation.raw[1184:], keys.encapsulation.algorithm)
    with pytest.raises(KeyUsageError, match="registered"):
        register_device_keys(
            subject_id="x", keys=replace(keys, encapsulation=made), epoch=1, actor="system", feed="federation:x"
        )
    assert not Key.objects.filter(subject_id="x").exists()


def test_a_key_that_is_registered_is_refused_to_everybody(machine: Machine, site: Site) -> None:
    asking = enciphered(machine)
    for who in (machine, enrolled(site)):
        with pytest.raises(KeyUsageError, match="registered"):
            Enciphering(who, asking.key).begin()
    assert Encipherment.objects.count() == 1


# --- refused at the proof ---------------------------------------------------------------------------------------


def test_a_wrong_proof_leaves_the_request_as_it_was(machine: Machine) -> None:
    asking = Enciphering(machine)
    mac = asking.begin()
    for wrong in (bytes(32), mac[:-1], mac + b"\x00", bytes([mac[0] ^ 1]) + mac[1:]):
        with pytest.raises(InvalidSignatureError):
            asking.finish(wrong)
    assert asking.row.state == "begun" and not Key.objects.filter(purpose="encipherment").exists()
    asking.finish(mac)
    with pytest.raises(InvalidSignatureError, match="another proof"):
        asking.finish(bytes(32))


def test_who_has_not_the_private_key_proves_nothing(machine: Machine) -> None:
    asking = Enciphering(machine)
    asking.begin()
    stranger = DeciphermentKey.generate("ml-kem-768")
    with pytest.raises(InvalidSignatureError):
        asking.finish(
            prove_encipherment(request=asking.sent, answer=asking.answer, key=stranger, now=datetime.now(UTC))
        )


def test_a_proof_is_good_for_its_challenge_only(machine: Machine, site: Site) -> None:
    first = Enciphering(machine)
    used = first.begin()
    second = Enciphering(machine, first.key)
    second.begin(second.request())
    with pytest.raises(InvalidSignatureError):
        second.finish(used)


def test_a_request_of_another_device_is_not_found(machine: Machine, site: Site) -> None:
    asking, other = Enciphering(machine), Enciphering(enrolled(site))
    mac = asking.begin()
    other.encipherment_id = asking.encipherment_id
    with pytest.raises(NotFoundError):
        other.finish(mac)
    with pytest.raises(NotFoundError):
        other.collect()


def test_an_answer_for_another_device_is_not_proven(machine: Machine, site: Site) -> None:
    asking, other = Enciphering(machine), Enciphering(enrolled(site))
    asking.begin()
    other.begin()
    with pytest.raises(WrongContextError):
        prove_encipherment(request=asking.sent, answer=other.answer, key=asking.key, now=datetime.now(UTC))


def test_a_challenge_moved_to_another_row_does_not_open(machine: Machine, site: Site) -> None:
    asking, other = Enciphering(machine), Enciphering(enrolled(site))
    mac = asking.begin()
    other.begin()
    Encipherment.objects.filter(pk=asking.row.pk).update(wrapped_challenge=other.row.wrapped_challenge)
    with pytest.raises(LatticewardError):
        asking.finish(mac)
    assert asking.row.state == "begun"


def test_of_two_requests_for_one_key_one_gets_it(machine: Machine, site: Site) -> None:
    asking, other = Enciphering(machine), Enciphering(enrolled(site))
    other.key = asking.key
    mac, second = asking.begin(), other.begin()
    asking.finish(mac)
    with pytest.raises(KeyUsageError, match="registered"):
        other.finish(second)
    assert (other.row.state, other.row.code) == ("lapsed", "key_usage")
    assert issue_encipherments() == 1 and Key.objects.filter(purpose="encipherment").count() == 1


# --- the certificate's life -------------------------------------------------------------------------------------


def test_a_newer_certificate_supersedes_the_one_before(machine: Machine) -> None:
    first, second = enciphered(machine), enciphered(machine)
    old, new = key_of(first), key_of(second)
    assert (old.state, old.revocation.reason, new.state) == ("deactivated", Reason.SUPERSEDED, "active")
    told = revoked_certificates(Certificate.objects.filter(key__purpose="encipherment"))
    assert {serial: row.reason for serial, row in told.items()} == {certificate_of(first).serial: "superseded"}


def test_suspending_a_device_holds_its_certificate_until_it_is_reinstated(machine: Machine) -> None:
    asking, device = enciphered(machine), device_of(machine)
    services.suspend_device(device_id=device.id, actor="user:1")
    rows = Certificate.objects.filter(key=key_of(asking))
    assert revoked_certificates(rows)[certificate_of(asking).serial].reason == "certificate_hold"
    services.reinstate_device(device_id=device.id, actor="user:1")
    assert key_of(asking).state == "active" and not revoked_certificates(rows)


@pytest.mark.parametrize("reason", [Reason.KEY_COMPROMISE, Reason.CESSATION_OF_OPERATION])
def test_revoking_a_device_revokes_its_certificates(machine: Machine, reason: Reason) -> None:
    old, new = enciphered(machine), enciphered(machine)
    services.revoke_device(device_id=device_of(machine).id, actor="user:2", reason=reason)
    told = revoked_certificates(Certificate.objects.filter(key__purpose="encipherment"))
    compromised = reason == Reason.KEY_COMPROMISE
    assert told[certificate_of(new).serial].reason == reason
    # What was superseded may have been in the same wrong hands.
    assert told[certificate_of(old).serial].reason == (reason if compromised else Reason.SUPERSEDED)


@pytest.mark.parametrize("state", ["suspended", "revoked"])
def test_a_device_that_lost_its_trust_meanwhile_gets_no_certificate(machine: Machine, state: str) -> None:
    asking, device = Enciphering(machine), device_of(machine)
    asking.finish(asking.begin())
    if state == "suspended":
        services.suspend_device(device_id=device.id, actor="user:1")
    else:
        services.revoke_device(device_id=device.id, actor="user:2", reason=Reason.KEY_COMPROMISE)
    assert issue_encipherments() == 1
    assert (asking.row.state, asking.row.code) == ("lapsed", "not_permitted")
    assert key_of(asking).state in ("deactivated", "compromised")
    assert not Certificate.objects.filter(key=key_of(asking)).exists()
    assert asking.collect() == {"state": "lapsed", "code": "not_permitted"}


def test_a_device_that_renewed_meanwhile_asks_again(machine: Machine) -> None:
    asking = Enciphering(machine)
    asking.finish(asking.begin())
    renewed(machine)
    assert issue_encipherments() == 1 and (asking.row.state, asking.row.code) == ("lapsed", "key_usage")


def test_a_renewal_leaves_the_certificate_as_it_is(machine: Machine) -> None:
    asking = enciphered(machine)
    renewed(machine)
    assert key_of(asking).state == "active"
    assert len(device_keys(str(device_of(machine).id), epoch=2)) == 4


def test_a_key_that_no_longer_waits_gets_no_certificate(machine: Machine) -> None:
    asking = Enciphering(machine)
    asking.finish(asking.begin())
    Key.objects.filter(pk=key_of(asking).pk).update(state="deactivated")
    assert issue_encipherments() == 1 and asking.row.state == "lapsed"


def test_a_certificate_never_outlives_the_devices_own(machine: Machine) -> None:
    own = certificate_of_epoch(str(device_of(machine).id), epoch=1)
    Certificate.objects.filter(pk=own.pk).update(not_after_at=datetime.now(UTC) + timedelta(days=3))
    row = certificate_of(enciphered(machine))
    leaf = x509.load_der_x509_certificate(bytes(row.der))
    assert leaf.not_valid_after_utc <= datetime.now(UTC) + timedelta(days=3)


def test_no_certificate_is_made_from_a_device_certificate_that_has_ended(machine: Machine) -> None:
    asking = Enciphering(machine)
    asking.finish(asking.begin())
    own = certificate_of_epoch(str(device_of(machine).id), epoch=1)
    Certificate.objects.filter(pk=own.pk).update(not_after_at=datetime.now(UTC) - timedelta(seconds=1))
    assert issue_encipherments() == 1 and (asking.row.state, asking.row.code) == ("lapsed", "wrong_state")
    assert key_of(asking).state == "deactivated"


def test_the_lattice_half_is_the_first_part_of_a_hybrid_key() -> None:
    for algorithm, length in (("mlkem768-x25519", 1184), ("mlkem1024-p384", 1568)):
        key = DecapsulationKey.generate(algorithm).encapsulation_key
        assert key.lattice_raw == key.raw[:length]
    fresh = DeciphermentKey.from_seed(secrets.token_bytes(64), "ml-kem-1024")
    refuse_known(fresh.encipherment_key)


def test_a_device_cannot_fill_revocation_list_and_ledger(machine: Machine) -> None:
    last = Enciphering(machine)
    for _ in range(encipherment.REQUESTS_A_DAY - 1):
        Enciphering(machine).begin()
    mac = last.begin()
    events = AuditEntry.objects.count()
    with pytest.raises(ThrottledError) as refused:
        Enciphering(machine).begin()
    assert 0 < refused.value.retry_after_seconds <= 24 * 3600
    assert AuditEntry.objects.count() == events
    # The same request again is no further one, and neither is the end of the one that is under way.
    assert last.begin() == mac and last.finish(mac) == "proven" and issue_encipherments() == 1
    tomorrow = datetime.now(UTC) + timedelta(days=1, minutes=1)
    assert Enciphering(machine).begin(now=tomorrow)
