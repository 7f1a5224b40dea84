"""How an agent reaches its server: the protocols that it speaks, and the table of ways to carry them.

Every method may raise ``TransientTransportError`` (try again later), ``PermanentTransportError`` (the server said no,
with its code) and ``MalformedMessageError`` (the answer is not what the protocol says); nothing else of the network
gets past this package. Bytes come back as they arrived: believing them is the loop's work.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from latticeward.agent.config import AgentConfig
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports.http import HttpTransport
from latticeward.agent.work import IssuedCertificate, LedgerProof, SubmissionOutcome, Work
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment import FinishProofs
from latticeward.renewal import RenewalProofs


class EnrolmentTransport(Protocol):
    """What a machine without an identity asks."""

    def trust(self) -> bytes:
        """The trust bundle."""

    def begin_enrolment(self, transcript: bytes, mac: bytes) -> tuple[str, bytes, bytes]:
        """Send T1; returns enrolment id, answer and the answer's MAC."""

    def finish_enrolment(self, enrolment_id: str, proofs: FinishProofs) -> str:
        """Send the four proofs; returns the device's state."""

    def collect_certificate(self, enrolment_id: str, *, wait_seconds: int) -> IssuedCertificate | None:
        """Ask for certificate and statement; None while nobody has decided."""


class Transport(Protocol):
    """What an enrolled device asks."""

    def trust(self) -> bytes:
        """The trust bundle."""

    def work(self, *, after: str, wait_seconds: int) -> Work:
        """This device's rounds and models, at once if they differ from those that ``after`` names."""

    def assignment(self, round_id: str) -> tuple[bytes, bytes]:
        """The signed plan and the signed assignment."""

    def join(self, round_id: str) -> None:
        """Take part; repeating it changes nothing."""

    def submit(self, round_id: str, envelope: bytes, *, submission_digest: bytes) -> bytes:
        """Hand over a submission; returns the signed receipt, the same one if repeated."""

    def submission(self, submission_id: str, *, wait_seconds: int) -> SubmissionOutcome:
        """Where a submission stands, at once if it is decided."""

    def proof(self, submission_id: str, *, since: int) -> LedgerProof | None:
        """The inclusion proof, and that the ledger grew from ``since`` leaves; None while it has not sequenced it."""

    def round_record(self, round_id: str) -> bytes:
        """The signed round record."""

    def manifest(self, model_id: str) -> tuple[bytes, bytes]:
        """The signed manifest and this device's stanza."""

    def model_body(self, model_id: str, *, limit_bytes: int) -> bytes:
        """The sealed body, at most ``limit_bytes``."""


class RenewalTransport(Protocol):
    """What a device asks that renews its keys."""

    @property
    def authority(self) -> str:
        """The server as signed requests name it."""

    def begin_renewal(self, transcript: bytes) -> tuple[str, bytes]:
        """Send T1, signed with the present keys; returns the renewal's id and the answer."""

    def finish_renewal(self, renewal_id: str, proofs: RenewalProofs) -> str:
        """Send the five proofs, signed with the present keys; returns the renewal's state."""

    def collect_renewal(self, renewal_id: str, *, wait_seconds: int) -> IssuedCertificate | None:
        """Ask for certificate and statement, signed with the new keys; None while they are being made."""


class EnciphermentTransport(Protocol):
    """What a device asks that wants an encipherment certificate; all signed with the present keys."""

    @property
    def authority(self) -> str:
        """The server as signed requests name it."""

    def begin_encipherment(self, request: bytes) -> tuple[str, bytes]:
        """Send R; returns the request's id and the answer."""

    def finish_encipherment(self, encipherment_id: str, mac: bytes) -> str:
        """Send the proof; returns the request's state."""

    def collect_encipherment(self, encipherment_id: str, *, wait_seconds: int) -> tuple[str, tuple[bytes, ...] | None]:
        """Ask for the certificate; the request's state, and the chain (DER, leaf first) once it is issued."""


class DeviceTransport(EnrolmentTransport, RenewalTransport, EnciphermentTransport, Transport, Protocol):
    """All of it, which every entry of the table can do."""

    @property
    def authority(self) -> str:
        """The server as signed requests name it: host, or host:port where the port is not the scheme's own."""


# Configuration, the server's base URL, the keys that sign requests, and the agent's interruption.
TransportFactory = Callable[[AgentConfig, str, DeviceKeys, Interruption], DeviceTransport]

TRANSPORTS: Final[Mapping[str, TransportFactory]] = MappingProxyType({"http": HttpTransport.make})
