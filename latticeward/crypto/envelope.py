"""Envelopes: seal a payload to recipients, sign it, and take both apart again in the only safe order.

An envelope is ``magic | length of prefix | prefix | body | signature``. The prefix is canonical CBOR of the header and
the recipients' stanzas, the body is the sealed payload, the signature is composite and covers header and body by their
digests. Everything can be written and checked in one pass. The types hold the order: ``parse_envelope`` gives a
``ParsedEnvelope``, only ``verify_envelope`` turns it into a ``VerifiedEnvelope``, and only that can be opened, so that
no byte of a stranger reaches a private key.

Models use the parts (``seal_body``, ``make_stanza`` and their inverses): their signature is the manifest's. Files of
any size go through ``envelope_file.py``.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from latticeward.crypto.body import CONTENT_KEY_BYTES, open_whole_body, seal_body_into, sized_buffer
from latticeward.crypto.composite import CompositeSigningKey, CompositeVerifyKey, composite_parameters
from latticeward.crypto.envelope_format import (
    FRONT_BYTES,
    complete_header,
    make_front,
    read_front,
    read_prefix,
    require_sender,
    require_signature_length,
    require_verifiable,
    signed_payload,
    stanza_for,
)
from latticeward.crypto.envelope_header import EnvelopeHeader, digest_by
from latticeward.crypto.kem import DecapsulationKey
from latticeward.crypto.signing import Purpose, sign, verify
from latticeward.crypto.stanza import Recipient, Stanza, make_stanza, open_parsed_stanza, open_stanza
from latticeward.crypto.wrapping import new_key
from latticeward.errors import KeyUsageError, MalformedMessageError, MessageTooLargeError

__all__ = [
    "EnvelopeHeader",
    "OpenedEnvelope",
    "ParsedEnvelope",
    "PlannedBody",
    "Recipient",
    "SealedBody",
    "VerifiedEnvelope",
    "make_stanza",
    "open_body",
    "open_envelope",
    "open_stanza",
    "parse_envelope",
    "seal_body",
    "seal_envelope",
    "verify_envelope",
]

_PROOF: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBody:
    """A body without stanzas and signature: header (bytes), sealed body, its key (32 bytes), and both digests."""

    header_bytes: bytes
    body: bytes
    content_key: bytes
    header_digest: bytes
    body_digest: bytes

    def __repr__(self) -> str:
        return f"<SealedBody {len(self.body)} bytes, key not shown>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedEnvelope:
    """An envelope that was taken apart and not yet believed.

    Attributes:
        header: read from ``header_bytes``.
        stanzas: id of the key (32 bytes) to the stanza.
        body: a view into the bytes that were parsed.
        signature: composite.
        header_digest, body_digest: the suite's digest of each, 32 or 64 bytes.
        payload: what the signature covers, both digests.
    """

    header: EnvelopeHeader
    header_bytes: bytes
    stanzas: dict[bytes, Stanza]
    body: memoryview
    signature: bytes
    header_digest: bytes
    body_digest: bytes
    payload: bytes

    @property
    def signed_digest(self) -> bytes:
        """32 bytes over header and body; the submission digest."""
        return hashlib.sha256(self.payload).digest()


class VerifiedEnvelope:
    """An envelope whose signature holds. Made by ``verify_envelope`` and by nothing else."""

    __slots__ = ("parsed", "purpose")

    def __init__(self, parsed: ParsedEnvelope, purpose: Purpose, *, _proof: object) -> None:
        if _proof is not _PROOF:
            raise TypeError("a VerifiedEnvelope comes from verify_envelope")
        self.parsed = parsed
        self.purpose = purpose

    @property
    def header(self) -> EnvelopeHeader:
        """The header, as signed."""
        return self.parsed.header

    @property
    def signed_digest(self) -> bytes:
        """32 bytes over header and body."""
        return self.parsed.signed_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedEnvelope:
    """What was inside: the header and the plaintext of ``header.plaintext_bytes``."""

    header: EnvelopeHeader
    plaintext: bytes

    def __repr__(self) -> str:
        return f"<OpenedEnvelope of round {self.header.round_id}, {len(self.plaintext)} bytes, not shown>"


class PlannedBody:
    """A body before its payload is there: the header and the content key, so that stanzas can be made ahead.

    Args:
        header: ``plaintext_bytes`` is what the payload will have; ``body_bytes`` is filled in here.

    Raises:
        MalformedMessageError: a field of the header is out of bounds.
        UnsupportedSuiteError: the suite makes nothing new.
    """

    __slots__ = ("_sealed", "content_key", "header", "header_bytes")

    def __init__(self, header: EnvelopeHeader) -> None:
        self.header, self.header_bytes = complete_header(header, header.plaintext_bytes)
        self.content_key = new_key()
        self._sealed = False

    def __repr__(self) -> str:
        return f"<PlannedBody of round {self.header.round_id}, key not shown>"

    def seal(self, plaintext: bytes | memoryview) -> SealedBody:
        """Seal the payload, once: the key is for this body only.

        Raises:
            KeyUsageError: it has sealed a body.
            MalformedMessageError: another length than was planned.
        """
        if self._sealed:
            raise KeyUsageError("a content key seals one body")
        if len(plaintext) != self.header.plaintext_bytes:
            raise MalformedMessageError(
                f"the header says {self.header.plaintext_bytes} bytes, the payload has {len(plaintext)}"
            )
        self._sealed = True
        suite = self.header.suite_row
        body = sized_buffer(self.header.body_bytes)
        with body.getbuffer() as target:
            body_digest = hashlib.new(suite.body_digest)
            seal_body_into(
                suite.body, plaintext, target, key=self.content_key, header=self.header_bytes, state=body_digest
            )
        return SealedBody(
            header_bytes=self.header_bytes,
            body=body.getvalue(),
            content_key=self.content_key,
            header_digest=digest_by(suite, self.header_bytes),
            body_digest=body_digest.digest(),
        )


def seal_body(plaintext: bytes | memoryview, *, header: EnvelopeHeader) -> SealedBody:
    """Seal a payload under a fresh content key, bound to its header; for models, whose manifest is what is signed.

    Args:
        plaintext: ``header.plaintext_bytes`` bytes.
        header: ``body_bytes`` is filled in here.

    Raises:
        MalformedMessageError: a field of the header is out of bounds, or its length is not the plaintext's.
        UnsupportedSuiteError: the suite makes nothing new.
    """
    return PlannedBody(header).seal(plaintext)


def open_body(*, header_bytes: bytes, body: bytes | memoryview, content_key: bytes) -> bytes:
    """Open a body whose authenticity was settled before, as a model's is by its manifest.

    Raises:
        DecryptionError: another key or header, or changed, cut or longer bytes.
        MalformedMessageError, MessageTooLargeError, UnsupportedSuiteError: not a header, or of no usable suite.
    """
    header = EnvelopeHeader.from_bytes(header_bytes)
    header.suite_row.require_openable()
    if len(content_key) != CONTENT_KEY_BYTES:
        raise KeyUsageError("a content key has 32 bytes")
    return open_whole_body(
        header.suite_row.body,
        body,
        key=content_key,
        header=header_bytes,
        plaintext_bytes=header.plaintext_bytes,
    )


def seal_envelope(
    plaintext: bytes | memoryview,
    *,
    header: EnvelopeHeader,
    recipients: Sequence[Recipient],
    signing_key: CompositeSigningKey,
    purpose: Purpose,
) -> bytes:
    """Seal a payload to one recipient or more and sign it.

    Args:
        plaintext: ``header.plaintext_bytes`` bytes.
        header: ``body_bytes`` is filled in here; ``sender_key_id`` is the signing key's.
        recipients: 1 to 4096, each key once.
        signing_key: of the suite's signature algorithm.
        purpose: what is signed for.

    Returns:
        The complete form.

    Raises:
        KeyUsageError: a key is of another algorithm than the suite's, or not the sender that the header names.
        MalformedMessageError: a header field out of bounds, no recipient, or one twice.
        UnsupportedSuiteError: the suite makes nothing new.
    """
    suite = header.suite_row
    header, header_bytes = complete_header(header, len(plaintext))
    require_sender(header, signing_key)
    content_key = new_key()
    front = make_front(header, header_bytes, content_key, recipients)

    # One buffer for everything, made once at full size: it becomes the result without a copy. At 4 MiB a copy, or the
    # page faults of a second buffer, would cost as much as the cipher.
    signature_limit = composite_parameters(suite.signature).signature_limit_bytes
    whole = sized_buffer(len(front) + header.body_bytes + signature_limit)
    whole.write(front)
    with whole.getbuffer() as view, view[len(front) : len(front) + header.body_bytes] as target:
        body_digest = hashlib.new(suite.body_digest)
        seal_body_into(suite.body, plaintext, target, key=content_key, header=header_bytes, state=body_digest)
    payload = signed_payload(digest_by(suite, header_bytes), body_digest.digest())
    whole.seek(len(front) + header.body_bytes)
    whole.write(sign(payload, purpose=purpose, key=signing_key))
    whole.truncate()
    return whole.getvalue()


def parse_envelope(raw: bytes | memoryview, *, limit_bytes: int) -> ParsedEnvelope:
    """Take an envelope apart. Nothing in the result may be believed yet.

    1. The whole is within the limit.
    2. Magic and version are ours; the prefix is within its limits; header and stanzas are well formed.
    3. The suite may be opened, and every length follows from header and suite.
    4. Only then are header and body hashed.

    Raises:
        MessageTooLargeError: the whole or a part is over its limit.
        MalformedMessageError, UnsupportedVersionError: not an envelope.
        UnsupportedSuiteError: a suite that is unknown, forbidden, or for benchmarks.
    """
    # 1
    if len(raw) > limit_bytes:
        raise MessageTooLargeError(f"an envelope of {len(raw)} bytes, at most {limit_bytes} allowed")
    view = memoryview(raw).cast("B").toreadonly()

    # 2 and 3
    prefix_bytes = read_front(bytes(view[:FRONT_BYTES]))
    prefix = bytes(view[FRONT_BYTES : FRONT_BYTES + prefix_bytes])
    if len(prefix) != prefix_bytes:
        raise MalformedMessageError("an envelope is cut short in its prefix")
    header, header_bytes, stanzas = read_prefix(prefix)
    place = FRONT_BYTES + prefix_bytes
    body, signature = view[place : place + header.body_bytes], view[place + header.body_bytes :]
    suite = header.suite_row
    if len(body) != header.body_bytes:
        raise MalformedMessageError("an envelope is cut short in its body")
    require_signature_length(header, len(signature))

    # 4
    header_digest, body_digest = digest_by(suite, header_bytes), digest_by(suite, body)
    return ParsedEnvelope(
        header=header,
        header_bytes=header_bytes,
        stanzas=stanzas,
        body=body,
        signature=bytes(signature),
        header_digest=header_digest,
        body_digest=body_digest,
        payload=signed_payload(header_digest, body_digest),
    )


def verify_envelope(parsed: ParsedEnvelope, *, purpose: Purpose, verify_key: CompositeVerifyKey) -> VerifiedEnvelope:
    """Check who made an envelope. The only way to something that can be opened.

    Raises:
        WrongContextError: the header names another sender's key.
        KeyUsageError: the key is not of the suite's signature algorithm.
        InvalidSignatureError: header or body were changed, or signed by another key or for another purpose.
        UnsupportedSuiteError: the suite may not be opened.
    """
    require_verifiable(parsed.header, verify_key)
    verify(parsed.signature, parsed.payload, purpose=purpose, key=verify_key)
    return VerifiedEnvelope(parsed, purpose, _proof=_PROOF)


def open_envelope(
    verified: VerifiedEnvelope, *, role: str, subject_id: str, epoch: int, decapsulation_key: DecapsulationKey
) -> OpenedEnvelope:
    """Open a verified envelope as one of its recipients.

    Args:
        verified: from ``verify_envelope``.
        role, subject_id, epoch: who the caller is, as the sender named it.
        decapsulation_key: of the suite's KEM.

    Raises:
        DecryptionError: not sealed to this key, role, subject and epoch, or stanza or body were changed.
        KeyUsageError: the key is of another KEM than the suite's.
    """
    if not isinstance(verified, VerifiedEnvelope):
        raise TypeError("open_envelope takes a VerifiedEnvelope")
    parsed = verified.parsed
    content_key = open_parsed_stanza(
        stanza_for(parsed.stanzas, decapsulation_key),
        header=parsed.header,
        header_digest=parsed.header_digest,
        role=role,
        subject_id=subject_id,
        epoch=epoch,
        decapsulation_key=decapsulation_key,
    )
    plaintext = open_body(header_bytes=parsed.header_bytes, body=parsed.body, content_key=content_key)
    return OpenedEnvelope(header=parsed.header, plaintext=plaintext)
