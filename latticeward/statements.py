"""Key statements: the authority's word on which keys belong to whom, and until when.

Two kinds, both signed with ``Purpose.KEY_STATEMENT`` by the key that the trust statement names for it, and told apart
by their ``type``. A **device statement** binds the four keys of a device to its id, site, federation and certificate. A
**server statement** certifies a short-lived key of the server, such as the one that signs submission receipts.

Whether a good statement may be relied on is asked in one of two ways, never with a flag. ``verify_live`` judges what
arrives now: an active key, or one superseded within its overlap and used in a round opened before. ``verify_archive``
judges what the ledger shows to have been received at some time: the ledger's clock counts, never the signer's.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.keys import CompositeSigningKey, CompositeVerifyKey
from latticeward.crypto.signing import Purpose, sign_message, verify_message
from latticeward.device_keys import DevicePublicKeys
from latticeward.errors import (
    CertificateNotValidError,
    KeyUsageError,
    MalformedMessageError,
    WrongContextError,
)
from latticeward.instants import INSTANT_LIMIT, to_unix_milliseconds

STATEMENT_LIMIT_BYTES: Final = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatement:
    """A device statement, read. Instants in unix milliseconds.

    Attributes:
        device_id, federation_id: UUID text.
        site: slug of the hospital.
        epoch: number of this set of keys, 1 or more, strictly rising for a device.
        keys: the four public keys.
        certificate_digest: SHA-256 of the device's certificate (DER), 32 bytes.
        not_before, not_after: the keys may protect from the first until before the second.
        issued_at: by the authority's clock.
    """

    device_id: str
    federation_id: str
    site: str
    epoch: int
    keys: DevicePublicKeys
    certificate_digest: bytes
    not_before: int
    not_after: int
    issued_at: int

    def to_bytes(self) -> bytes:
        """Deterministic CBOR, at most ``STATEMENT_LIMIT_BYTES``."""
        names = ("device_id", "federation_id", "site", "epoch", "certificate_digest")
        times = ("not_before", "not_after", "issued_at")
        fields: dict[str, Any] = {name: getattr(self, name) for name in (*names, *times)}
        return canonical.encode({"type": "device-key-statement", "v": 1, "keys": self.keys.to_wire(), **fields})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the payload; says nothing about who wrote it.

        Raises:
            MalformedMessageError, MessageTooLargeError, UnsupportedSuiteError, KeyUsageError
        """
        fields = _read(raw, "device-key-statement")
        statement = cls(
            device_id=fields.text("device_id"),
            federation_id=fields.text("federation_id"),
            site=fields.text("site"),
            epoch=fields.integer("epoch", 1, 2**31),
            keys=DevicePublicKeys.from_wire(fields.map("keys")),
            certificate_digest=fields.bytes("certificate_digest", 32),
            **_validity(fields),
        )
        fields.end()
        return statement

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for this statement; of the payload, because a signature may be made twice."""
        return canonical.digest("latticeward/key-statement/v1", self.to_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeyStatement:
    """A server statement, read: ``key`` signs for ``purpose`` and nothing else. Instants in unix milliseconds."""

    federation_id: str
    purpose: Purpose
    key: CompositeVerifyKey
    not_before: int
    not_after: int
    issued_at: int

    def to_bytes(self) -> bytes:
        """Deterministic CBOR, at most ``STATEMENT_LIMIT_BYTES``."""
        return canonical.encode(
            {
                "type": "server-key-statement",
                "v": 1,
                "federation_id": self.federation_id,
                "purpose": str(self.purpose),
                "algorithm": str(self.key.algorithm),
                "public_key": self.key.raw,
                "not_before": self.not_before,
                "not_after": self.not_after,
                "issued_at": self.issued_at,
            }
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the payload; says nothing about who wrote it.

        Raises:
            MalformedMessageError, MessageTooLargeError, UnsupportedSuiteError, KeyUsageError
        """
        fields = _read(raw, "server-key-statement")
        algorithm = fields.text("algorithm")
        statement = cls(
            federation_id=fields.text("federation_id"),
            purpose=read_purpose(fields.text("purpose")),
            key=CompositeVerifyKey.from_raw(fields.bytes("public_key"), algorithm),
            **_validity(fields),
        )
        fields.end()
        return statement


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStanding:
    """What the authority knows about a device's keys beyond the statement; each instant aware UTC, or None.

    Attributes:
        superseded_at: a newer epoch took over.
        overlap_until: until when the superseded keys may still finish what they began.
        revoked_at: when the authority revoked them.
        invalid_from: for a compromise, the instant from which nothing signed may be believed.
    """

    superseded_at: datetime | None = None
    overlap_until: datetime | None = None
    revoked_at: datetime | None = None
    invalid_from: datetime | None = None


def sign_statement(statement: KeyStatement | ServerKeyStatement, *, key: CompositeSigningKey) -> bytes:
    """Make the signed message of a statement."""
    return sign_message(statement.to_bytes(), purpose=Purpose.KEY_STATEMENT, key=key)


def verify_statement(raw: bytes, *, key: CompositeVerifyKey, federation_id: str) -> KeyStatement:
    """Believe who wrote a device statement; ``verify_live`` and ``verify_archive`` say whether to rely on it.

    Args:
        raw: the signed message.
        key: the authority's statement key.
        federation_id: the federation the reader belongs to.

    Raises:
        InvalidSignatureError, MalformedMessageError
        WrongContextError: of another federation.
    """
    statement = KeyStatement.from_bytes(verify_message(raw, purpose=Purpose.KEY_STATEMENT, key=key))
    if statement.federation_id != federation_id:
        raise WrongContextError("the key statement belongs to another federation")
    return statement


def verify_own_statement(
    statement: KeyStatement, *, device_id: str, keys: DevicePublicKeys, certificate_digest: bytes
) -> None:
    """Check that a statement speaks of this device, exactly these keys and this certificate.

    Raises:
        WrongContextError: of another device, other keys or another certificate.
    """
    if statement.device_id != device_id:
        raise WrongContextError("the key statement belongs to another device")
    if not statement.keys.matches(keys) or statement.certificate_digest != certificate_digest:
        raise WrongContextError("the key statement binds other keys or another certificate")


def verify_live(
    statement: KeyStatement, standing: KeyStanding, *, now: datetime, round_opened_at: datetime | None
) -> None:
    """Check that a device's keys may be relied on for something that arrives now.

    1. Not revoked.
    2. Within the statement's validity.
    3. Active, or superseded within its overlap and used in a round that was opened before it was superseded.

    Args:
        now: aware time of the verifier.
        round_opened_at: of the round that the message belongs to; None outside rounds.

    Raises:
        KeyUsageError: revoked or superseded.
        CertificateNotValidError: outside its validity.
    """
    # 1
    if standing.revoked_at is not None:
        raise KeyUsageError("the device's keys are revoked")
    # 2
    _require_within(statement, to_unix_milliseconds(now))
    # 3
    if standing.superseded_at is None or now < standing.superseded_at:
        return
    in_overlap = standing.overlap_until is not None and now < standing.overlap_until
    if not in_overlap or round_opened_at is None or round_opened_at >= standing.superseded_at:
        raise KeyUsageError("the device's keys are superseded by a newer epoch")


def verify_archive(statement: KeyStatement, standing: KeyStanding, *, received_at: datetime) -> None:
    """Check that a device's keys could be relied on when the ledger received something.

    Revocation counts from the instant it was made, and a compromise from the instant named as the first that cannot
    be believed. What was received before stays good.

    Args:
        received_at: the ledger's receive time, aware UTC; never a time that the signer wrote.

    Raises:
        KeyUsageError: revoked, compromised or past its overlap by then.
        CertificateNotValidError: outside its validity by then.
    """
    _require_within(statement, to_unix_milliseconds(received_at))
    for limit in (standing.revoked_at, standing.invalid_from):
        if limit is not None and received_at >= limit:
            raise KeyUsageError("the device's keys were revoked when this was received")
    if standing.superseded_at is not None and received_at >= (standing.overlap_until or standing.superseded_at):
        raise KeyUsageError("the device's keys were superseded when this was received")


def read_purpose(text: str) -> Purpose:
    """A purpose by its wire name.

    Raises:
        MalformedMessageError: no such purpose.
    """
    try:
        return Purpose(text)
    except ValueError as exc:
        raise MalformedMessageError(f"the signing purpose {text!r} is not known") from exc


def _read(raw: bytes, name: str) -> Fields:
    fields = Fields(canonical.decode(raw, limit_bytes=STATEMENT_LIMIT_BYTES), name)
    if fields.text("type") != name or fields.integer("v", 1, 1) != 1:
        raise MalformedMessageError(f"not a {name} of version 1")
    return fields


def _validity(fields: Fields) -> dict[str, int]:
    times = {name: fields.integer(name, 0, INSTANT_LIMIT) for name in ("not_before", "not_after", "issued_at")}
    if times["not_before"] >= times["not_after"]:
        raise MalformedMessageError("a statement's validity ends before it begins")
    return times


def _require_within(statement: KeyStatement, instant: int) -> None:
    if not statement.not_before <= instant < statement.not_after:
        raise CertificateNotValidError(f"the keys of device {statement.device_id} are not valid at that time")
