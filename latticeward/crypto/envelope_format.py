"""The bytes in front of an envelope's body and the rules that in-memory and file envelopes share.

``magic (8) | length of prefix (4, big-endian) | prefix``, where the prefix is canonical CBOR of the array of the header
bytes and the array of stanzas in the order of their key ids. One order leaves one form, and shows who is a recipient
but not who came first. All lengths are checked here before anything is hashed or decrypted.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from latticeward import canonical
from latticeward.crypto.body import sealed_body_bytes
from latticeward.crypto.composite import CompositeSigningKey, CompositeVerifyKey, composite_parameters
from latticeward.crypto.envelope_header import EnvelopeHeader, digest_by
from latticeward.crypto.kem import DecapsulationKey
from latticeward.crypto.stanza import Recipient, Stanza, parse_stanza, seal_stanza
from latticeward.errors import (
    DecryptionError,
    KeyUsageError,
    MalformedMessageError,
    MessageTooLargeError,
    UnsupportedVersionError,
    WrongContextError,
)

MAGIC: Final = b"LWENV\x00\x01\x00"
_MAGIC_NAME: Final = MAGIC[:6]
FRONT_BYTES: Final = len(MAGIC) + 4
STANZA_COUNT_LIMIT: Final = 4_096
PREFIX_LIMIT_BYTES: Final = 8 * 1024 * 1024
_SIGNED_LABEL: Final = "latticeward/envelope/v1"


def complete_header(header: EnvelopeHeader, plaintext_bytes: int) -> tuple[EnvelopeHeader, bytes]:
    """Fill in ``body_bytes``; the header as it will be sealed, and its bytes.

    Raises:
        MalformedMessageError: a field is out of bounds, or the length is not the payload's.
        UnsupportedSuiteError: the suite makes nothing new.
    """
    header.suite_row.require_makeable()
    if header.plaintext_bytes != plaintext_bytes:
        raise MalformedMessageError(
            f"the header says {header.plaintext_bytes} bytes, the payload has {plaintext_bytes}"
        )
    header = replace(header, body_bytes=sealed_body_bytes(plaintext_bytes))
    return header, header.to_bytes()


def make_front(
    header: EnvelopeHeader, header_bytes: bytes, content_key: bytes, recipients: Sequence[Recipient]
) -> bytes:
    """Everything before the body, with a stanza for each recipient.

    Raises:
        MalformedMessageError: no recipient, too many, or one key twice.
        KeyUsageError: as ``make_stanza``.
    """
    ordered = sorted(recipients, key=lambda recipient: recipient.key.key_id)
    if not 0 < len({recipient.key.key_id for recipient in ordered}) == len(ordered) <= STANZA_COUNT_LIMIT:
        raise MalformedMessageError(f"an envelope has 1 to {STANZA_COUNT_LIMIT} recipients, each key once")
    header_digest = digest_by(header.suite_row, header_bytes)
    stanzas = [seal_stanza(content_key, header, header_digest, recipient) for recipient in ordered]
    prefix = canonical.encode([header_bytes, stanzas])
    return MAGIC + struct.pack(">I", len(prefix)) + prefix


def read_front(front: bytes) -> int:
    """The length of the prefix, from the first ``FRONT_BYTES`` bytes.

    Raises:
        MalformedMessageError, UnsupportedVersionError, MessageTooLargeError
    """
    if len(front) != FRONT_BYTES or not front.startswith(_MAGIC_NAME):
        raise MalformedMessageError("not an envelope")
    if not front.startswith(MAGIC):
        raise UnsupportedVersionError("an envelope of another version")
    prefix_bytes = int.from_bytes(front[len(MAGIC) :], "big")
    if prefix_bytes > PREFIX_LIMIT_BYTES:
        raise MessageTooLargeError(f"an envelope's prefix of {prefix_bytes} bytes")
    return prefix_bytes


def read_prefix(prefix: bytes) -> tuple[EnvelopeHeader, bytes, dict[bytes, Stanza]]:
    """Header, its bytes, and the stanzas by key id.

    Raises:
        MalformedMessageError: not a prefix, a stanza out of order or twice, a length that is not the suite's.
        UnsupportedSuiteError: a suite that is unknown, forbidden, or for benchmarks.
    """
    value = canonical.decode(prefix, limit_bytes=PREFIX_LIMIT_BYTES)
    match value:
        case [bytes() as header_bytes, list() as items] if 0 < len(items) <= STANZA_COUNT_LIMIT:
            header = EnvelopeHeader.from_bytes(header_bytes)
        case _:
            raise MalformedMessageError("an envelope's prefix is a header and 1 to 4096 stanzas")
    header.suite_row.require_openable()
    stanzas: dict[bytes, Stanza] = {}
    newest = b""
    for item in items:
        if not isinstance(item, bytes):
            raise MalformedMessageError("a stanza is a byte string")
        stanza = parse_stanza(item, header=header)
        if stanza.key_id <= newest:
            raise MalformedMessageError("the stanzas are not in the order of their key ids, or one is there twice")
        stanzas[stanza.key_id] = stanza
        newest = stanza.key_id
    return header, header_bytes, stanzas


def signed_payload(header_digest: bytes, body_digest: bytes) -> bytes:
    """The bytes that the signature covers; their SHA-256 is the submission digest.

    The digests keep the length of their suite here, so that a 512-bit digest is not narrowed before it is signed.
    """
    return canonical.encode([_SIGNED_LABEL, header_digest, body_digest])


def require_signature_length(header: EnvelopeHeader, signature_bytes: int) -> None:
    """Refuse a signature that its algorithm cannot have made, before any is checked.

    Raises:
        MalformedMessageError
    """
    limit = composite_parameters(header.suite_row.signature).signature_limit_bytes
    if not 0 < signature_bytes <= limit:
        raise MalformedMessageError(f"an envelope's signature has 1 to {limit} bytes, not {signature_bytes}")


def require_sender(header: EnvelopeHeader, key: CompositeSigningKey) -> None:
    """Refuse to seal in another's name, or with a key of another algorithm than the suite's.

    Raises:
        KeyUsageError
    """
    if not isinstance(key, CompositeSigningKey) or key.algorithm != header.suite_row.signature:
        raise KeyUsageError(f"the suite {header.suite} signs with a {header.suite_row.signature} key")
    if header.sender_key_id != key.verify_key.key_id:
        raise KeyUsageError("the header names another sender than the signing key")


def require_verifiable(header: EnvelopeHeader, key: CompositeVerifyKey) -> None:
    """Refuse to check under a key that the header does not name or the suite does not have.

    Raises:
        KeyUsageError: of another algorithm than the suite's.
        WrongContextError: another key than the header names.
        UnsupportedSuiteError: the suite may not be opened.
    """
    suite = header.suite_row
    suite.require_openable()
    if not isinstance(key, CompositeVerifyKey) or key.algorithm != suite.signature:
        raise KeyUsageError(f"the suite {suite.id} is verified with a {suite.signature} key")
    if header.sender_key_id != key.key_id:
        raise WrongContextError(f"the envelope is from key {header.sender_key_id.hex()[:16]}, not {key!r}")


def stanza_for(stanzas: Mapping[bytes, Stanza], key: DecapsulationKey) -> Stanza:
    """The stanza that is sealed to a key.

    Raises:
        DecryptionError: there is none.
    """
    if not isinstance(key, DecapsulationKey):
        raise KeyUsageError("an envelope is opened with a decapsulation key")
    stanza = stanzas.get(key.encapsulation_key.key_id)
    if stanza is None:
        raise DecryptionError("a sealed secret did not open")
    return stanza
