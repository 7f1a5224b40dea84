"""Stanzas: the content key of one body, sealed to one recipient each.

Stanzas stand outside the envelope's signature. They need not stand inside: each is bound by HPKE's ``info`` to the
header, the sender's key and the recipient's role, id, key and epoch, and a wrong content key does not open the body,
which commits to its own. So a server can add a stanza for a newcomer without signing the model again, and the list of
recipients is nowhere in the header.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.body import CONTENT_KEY_BYTES
from latticeward.crypto.envelope_header import EnvelopeHeader, digest_by
from latticeward.crypto.hpke import hpke_open, hpke_seal, sealed_bytes
from latticeward.crypto.kem import DecapsulationKey, EncapsulationKey
from latticeward.errors import DecryptionError, KeyUsageError

_FRAME_BYTES: Final = 64  # more than key id, field names and CBOR heads take
_LABEL: Final = "latticeward/stanza/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Who a content key is sealed to.

    Attributes:
        key: of the KEM of the envelope's suite.
        role: as ``device`` or ``round``; a key is never opened in another role than it was sealed for.
        subject_id: UUID text of the device or round.
        epoch: the recipient's key epoch, 1 or more.
    """

    key: EncapsulationKey
    role: str
    subject_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stanza:
    """A stanza, read: the id of the key that it is sealed to (32 bytes), HPKE's output, and the bytes of both."""

    key_id: bytes
    sealed: bytes
    raw: bytes


def make_stanza(*, content_key: bytes, header_bytes: bytes, recipient: Recipient) -> bytes:
    """Seal a content key to one recipient.

    Args:
        content_key: 32 bytes.
        header_bytes: of the envelope that the key opens.
        recipient: to whom.

    Returns:
        Canonical CBOR, about 1.2 kB (1.8 kB in the suite ``high``).

    Raises:
        KeyUsageError: the recipient's key is of another KEM than the suite's, or the content key is not 32 bytes.
        UnsupportedSuiteError: the suite makes nothing new.
    """
    header = EnvelopeHeader.from_bytes(header_bytes)
    header.suite_row.require_makeable()
    return seal_stanza(content_key, header, digest_by(header.suite_row, header_bytes), recipient)


def seal_stanza(content_key: bytes, header: EnvelopeHeader, header_digest: bytes, recipient: Recipient) -> bytes:
    """As ``make_stanza``, for callers that have read the header and know its digest.

    Raises:
        KeyUsageError: as there.
    """
    suite = header.suite_row
    if recipient.key.algorithm != suite.kem:
        raise KeyUsageError(f"the suite {suite.id} seals to {suite.kem} keys, not to {recipient.key.algorithm}")
    if len(content_key) != CONTENT_KEY_BYTES:
        raise KeyUsageError("a content key has 32 bytes")
    info = _info(header, header_digest, recipient.key, recipient.role, recipient.subject_id, recipient.epoch)
    sealed = hpke_seal(content_key, key=recipient.key, info=info)
    return canonical.encode({"key_id": recipient.key.key_id, "sealed": sealed})


def parse_stanza(raw: bytes, *, header: EnvelopeHeader) -> Stanza:
    """Read a stanza's form; opens nothing.

    Raises:
        MalformedMessageError, MessageTooLargeError: not a stanza of the header's suite.
    """
    length = sealed_bytes(header.suite_row.kem, CONTENT_KEY_BYTES)
    fields = Fields(canonical.decode(raw, limit_bytes=length + _FRAME_BYTES), "stanza")
    stanza = Stanza(key_id=fields.bytes("key_id", 32), sealed=fields.bytes("sealed", length), raw=raw)
    fields.end()
    return stanza


def open_stanza(
    stanza: bytes,
    *,
    header_bytes: bytes,
    role: str,
    subject_id: str,
    epoch: int,
    decapsulation_key: DecapsulationKey,
) -> bytes:
    """Open a stanza as the recipient that it was made for.

    Args:
        stanza: as ``make_stanza`` gives it.
        header_bytes: of the envelope that it came with.
        role, subject_id, epoch: who the caller is; all were bound when sealing.
        decapsulation_key: of the KEM of the suite.

    Returns:
        The content key, 32 bytes.

    Raises:
        DecryptionError: sealed to another key, role, subject, epoch or header, or changed.
        KeyUsageError: the key is of another KEM than the suite's.
        MalformedMessageError, MessageTooLargeError, UnsupportedSuiteError: not a stanza, or of no usable suite.
    """
    header = EnvelopeHeader.from_bytes(header_bytes)
    suite = header.suite_row
    suite.require_openable()
    return open_parsed_stanza(
        parse_stanza(stanza, header=header),
        header=header,
        header_digest=digest_by(suite, header_bytes),
        role=role,
        subject_id=subject_id,
        epoch=epoch,
        decapsulation_key=decapsulation_key,
    )


def open_parsed_stanza(
    stanza: Stanza,
    *,
    header: EnvelopeHeader,
    header_digest: bytes,
    role: str,
    subject_id: str,
    epoch: int,
    decapsulation_key: DecapsulationKey,
) -> bytes:
    """As ``open_stanza``, for callers that have read stanza and header.

    Raises:
        DecryptionError, KeyUsageError: as there.
    """
    suite = header.suite_row
    if not isinstance(decapsulation_key, DecapsulationKey) or decapsulation_key.algorithm != suite.kem:
        raise KeyUsageError(f"the suite {suite.id} opens with a {suite.kem} key")
    public = decapsulation_key.encapsulation_key
    if not hmac.compare_digest(stanza.key_id, public.key_id):
        raise DecryptionError("a sealed secret did not open")
    info = _info(header, header_digest, public, role, subject_id, epoch)
    return hpke_open(stanza.sealed, key=decapsulation_key, info=info)


def _info(
    header: EnvelopeHeader, header_digest: bytes, key: EncapsulationKey, role: str, subject_id: str, epoch: int
) -> bytes:
    return canonical.encode(
        [
            _LABEL,
            header.suite,
            header.message_type,
            header.direction,
            header_digest,
            header.sender_key_id,
            role,
            subject_id,
            hashlib.sha256(key.raw).digest(),
            epoch,
        ]
    )
