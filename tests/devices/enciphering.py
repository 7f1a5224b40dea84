"""A machine's side of a request for an encipherment certificate; everything that is sent can be changed before."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from devices import encipherment
from devices.encipherment_issuing import collect_encipherment, issue_encipherments
from devices.models import Encipherment
from keys.models import Certificate, Key
from keys.rotation import server_address
from keys.selectors import read_statement
from latticeward.crypto.encipherment import DeciphermentKey
from latticeward.encipherment import EnciphermentRequest, prove_encipherment
from latticeward.enrolment_messages import Meeting
from tests.devices.machine import Machine
from tests.devices.renewing import device_of


@dataclass
class Enciphering:
    """One request of a machine: its key, R and A once they are made."""

    machine: Machine
    key: DeciphermentKey = field(default_factory=lambda: DeciphermentKey.generate("ml-kem-768"))
    sent: bytes = b""
    answer: bytes = b""
    encipherment_id: UUID | None = None

    def request(self, **changes: object) -> bytes:
        """R as the agent makes it."""
        device = device_of(self.machine)
        values: dict[str, object] = {
            "meeting": Meeting(
                federation_id=str(self.machine.site.federation_id),
                authority=server_address(),
                anchor=self.machine.code.anchor,
            ),
            "device_id": str(device.id),
            "epoch": device.key_epoch,
            "statement_digest": read_statement(str(device.id), epoch=device.key_epoch).digest,
            "device_nonce": secrets.token_bytes(32),
            "key": self.key.encipherment_key,
            **changes,
        }
        return EnciphermentRequest(**values).to_bytes()  # type: ignore[arg-type]

    def begin(self, raw: bytes | None = None, *, now: datetime | None = None, epoch: int | None = None) -> bytes:
        """Send R, take the answer, and make the proof."""
        device = device_of(self.machine)
        self.sent = raw or self.sent or self.request()
        begun = encipherment.begin_encipherment(
            device=device, epoch=epoch or device.key_epoch, request=self.sent, now=now
        )
        self.encipherment_id, self.answer = begun.encipherment_id, begun.answer
        return prove_encipherment(request=self.sent, answer=begun.answer, key=self.key, now=now or datetime.now(UTC))

    def finish(self, mac: bytes, *, now: datetime | None = None) -> str:
        assert self.encipherment_id is not None
        device = device_of(self.machine)
        return encipherment.finish_encipherment(
            device=device, encipherment_id=self.encipherment_id, mac=mac, now=now
        ).state

    def collect(self) -> dict[str, object]:
        assert self.encipherment_id is not None
        return collect_encipherment(encipherment_id=self.encipherment_id, device=device_of(self.machine))

    @property
    def row(self) -> Encipherment:
        return Encipherment.objects.get(pk=self.encipherment_id or "")


def enciphered(machine: Machine, key: DeciphermentKey | None = None) -> Enciphering:
    """All the way to a certificate."""
    asking = Enciphering(machine) if key is None else Enciphering(machine, key)
    asking.finish(asking.begin())
    assert issue_encipherments() == 1
    return asking


def key_of(asking: Enciphering) -> Key:
    """The registered key."""
    return Key.objects.get(key_id=asking.key.encipherment_key.key_id.hex())


def certificate_of(asking: Enciphering) -> Certificate:
    """Its certificate, with the issuer."""
    return Certificate.objects.select_related("issuer").get(key=key_of(asking))
