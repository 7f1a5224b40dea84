"""What bad input gets at enrolment and renewal, where no other file shows it: refused, and nothing remains."""

from dataclasses import replace

import pytest

from devices.models import Device, Enrolment, Renewal, Site
from keys.models import Certificate, Key
from latticeward.errors import InvalidSignatureError, MalformedMessageError
from tests.devices.machine import Machine, enrolled
from tests.devices.renewing import Renewing, ask, device_of

ML_DSA_65_BYTES = 3309


def out_of_range(raw: bytes, public: bytes) -> bytes:
    """T1 with an encapsulation key whose first two coefficients are 4095, above the modulus 3329 (FIPS 203, 7.2)."""
    assert raw.count(public) == 1
    return raw.replace(public, b"\xff" * 3 + public[3:])


def crossed(good: bytes, other: bytes) -> list[bytes]:
    """A valid lattice half with a forged curve half, and the other way round."""
    return [good[:ML_DSA_65_BYTES] + other[ML_DSA_65_BYTES:], other[:ML_DSA_65_BYTES] + good[ML_DSA_65_BYTES:]]


def test_an_encapsulation_key_out_of_range_does_not_enrol(site: Site) -> None:
    machine = Machine.with_claim(site)
    with pytest.raises(MalformedMessageError):
        machine.begin(out_of_range(machine.transcript(), machine.keys.public.encapsulation.raw))
    machine.claim.refresh_from_db()
    assert (machine.claim.reserved_for, Enrolment.objects.count(), Device.objects.count()) == ("", 0, 0)


def test_an_encapsulation_key_out_of_range_does_not_renew(site: Site) -> None:
    machine = enrolled(site)
    ask(machine)
    renewing = Renewing(machine)
    with pytest.raises(MalformedMessageError):
        renewing.begin(out_of_range(renewing.transcript(), renewing.keys.public.encapsulation.raw))
    assert (Renewal.objects.count(), device_of(machine).state) == (0, "active")


@pytest.mark.parametrize(
    "name", ["ward\x003", "ward 3\nactor: system", "ward \u202e3", "ward\u200b 3", "ward 3\x1b[2J"], ids=ascii
)
def test_a_name_that_cannot_be_shown_as_it_is_does_not_enrol(site: Site, name: str) -> None:
    machine = Machine.with_claim(site)
    with pytest.raises(MalformedMessageError):
        machine.begin(machine.transcript(name=name))
    machine.claim.refresh_from_db()
    assert (machine.claim.reserved_for, Enrolment.objects.count()) == ("", 0)
    machine.begin(machine.transcript(name="Wärd 3 – 心"))


def test_a_proof_with_one_forged_half_does_not_enrol(site: Site) -> None:
    machine, other = Machine.with_claim(site), Machine.with_claim(site)
    proofs, foreign = machine.begin(), other.begin()
    for signing in crossed(proofs.signing, foreign.signing):
        with pytest.raises(InvalidSignatureError):
            machine.finish(replace(proofs, signing=signing))
    assert not Device.objects.exists() and not Key.objects.filter(owner="device").exists()
    assert machine.finish(proofs).state == "pending"


def test_a_proof_with_one_forged_half_does_not_renew(site: Site) -> None:
    machine, other = enrolled(site), enrolled(site)
    ask(machine)
    ask(other)
    renewing = Renewing(machine)
    proofs, foreign = renewing.begin(), Renewing(other).begin()
    forged = [replace(proofs, continuity=half) for half in crossed(proofs.continuity, foreign.continuity)]
    halves = crossed(proofs.finish.signing, foreign.finish.signing)
    forged += [replace(proofs, finish=replace(proofs.finish, signing=half)) for half in halves]
    for bad in forged:
        with pytest.raises(InvalidSignatureError):
            renewing.finish(bad)
    assert not Key.objects.filter(owner="device", epoch=2).exists()
    assert Certificate.objects.filter(key__owner="device").count() == 2
    assert renewing.finish(proofs) == "proven"
