"""Envelopes of any size, from file to file, in memory that does not grow with them.

The bytes are those of ``envelope.py``. Sealing reads the payload once. Opening reads the envelope twice: first to
verify the signature over all of it, then to decrypt. The second pass hashes again what it decrypts and compares, since
a file can be swapped between two reads. What is written lies in a temporary file beside the target, readable by its
owner only, and takes the target's name after the last tag and digest have been checked; a failure leaves nothing.
"""

import hashlib
import hmac
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from latticeward.crypto.body import body_opener, body_sealer, room_bytes
from latticeward.crypto.composite import CompositeSigningKey, CompositeVerifyKey
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
from latticeward.crypto.signing import SIGNATURE_LIMIT_BYTES, Purpose, sign, verify
from latticeward.crypto.stanza import Recipient, Stanza, open_parsed_stanza
from latticeward.crypto.wrapping import new_key
from latticeward.errors import DecryptionError, MalformedMessageError, MessageTooLargeError

PIECE_BYTES: Final = 1024 * 1024
_PROOF: Final = object()


class VerifiedEnvelopeFile:
    """An envelope in a file whose signature holds. Made by ``verify_file`` and by nothing else.

    Attributes:
        path: of the envelope.
        header: as signed.
        signed_digest: 32 bytes over header and body; the submission digest.
    """

    __slots__ = ("body_digest", "body_start", "header", "header_bytes", "path", "signed_digest", "stanzas")

    def __init__(
        self,
        *,
        path: Path,
        header: EnvelopeHeader,
        header_bytes: bytes,
        stanzas: dict[bytes, Stanza],
        body_start: int,
        body_digest: bytes,
        signed_digest: bytes,
        _proof: object,
    ) -> None:
        if _proof is not _PROOF:
            raise TypeError("a VerifiedEnvelopeFile comes from verify_file")
        self.path, self.header, self.header_bytes, self.stanzas = path, header, header_bytes, stanzas
        self.body_start, self.body_digest, self.signed_digest = body_start, body_digest, signed_digest


def seal_file(
    source: Path,
    target: Path,
    *,
    header: EnvelopeHeader,
    recipients: Sequence[Recipient],
    signing_key: CompositeSigningKey,
    purpose: Purpose,
) -> bytes:
    """Seal a file to one recipient or more and sign it; as ``seal_envelope``, with flat memory.

    Args:
        source: the payload, of ``header.plaintext_bytes`` bytes.
        target: where the envelope goes; replaced if it is there.
        header, recipients, signing_key, purpose: as ``seal_envelope``.

    Returns:
        The signed digest, 32 bytes.

    Raises:
        MalformedMessageError: the file's length is not the header's, or as ``seal_envelope``.
        KeyUsageError, UnsupportedSuiteError: as ``seal_envelope``.
        OSError: reading or writing failed.
    """
    suite = header.suite_row
    with source.open("rb") as reader, _appearing(target) as writer:
        header, header_bytes = complete_header(header, os.fstat(reader.fileno()).st_size)
        require_sender(header, signing_key)
        content_key = new_key()
        writer.write(make_front(header, header_bytes, content_key, recipients))

        sealer = body_sealer(suite.body, key=content_key, header=header_bytes)
        digest = hashlib.new(suite.body_digest)
        read = 0
        with memoryview(bytearray(room_bytes(PIECE_BYTES))) as room:
            for piece in _pieces(reader, header.plaintext_bytes):
                read += len(piece)
                _emit(room[: sealer.update_into(piece, room)], digest.update, writer)
        _emit(sealer.finalize(), digest.update, writer)
        if read != header.plaintext_bytes or reader.read(1):
            raise MalformedMessageError("the file changed its length while it was sealed")

        payload = signed_payload(digest_by(suite, header_bytes), digest.digest())
        writer.write(sign(payload, purpose=purpose, key=signing_key))
    return hashlib.sha256(payload).digest()


def verify_file(
    path: Path, *, purpose: Purpose, verify_key: CompositeVerifyKey, limit_bytes: int
) -> VerifiedEnvelopeFile:
    """Check who made an envelope in a file; decrypts nothing. The limits and their order are ``parse_envelope``'s.

    Raises:
        MessageTooLargeError, MalformedMessageError, UnsupportedVersionError, UnsupportedSuiteError: as
            ``parse_envelope``.
        WrongContextError, KeyUsageError, InvalidSignatureError: as ``verify_envelope``.
        OSError: reading failed.
    """
    with path.open("rb") as reader:
        size = os.fstat(reader.fileno()).st_size
        if size > limit_bytes:
            raise MessageTooLargeError(f"an envelope of {size} bytes, at most {limit_bytes} allowed")
        prefix_bytes = read_front(reader.read(FRONT_BYTES))
        prefix = reader.read(prefix_bytes)
        if len(prefix) != prefix_bytes:
            raise MalformedMessageError("an envelope is cut short in its prefix")
        header, header_bytes, stanzas = read_prefix(prefix)
        body_start = FRONT_BYTES + prefix_bytes
        if size < body_start + header.body_bytes:
            raise MalformedMessageError("an envelope is cut short in its body")
        require_signature_length(header, size - body_start - header.body_bytes)
        require_verifiable(header, verify_key)

        suite = header.suite_row
        digest = hashlib.new(suite.body_digest)
        for piece in _pieces(reader, header.body_bytes):
            digest.update(piece)
        signature = reader.read(SIGNATURE_LIMIT_BYTES + 1)
    payload = signed_payload(digest_by(suite, header_bytes), digest.digest())
    verify(signature, payload, purpose=purpose, key=verify_key)
    return VerifiedEnvelopeFile(
        path=path,
        header=header,
        header_bytes=header_bytes,
        stanzas=stanzas,
        body_start=body_start,
        body_digest=digest.digest(),
        signed_digest=hashlib.sha256(payload).digest(),
        _proof=_PROOF,
    )


def open_file(
    verified: VerifiedEnvelopeFile,
    target: Path,
    *,
    role: str,
    subject_id: str,
    epoch: int,
    decapsulation_key: DecapsulationKey,
) -> EnvelopeHeader:
    """Decrypt a verified envelope into a file, which appears whole or not at all.

    Args:
        verified: from ``verify_file``.
        target: where the payload goes; replaced if it is there.
        role, subject_id, epoch, decapsulation_key: as ``open_envelope``.

    Returns:
        The header.

    Raises:
        DecryptionError: not sealed to this recipient, or the file is not the one that was verified.
        KeyUsageError: the key is of another KEM than the suite's.
        OSError: reading or writing failed.
    """
    if not isinstance(verified, VerifiedEnvelopeFile):
        raise TypeError("open_file takes a VerifiedEnvelopeFile")
    header, suite = verified.header, verified.header.suite_row
    content_key = open_parsed_stanza(
        stanza_for(verified.stanzas, decapsulation_key),
        header=header,
        header_digest=digest_by(suite, verified.header_bytes),
        role=role,
        subject_id=subject_id,
        epoch=epoch,
        decapsulation_key=decapsulation_key,
    )
    opener = body_opener(
        suite.body, key=content_key, header=verified.header_bytes, plaintext_bytes=header.plaintext_bytes
    )
    digest = hashlib.new(suite.body_digest)
    written = 0
    with verified.path.open("rb") as reader, _appearing(target) as writer:
        reader.seek(verified.body_start)
        with memoryview(bytearray(room_bytes(PIECE_BYTES))) as room:
            for piece in _pieces(reader, header.body_bytes):
                digest.update(piece)
                written += writer.write(room[: opener.update_into(piece, room)])
        written += writer.write(opener.finalize())
        if written != header.plaintext_bytes or not hmac.compare_digest(digest.digest(), verified.body_digest):
            raise DecryptionError("a body did not open")
    return header


def _pieces(reader: BinaryIO, total_bytes: int) -> Iterator[memoryview]:
    """The next bytes of a file in one reused buffer; fewer than asked for when the file ends."""
    with memoryview(bytearray(min(PIECE_BYTES, total_bytes))) as room:
        left = total_bytes
        while left:
            count = reader.readinto(room[: min(left, len(room))])  # type: ignore[attr-defined]
            if not count:
                return
            left -= count
            yield room[:count]


def _emit(piece: bytes | memoryview, hash_update: Callable[[bytes | memoryview], None], writer: BinaryIO) -> None:
    hash_update(piece)
    writer.write(piece)


@contextmanager
def _appearing(target: Path) -> Iterator[BinaryIO]:
    """A new file under another name, mode 0600, that takes the target's name when the block ends well."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            yield writer
            writer.flush()
            os.fsync(writer.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
