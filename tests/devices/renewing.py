"""A machine's side of a renewal, step by step; everything that is sent can be changed before it is sent."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from devices import renewal, services
from devices.models import Device
from devices.renewal_issuing import issue_renewals
from keys.selectors import read_statement
from latticeward.crypto.certificate import make_csr
from latticeward.device_keys import DeviceKeys
from latticeward.renewal import RenewalProofs, read_renewal_answer, renewal_proofs, replaces
from tests.devices.machine import Machine


def ask(machine: Machine, *, suite: str = "hybrid", reason: str = "rotation") -> None:
    """Have the server ask the machine's device for new keys, so that it may renew before its time."""
    Device.objects.filter(pk=device_of(machine).pk).update(renewal_reason=reason, renewal_suite=suite)


def device_of(machine: Machine) -> Device:
    """The device's row as it stands now."""
    assert machine.device is not None
    return services.get_device(machine.device.id)


@dataclass
class Renewing:
    """One renewal of a machine: its next keys, and T1 once it is made."""

    machine: Machine
    suite: str = "hybrid"
    keys: DeviceKeys = field(init=False)
    sent: bytes = b""
    renewal_id: UUID | None = None

    def __post_init__(self) -> None:
        self.keys = DeviceKeys.generate(self.suite)

    def transcript(self, **changes: object) -> bytes:
        """T1 as the agent makes it."""
        device = device_of(self.machine)
        parent = read_statement(str(device.id), epoch=device.key_epoch)
        values: dict[str, object] = {
            "operation": "renew",
            "claim_id": b"",
            "suites": (self.suite,),
            "floor": self.suite,
            "keys": self.keys.public,
            "csr": make_csr(self.keys.authentication),
            "epoch": device.key_epoch + 1,
            "renews": replaces(parent),
            **changes,
        }
        return self.machine.transcript(**values)

    def begin(
        self, raw: bytes | None = None, *, now: datetime | None = None, epoch: int | None = None
    ) -> RenewalProofs:
        """Send T1, take the answer, and make the proofs."""
        device = device_of(self.machine)
        self.sent = raw or self.sent or self.transcript()
        begun = renewal.begin_renewal(device=device, epoch=epoch or device.key_epoch, transcript=self.sent, now=now)
        self.renewal_id = begun.renewal_id
        answer = read_renewal_answer(begun.answer, transcript=self.sent, now=now or datetime.now(UTC))
        return renewal_proofs(answer, keys=self.keys, parent=self.machine.keys.signing)

    def finish(self, proofs: RenewalProofs, *, now: datetime | None = None) -> str:
        assert self.renewal_id is not None
        device = device_of(self.machine)
        return renewal.finish_renewal(device=device, renewal_id=self.renewal_id, proofs=proofs, now=now).state

    def switched(self) -> Machine:
        """The machine with its new keys; the old one stays as it was."""
        return replace(self.machine, keys=self.keys, device=device_of(self.machine))


def renewed(machine: Machine, *, suite: str = "hybrid") -> Machine:
    """All the way: the machine with the keys of its next epoch, certified."""
    ask(machine, suite=suite)
    renewing = Renewing(machine, suite)
    renewing.finish(renewing.begin())
    assert issue_renewals() == 1
    return renewing.switched()
