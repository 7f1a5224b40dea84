"""The agent gets an encipherment certificate over the wire: once, after cuts, and never over a file that is there."""

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from devices.models import Encipherment
from keys.models import Key
from latticeward.agent import cli, encipherment
from latticeward.agent.encipherment import PENDING_FILE, Destination, ask_certificate
from latticeward.crypto.encipherment_certificate import EnciphermentCertificate
from latticeward.errors import (
    CustodyError,
    LatticewardError,
    PermanentTransportError,
    TransientTransportError,
    UntrustedIssuerError,
)
from latticeward.trust import TrustStore
from tests.simulation.federation import FederationSimulator, SimulatedDevice
from tests.simulation.wire import Killed, memory_transport


class Working:
    """The transport; before each question for the certificate the workers do what there is to do."""

    def __init__(self, transport: Any, simulator: FederationSimulator) -> None:
        self._transport = transport
        self._simulator = simulator

    def __getattr__(self, name: str) -> Any:
        if name == "collect_encipherment":
            self._simulator.broker.drain()
        return getattr(self._transport, name)


@dataclass
class Machine:
    """One device of the simulation, and where its files go."""

    simulator: FederationSimulator
    device: SimulatedDevice
    folder: Path

    @property
    def destination(self) -> Destination:
        return Destination(certificate=self.folder / "chain.pem", key=self.folder / "key.pem")

    @property
    def pending(self) -> Path:
        return self.device.home / PENDING_FILE

    def ask(self, destination: Destination | None = None) -> EnciphermentCertificate:
        device = self.device
        identity = device.identity
        transport = memory_transport(device.web, device.name, device.config, identity.secrets.keys, device.now)
        trust = TrustStore.from_signed(transport.trust(), anchor_fingerprint=identity.anchor, now=device.now())
        return ask_certificate(
            destination or self.destination,
            home=device.home,
            identity=identity,
            transport=Working(transport, self.simulator),  # type: ignore[arg-type]
            trust=trust,
            clock=device.now,
            poll_seconds=0,
        )

    def has_nothing(self) -> bool:
        return not list(self.folder.iterdir())


@pytest.fixture
def machine(simulator: FederationSimulator, tmp_path: Path) -> Machine:
    folder = tmp_path / "out"
    folder.mkdir()
    return Machine(simulator, simulator.enrol(1)[0], folder)


def test_key_and_chain_are_written_and_nothing_is_kept(machine: Machine) -> None:
    found = machine.ask()
    key_file, chain_file = machine.destination.key, machine.destination.certificate
    leaf, issuing = x509.load_pem_x509_certificates(chain_file.read_bytes())
    leaf.verify_directly_issued_by(issuing)
    key: Any = load_pem_private_key(key_file.read_bytes(), None)
    assert key.public_key().public_bytes_raw() == found.public_key
    assert leaf.not_valid_after_utc == found.not_after_at
    assert {stat.S_IMODE(path.stat().st_mode) for path in (key_file, chain_file)} == {0o600}
    assert not machine.pending.exists() and len(list(machine.folder.iterdir())) == 2
    assert Encipherment.objects.get().state == "issued"


@pytest.mark.parametrize("kind", ["request", "answer", "kill"])
@pytest.mark.parametrize(
    ("part", "method", "skip"),
    [("/encipherments", "POST", 0), ("/finish", "POST", 0), ("/certificate", "GET", 0), ("/certificate", "GET", 1)],
    ids=["begin", "finish", "collect before the proof", "collect"],
)
def test_a_cut_anywhere_ends_in_one_certificate(machine: Machine, kind: str, part: str, method: str, skip: int) -> None:
    machine.simulator.fault(kind, part, method=method, skip=skip)
    with pytest.raises((TransientTransportError, Killed)):
        machine.ask()
    assert machine.has_nothing() and machine.pending.exists()
    machine.ask()
    assert Encipherment.objects.count() == 1 and Key.objects.filter(purpose="encipherment").count() == 1
    assert not machine.pending.exists()


def test_a_request_under_way_is_shown_until_it_is_settled(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    def said() -> str:
        cli._status(machine.device.config)
        return capsys.readouterr().out

    machine.simulator.fault("request", "/finish", method="POST")
    assert "encipherment" not in said()
    with pytest.raises(TransientTransportError):
        machine.ask()
    assert "asked      an encipherment certificate" in said()
    machine.ask()
    assert "encipherment" not in said()


@pytest.mark.parametrize("written", ["key.pem", "chain.pem"])
def test_a_cut_between_the_files_is_mended(machine: Machine, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = encipherment.write_new

    def dies(path: Path, content: bytes) -> None:
        real(path, content)
        if path.name == written:
            raise Killed

    monkeypatch.setattr(encipherment, "write_new", dies)
    with pytest.raises(Killed):
        machine.ask()
    monkeypatch.undo()
    machine.ask()
    assert Encipherment.objects.count() == 1
    assert {path.name for path in machine.folder.iterdir()} == {"key.pem", "chain.pem"}


@pytest.mark.parametrize("name", ["key.pem", "chain.pem"])
def test_a_file_that_is_there_is_not_replaced_and_nothing_is_asked(machine: Machine, name: str) -> None:
    (machine.folder / name).write_bytes(b"somebody's")
    with pytest.raises(CustodyError, match="not replaced"):
        machine.ask()
    assert (machine.folder / name).read_bytes() == b"somebody's"
    assert not machine.pending.exists() and not Encipherment.objects.exists()


@pytest.mark.parametrize(
    ("certificate", "key"), [("one.pem", "one.pem"), ("missing/chain.pem", "key.pem"), ("chain.pem", "missing/key.pem")]
)
def test_destinations_that_cannot_be_are_refused(machine: Machine, certificate: str, key: str) -> None:
    with pytest.raises(CustodyError):
        machine.ask(Destination(certificate=machine.folder / certificate, key=machine.folder / key))
    assert machine.has_nothing() and not Encipherment.objects.exists()


def test_another_call_gets_another_key(machine: Machine) -> None:
    first = machine.ask()
    other = Destination(certificate=machine.folder / "second.pem", key=machine.folder / "second.key")
    assert machine.ask(other).public_key != first.public_key
    states = Key.objects.filter(purpose="encipherment").order_by("created_at").values_list("state", flat=True)
    assert list(states) == ["deactivated", "active"]


def test_a_device_that_is_suspended_keeps_its_request_for_later(machine: Machine) -> None:
    machine.simulator.suspend(machine.device)
    with pytest.raises(PermanentTransportError) as refused:
        machine.ask()
    assert refused.value.server_code == "not_permitted" and machine.has_nothing() and machine.pending.exists()
    machine.simulator.reinstate(machine.device)
    machine.ask()
    assert Encipherment.objects.get().state == "issued"


def test_a_request_that_lapsed_is_forgotten(machine: Machine) -> None:
    machine.simulator.fault("kill", "/finish")
    machine.simulator.broker.away = {"authority"}
    with pytest.raises(Killed):
        machine.ask()
    Key.objects.filter(purpose="encipherment").update(state="deactivated")
    machine.simulator.broker.away = set()
    machine.simulator.beat()
    with pytest.raises(PermanentTransportError) as refused:
        machine.ask()
    assert refused.value.server_code == "key_usage"
    assert machine.has_nothing() and not machine.pending.exists()
    machine.ask()


def test_a_damaged_request_is_named(machine: Machine) -> None:
    machine.pending.write_text("{}")
    machine.pending.chmod(0o600)
    with pytest.raises(CustodyError, match=PENDING_FILE.replace(".", r"\.")):
        machine.ask()


def test_a_chain_of_another_root_is_not_written(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def stranger(*_: object, **__: object) -> None:
        raise UntrustedIssuerError("another root")

    monkeypatch.setattr(encipherment, "verify_encipherment_chain", stranger)
    with pytest.raises(LatticewardError):
        machine.ask()
    assert machine.has_nothing() and machine.pending.exists()
