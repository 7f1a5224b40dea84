"""The two messages of an enrolment, T1 and A, as values and as bytes; ``enrolment.py`` says what they are for.

Both are deterministic CBOR maps with ``type`` and ``v``. Reading checks form and keys, never who wrote the bytes.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.device_keys import DevicePublicKeys
from latticeward.errors import MalformedMessageError
from latticeward.instants import INSTANT_LIMIT

TRANSCRIPT_LIMIT_BYTES: Final = 32 * 1024
ANSWER_LIMIT_BYTES: Final = 8 * 1024
NONCE_BYTES: Final = 32
CSR_LIMIT_BYTES: Final = 16 * 1024
NAME_LIMIT_CHARS: Final = 64
OFFER_LIMIT: Final = 16

_OPERATIONS: Final = ("enrol", "renew")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where two ends think they meet; each compares its own view with the other's words.

    Attributes:
        federation_id: UUID text from the trust statement.
        authority: the server's host or host:port.
        anchor: fingerprint of the trust anchor, 32 bytes.
    """

    federation_id: str
    authority: str
    anchor: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What a renewal replaces: SHA-256 of the old certificate (DER) and digest of the old statement's payload."""

    device_id: str
    certificate_digest: bytes
    statement_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentTranscript:
    """T1, read.

    Attributes:
        operation: ``enrol`` or ``renew``.
        claim_id: lookup id of the claim, 5 bytes; empty on renewal.
        site, device_class: what the claim code told the device; empty if it told nothing.
        name: what people at the site call this machine; at most 64 printable characters, shown, never
            trusted.
        device_nonce: 32 random bytes.
        suites: suite ids in the device's order of preference.
        floor: the weakest suite id that the device accepts.
        csr: PKCS #10 request for the authentication key, DER, at most 16 KiB.
        epoch: number of this set of keys; 1 at enrolment, one more at every renewal.
        renews: what is replaced; None at enrolment.
    """

    operation: str
    meeting: Meeting
    claim_id: bytes
    site: str
    device_class: str
    name: str
    device_nonce: bytes
    suites: tuple[str, ...]
    floor: str
    keys: DevicePublicKeys
    csr: bytes
    epoch: int
    renews: Renewal | None

    def to_bytes(self) -> bytes:
        """Deterministic CBOR, at most ``TRANSCRIPT_LIMIT_BYTES``."""
        renews = self.renews
        return canonical.encode(
            {
                "type": "enrolment-transcript",
                "v": 1,
                "operation": self.operation,
                "federation_id": self.meeting.federation_id,
                "authority": self.meeting.authority,
                "anchor": self.meeting.anchor,
                "claim_id": self.claim_id,
                "site": self.site,
                "device_class": self.device_class,
                "name": self.name,
                "device_nonce": self.device_nonce,
                "suites": list(self.suites),
                "floor": self.floor,
                "keys": self.keys.to_wire(),
                "csr": self.csr,
                "epoch": self.epoch,
                "renews": None
                if renews is None
                else {
                    "device_id": renews.device_id,
                    "certificate_digest": renews.certificate_digest,
                    "statement_digest": renews.statement_digest,
                },
            }
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read T1 and its public keys; says nothing about who wrote it.

        Raises:
            MalformedMessageError, MessageTooLargeError: not T1.
            UnsupportedSuiteError, KeyUsageError: keys that this protocol does not take.
        """
        fields = Fields(canonical.decode(raw, limit_bytes=TRANSCRIPT_LIMIT_BYTES), "enrolment transcript")
        _require_type(fields, "enrolment-transcript")
        operation = fields.text("operation")
        if operation not in _OPERATIONS:
            raise MalformedMessageError("an enrolment's operation is enrol or renew")
        renewing = operation == "renew"
        transcript = cls(
            operation=operation,
            meeting=Meeting(
                federation_id=fields.text("federation_id"),
                authority=fields.text("authority"),
                anchor=fields.bytes("anchor", 32),
            ),
            claim_id=fields.bytes("claim_id", 0 if renewing else 5),
            site=fields.text("site"),
            device_class=fields.text("device_class"),
            name=fields.text("name"),
            device_nonce=fields.bytes("device_nonce", NONCE_BYTES),
            suites=_suites(fields.list("suites")),
            floor=fields.text("floor"),
            keys=DevicePublicKeys.from_wire(fields.map("keys")),
            csr=fields.bytes("csr"),
            epoch=fields.integer("epoch", 2 if renewing else 1, 2**31 if renewing else 1),
            renews=_renewal(fields.optional_map("renews")),
        )
        fields.end()
        if (transcript.renews is not None) != renewing:
            raise MalformedMessageError("a renewal names what it renews, an enrolment nothing")
        if not 0 < len(transcript.csr) <= CSR_LIMIT_BYTES or len(transcript.name) > NAME_LIMIT_CHARS:
            raise MalformedMessageError("the certificate request or the device's name is out of bounds")
        if not transcript.name.isprintable():
            # A NUL is no text to a database, and marks of direction make one machine's name read as another's.
            raise MalformedMessageError("the device's name holds characters that cannot be shown")
        return transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentAnswer:
    """A, read. ``expires_at`` in unix milliseconds; ``sealed_challenge`` is an HPKE ciphertext of 32 bytes."""

    enrolment_id: str
    device_id: str
    server_nonce: bytes
    suite: str
    sealed_challenge: bytes
    expires_at: int

    def to_bytes(self) -> bytes:
        """Deterministic CBOR, at most ``ANSWER_LIMIT_BYTES``."""
        names = ("enrolment_id", "device_id", "server_nonce", "suite", "sealed_challenge", "expires_at")
        return canonical.encode({"type": "enrolment-answer", "v": 1, **{name: getattr(self, name) for name in names}})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read A; says nothing about who wrote it.

        Raises:
            MalformedMessageError, MessageTooLargeError
        """
        fields = Fields(canonical.decode(raw, limit_bytes=ANSWER_LIMIT_BYTES), "enrolment answer")
        _require_type(fields, "enrolment-answer")
        answer = cls(
            enrolment_id=fields.text("enrolment_id"),
            device_id=fields.text("device_id"),
            server_nonce=fields.bytes("server_nonce", NONCE_BYTES),
            suite=fields.text("suite"),
            sealed_challenge=fields.bytes("sealed_challenge"),
            expires_at=fields.integer("expires_at", 0, INSTANT_LIMIT),
        )
        fields.end()
        return answer


def _require_type(fields: Fields, name: str) -> None:
    if fields.text("type") != name or fields.integer("v", 1, 1) != 1:
        raise MalformedMessageError(f"not an {name} of version 1")


def _suites(items: Any) -> tuple[str, ...]:
    if not 0 < len(items) <= OFFER_LIMIT or not all(isinstance(item, str) for item in items):
        raise MalformedMessageError(f"a device offers 1 to {OFFER_LIMIT} suites by their ids")
    return tuple(items)


def _renewal(value: Any) -> Renewal | None:
    if value is None:
        return None
    fields = Fields(value, "renewal")
    renewal = Renewal(
        device_id=fields.text("device_id"),
        certificate_digest=fields.bytes("certificate_digest", 32),
        statement_digest=fields.bytes("statement_digest", 32),
    )
    fields.end()
    return renewal
