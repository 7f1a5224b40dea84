"""Trust: one composite anchor, known by its fingerprint, and the keys that it names for each of the server's purposes.

The anchor's fingerprint comes with the claim code. The anchor signs a **trust statement**: federation, server
authority, a sequence number that only rises, one key or more for each server purpose, and the certificates of the
issuing authority. So the hybrid promise does not rest on a pure ML-DSA root, and a device pins 32 bytes only.

What a server hands out under ``GET /api/v1/trust`` is a **trust bundle**: the anchor, the signed trust statement and
the signed statements of the short-lived receipt keys. A ``TrustStore`` is a bundle that has been believed. Its
reference time is fixed when it is made (``at`` gives one for a later time), so that one decision never straddles two
instants.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Self

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.keys import CompositeSigningKey, CompositeVerifyKey
from latticeward.crypto.signing import Purpose, parse_signed_message, sign_message, verify_message
from latticeward.errors import (
    CertificateNotValidError,
    MalformedMessageError,
    ReplayError,
    UntrustedIssuerError,
    WrongContextError,
)
from latticeward.instants import INSTANT_LIMIT, to_unix_milliseconds
from latticeward.statements import ServerKeyStatement, read_purpose

BUNDLE_LIMIT_BYTES: Final = 512 * 1024
TRUST_LIMIT_BYTES: Final = 256 * 1024
# What began within a clock's tolerance from now has begun: as requests are judged (crypto/httpsig.py).
SKEW_MS: Final = 60_000
_KEY_LIMIT: Final = 64
_CERTIFICATE_LIMIT: Final = 4

# Only these may be certified by a statement instead of by the anchor: what they sign is short-lived evidence, and no
# device acts on it. Otherwise the statement key could quietly make itself a plan or manifest key.
_BY_STATEMENT: Final = frozenset({Purpose.SUBMISSION_RECEIPT})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchor:
    """The root of trust: a composite verify key that signs trust statements and nothing else."""

    key: CompositeVerifyKey

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of algorithm id and raw key, 32 bytes: the key's id."""
        return self.key.key_id

    @classmethod
    def from_raw(cls, raw: bytes, algorithm: str) -> Self:
        """Read an anchor that came over the wire; its fingerprint must then be compared.

        Raises:
            MalformedMessageError, UnsupportedSuiteError, KeyUsageError
        """
        return cls(key=CompositeVerifyKey.from_raw(raw, algorithm))


@dataclass(frozen=True, slots=True, kw_only=True)
class PurposeKey:
    """A server key for one purpose, with its validity in unix milliseconds (end excluded)."""

    purpose: Purpose
    key: CompositeVerifyKey
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustStatement:
    """A trust statement, read. Instants in unix milliseconds.

    Attributes:
        federation_id: UUID text.
        federation: slug, as it stands in certificates.
        authority: the server's host or host:port.
        sequence: 1 or more; a reader refuses one lower than the highest it has seen.
        keys: server keys in any order; a purpose may have several while one replaces another.
        certificates: issuing authority first, root last, DER.
    """

    federation_id: str
    federation: str
    authority: str
    sequence: int
    issued_at: int
    expires_at: int
    keys: tuple[PurposeKey, ...]
    certificates: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Deterministic CBOR, at most ``TRUST_LIMIT_BYTES``."""
        return canonical.encode(
            {
                "type": "trust-statement",
                "v": 1,
                "federation_id": self.federation_id,
                "federation": self.federation,
                "authority": self.authority,
                "sequence": self.sequence,
                "issued_at": self.issued_at,
                "expires_at": self.expires_at,
                "keys": [
                    {
                        "purpose": str(entry.purpose),
                        "algorithm": str(entry.key.algorithm),
                        "public_key": entry.key.raw,
                        "not_before": entry.not_before,
                        "not_after": entry.not_after,
                    }
                    for entry in self.keys
                ],
                "certificates": list(self.certificates),
            }
        )

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the payload; says nothing about who wrote it.

        Raises:
            MalformedMessageError, MessageTooLargeError: not a trust statement.
            UnsupportedSuiteError, KeyUsageError: keys that this protocol does not take.
        """
        fields = Fields(canonical.decode(raw, limit_bytes=TRUST_LIMIT_BYTES), "trust-statement")
        if fields.text("type") != "trust-statement" or fields.integer("v", 1, 1) != 1:
            raise MalformedMessageError("not a trust-statement of version 1")
        statement = cls(
            federation_id=fields.text("federation_id"),
            federation=fields.text("federation"),
            authority=fields.text("authority"),
            sequence=fields.integer("sequence", 1, INSTANT_LIMIT),
            issued_at=fields.integer("issued_at", 0, INSTANT_LIMIT),
            expires_at=fields.integer("expires_at", 0, INSTANT_LIMIT),
            keys=tuple(_purpose_key(item) for item in fields.list("keys", limit=_KEY_LIMIT)),
            certificates=_byte_strings(fields.list("certificates", limit=_CERTIFICATE_LIMIT)),
        )
        fields.end()
        if not statement.certificates:
            raise MalformedMessageError("a trust statement holds at least the root certificate")
        return statement


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustStore:
    """The verify keys that are accepted at one reference time. Made only by ``from_signed``."""

    anchor: TrustAnchor
    statement: TrustStatement
    receipts: tuple[ServerKeyStatement, ...]
    now: datetime

    @classmethod
    def from_signed(
        cls,
        raw: bytes,
        *,
        anchor_fingerprint: bytes,
        now: datetime,
        authority: str | None = None,
        least_sequence: int = 1,
    ) -> Self:
        """Believe a trust bundle, or refuse it.

        1. The anchor is the pinned one.
        2. The trust statement is signed by it.
        3. It is current, not older than one seen before, and of the server that was asked.
        4. Every receipt-key statement is signed by a key that the trust statement names for statements.

        Args:
            raw: the bundle's bytes, at most ``BUNDLE_LIMIT_BYTES``.
            anchor_fingerprint: pinned at enrolment, 32 bytes.
            now: aware time, kept as the store's reference time.
            authority: host or host:port that was asked; None where there is no connection to compare with.
            least_sequence: the highest sequence seen before.

        Raises:
            UntrustedIssuerError: another anchor, or a statement by a key that is not named.
            InvalidSignatureError, MalformedMessageError, MessageTooLargeError
            UnsupportedSuiteError, KeyUsageError: keys that this protocol does not take.
            CertificateNotValidError: expired or not yet issued.
            ReplayError: an older statement than one seen before.
            WrongContextError: of another server or federation.
        """
        anchor, signed, signed_receipts = _read_bundle(raw)
        # 1
        if anchor.fingerprint != anchor_fingerprint:
            raise UntrustedIssuerError("the server shows another trust anchor than the pinned one")
        # 2
        statement = TrustStatement.from_bytes(verify_message(signed, purpose=Purpose.TRUST, key=anchor.key))
        # 3
        if not statement.issued_at - SKEW_MS <= to_unix_milliseconds(now) < statement.expires_at:
            raise CertificateNotValidError("the trust statement has expired or was issued in the future")
        if statement.sequence < least_sequence:
            raise ReplayError(f"the trust statement is number {statement.sequence}, and {least_sequence} has been seen")
        if authority is not None and authority != statement.authority:
            raise WrongContextError(f"the trust statement is of {statement.authority}, not of {authority}")
        # 4
        store = cls(anchor=anchor, statement=statement, receipts=(), now=now)
        for item in signed_receipts:
            store = store.with_receipt_statement(item)
        return store

    @property
    def federation_id(self) -> str:
        """UUID text of the federation."""
        return self.statement.federation_id

    @property
    def sequence(self) -> int:
        """Sequence of the trust statement."""
        return self.statement.sequence

    @property
    def root_certificate(self) -> bytes:
        """DER of the root that device certificates chain to."""
        return self.statement.certificates[-1]

    def at(self, now: datetime) -> Self:
        """The same keys judged at another reference time.

        Raises:
            CertificateNotValidError: the trust statement is not current then.
        """
        if not self.statement.issued_at - SKEW_MS <= to_unix_milliseconds(now) < self.statement.expires_at:
            raise CertificateNotValidError("the trust statement has expired: fetch a new one")
        return replace(self, now=now)

    def with_receipt_statement(self, signed: bytes) -> Self:
        """A store that also accepts one more short-lived key.

        Raises:
            UntrustedIssuerError: not signed by a statement key, or for a purpose that only the anchor may grant.
            InvalidSignatureError, MalformedMessageError
            WrongContextError: of another federation.
        """
        issuer = self.verify_key(Purpose.KEY_STATEMENT, key_id=parse_signed_message(signed).key_id)
        statement = ServerKeyStatement.from_bytes(verify_message(signed, purpose=Purpose.KEY_STATEMENT, key=issuer))
        if statement.purpose not in _BY_STATEMENT:
            raise UntrustedIssuerError(f"only the trust anchor may name a key for {statement.purpose}")
        if statement.federation_id != self.federation_id:
            raise WrongContextError("the receipt-key statement belongs to another federation")
        return replace(self, receipts=(*self.receipts, statement))

    def verify_key(self, purpose: Purpose, *, key_id: bytes | None = None) -> CompositeVerifyKey:
        """The key to verify something that arrives now.

        Args:
            purpose: what the message is for.
            key_id: as named by the message, 32 bytes; None takes the newest key that is valid.

        Raises:
            UntrustedIssuerError: no key that is valid now, or not the one named.
        """
        instant = to_unix_milliseconds(self.now)
        return self._find(purpose, key_id, instant)

    def verify_keys(self, purpose: Purpose) -> tuple[CompositeVerifyKey, ...]:
        """All keys that may verify something for ``purpose`` that arrives now, newest first; for notes, which name
        their keys by hints only."""
        found = self._valid(purpose, to_unix_milliseconds(self.now))
        return tuple(entry.key for entry in sorted(found, key=lambda entry: entry.not_before, reverse=True))

    def archive_key(self, purpose: Purpose, *, key_id: bytes, received_at: datetime) -> CompositeVerifyKey:
        """The key to verify something that the ledger shows to have been received earlier.

        Args:
            received_at: by the ledger's clock, never by the signer's.

        Raises:
            UntrustedIssuerError: no such key, or not valid then.
        """
        return self._find(purpose, key_id, to_unix_milliseconds(received_at))

    def _find(self, purpose: Purpose, key_id: bytes | None, instant: int) -> CompositeVerifyKey:
        candidates = [entry for entry in self._valid(purpose, instant) if key_id in (None, entry.key.key_id)]
        if not candidates:
            raise UntrustedIssuerError(f"the trust anchor vouches for no such key for {purpose} at this time")
        return max(candidates, key=lambda entry: entry.not_before).key

    def _valid(self, purpose: Purpose, instant: int) -> list[PurposeKey | ServerKeyStatement]:
        entries: list[PurposeKey | ServerKeyStatement] = [*self.statement.keys, *self.receipts]
        return [
            entry
            for entry in entries
            if entry.purpose == purpose and entry.not_before - SKEW_MS <= instant < entry.not_after
        ]


def ledger_origin(federation_id: str) -> str:
    """The name of a federation's ledger, the first line of each of its checkpoints."""
    return f"latticeward/{federation_id}"


def sign_trust(statement: TrustStatement, *, key: CompositeSigningKey) -> bytes:
    """Make the signed message of a trust statement; ``key`` is the anchor's."""
    return sign_message(statement.to_bytes(), purpose=Purpose.TRUST, key=key)


def make_bundle(*, anchor: TrustAnchor, signed: bytes, receipts: tuple[bytes, ...]) -> bytes:
    """The bytes of ``GET /api/v1/trust``.

    Args:
        anchor: the root of trust.
        signed: the signed trust statement.
        receipts: signed statements of the receipt keys that are valid now.
    """
    return canonical.encode(
        {
            "trust": signed,
            "anchor": anchor.key.raw,
            "anchor_algorithm": str(anchor.key.algorithm),
            "statements": list(receipts),
        }
    )


def read_anchor(raw: bytes) -> TrustAnchor:
    """The anchor that a bundle shows, before anything is believed: to compare it with a claim code.

    Raises:
        MalformedMessageError, MessageTooLargeError, UnsupportedSuiteError, KeyUsageError
    """
    return _read_bundle(raw)[0]


def _read_bundle(raw: bytes) -> tuple[TrustAnchor, bytes, tuple[bytes, ...]]:
    fields = Fields(canonical.decode(raw, limit_bytes=BUNDLE_LIMIT_BYTES), "trust bundle")
    anchor = TrustAnchor.from_raw(fields.bytes("anchor"), fields.text("anchor_algorithm"))
    signed = fields.bytes("trust")
    receipts = _byte_strings(fields.list("statements", limit=_KEY_LIMIT))
    fields.end()
    return anchor, signed, receipts


def _purpose_key(item: Any) -> PurposeKey:
    fields = Fields(item, "server key")
    algorithm = fields.text("algorithm")
    entry = PurposeKey(
        purpose=read_purpose(fields.text("purpose")),
        key=CompositeVerifyKey.from_raw(fields.bytes("public_key"), algorithm),
        not_before=fields.integer("not_before", 0, INSTANT_LIMIT),
        not_after=fields.integer("not_after", 0, INSTANT_LIMIT),
    )
    fields.end()
    return entry


def _byte_strings(items: list[Any]) -> tuple[bytes, ...]:
    if not all(isinstance(item, bytes) for item in items):
        raise MalformedMessageError("a list of byte strings holds something else")
    return tuple(items)
