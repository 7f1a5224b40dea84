"""Devices of a measurement: enrolled by the product's own services, submitting over HTTP with their own signatures."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from devices import claims, enrolment, services
from devices.models import Device, Federation
from devices.sites import create_site
from keys.rotation import server_address
from latticeward.agent.config import AgentConfig
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports.http import HttpTransport
from latticeward.crypto.certificate import make_csr
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment import finish_proofs, transcript_mac, verify_answer
from latticeward.enrolment_messages import EnrolmentTranscript, Meeting


@dataclass(frozen=True, slots=True)
class FleetDevice:
    """One enrolled device with its keys and its line to the door."""

    device: Device
    keys: DeviceKeys
    line: HttpTransport


def enrol(federation: Federation, number: int, *, server: str, home: Path) -> FleetDevice:
    """A device at a hospital of its own, all the way to its certificate."""
    site = create_site(federation=federation, slug=f"hospital-{number}", name=f"Hospital {number}", actor="bench")
    _, code = claims.create_claim(site=site, device_class="workstation", auto_approve=True, actor="bench")
    keys = DeviceKeys.generate()
    raw = EnrolmentTranscript(
        operation="enrol",
        meeting=Meeting(federation_id=str(federation.id), authority=server_address(), anchor=code.anchor),
        claim_id=code.lookup_id,
        site=site.slug,
        device_class="workstation",
        name=f"edge {number}",
        device_nonce=secrets.token_bytes(32),
        suites=("hybrid",),
        floor="hybrid",
        keys=keys.public,
        csr=make_csr(keys.authentication),
        epoch=1,
        renews=None,
    ).to_bytes()
    begun = enrolment.begin_enrolment(
        transcript=raw, mac=transcript_mac(raw, mac_key=code.mac_key), source=f"192.0.2.{number % 250}"
    )
    answer = verify_answer(begun.answer, begun.mac, transcript=raw, mac_key=code.mac_key, now=datetime.now(UTC))
    device = enrolment.finish_enrolment(enrolment_id=begun.enrolment_id, proofs=finish_proofs(answer, keys=keys))
    services.issue(device_id=device.id)
    line = HttpTransport.make(AgentConfig(home=home), server, keys, Interruption())
    return FleetDevice(services.get_device(device.id), keys, line)
