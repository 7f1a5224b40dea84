"""The chunks of one Ascon body: key derivation, commitment, numbering and nonces.

``ascon_stream.py`` has the format in words and the functions for callers; this file is what its whole-message and its
piecewise forms share.
"""

import hashlib
import hmac
import io
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from latticeward.crypto.ascon import default_core
from latticeward.crypto.ascon_core import (
    CHUNK_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    SEALED_CHUNK_BYTES,
    TAG_BYTES,
    Core,
    chunk_nonce,
)
from latticeward.errors import DecryptionError, KeyUsageError, MessageTooLargeError

LABEL: Final = b"latticeward/stream/v1+ascon-aead128"
CONTENT_KEY_BYTES: Final = 32
SALT_BYTES: Final = 24
COMMITMENT_BYTES: Final = 32
PREFIX_BYTES: Final = SALT_BYTES + COMMITMENT_BYTES
MAX_CHUNKS: Final = 2**32


class ChunkStream:
    """One message's chunks in their order, sealed or opened; it counts them itself.

    Attributes:
        prefix: salt and commitment, 56 bytes, the beginning of the body.
    """

    def __init__(self, *, key: bytes, salt: bytes, header: bytes, core: Core | None) -> None:
        if len(key) != CONTENT_KEY_BYTES:
            raise KeyUsageError("a content key has 32 bytes")
        info = LABEL + b"\x00" + salt + hashlib.sha512(header).digest()
        length = KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES
        derived = HKDFExpand(algorithm=SHA512(), length=length, info=info).derive(key)
        self._key = derived[:KEY_BYTES]
        self._nonce = derived[KEY_BYTES : KEY_BYTES + NONCE_BYTES]
        self.prefix = salt + derived[KEY_BYTES + NONCE_BYTES :]
        self._core = core or default_core()
        self._next = 0

    @classmethod
    def from_prefix(cls, prefix: bytes, *, key: bytes, header: bytes, core: Core | None) -> Self:
        """The stream of a body that begins so.

        Raises:
            DecryptionError: key or header is not the one that the body commits to.
        """
        stream = cls(key=key, salt=prefix[:SALT_BYTES], header=header, core=core)
        if not hmac.compare_digest(stream.prefix, prefix):
            raise DecryptionError("the body commits to another key or header")
        return stream

    def seal_full(self, plaintext: memoryview, target: memoryview) -> None:
        """n * 16,384 bytes into n * 16,400.

        Raises:
            MessageTooLargeError: the message has more than 2^32 chunks.
        """
        self._core.seal_chunks(
            key=self._key,
            nonce=self._nonce,
            first_index=self._take(len(plaintext) // CHUNK_BYTES),
            plaintext=plaintext,
            target=target,
        )

    def seal_last(self, plaintext: memoryview) -> bytes:
        """The chunk that ends the message, fewer than 16,384 bytes."""
        nonce = chunk_nonce(self._nonce, self._take(1), last=True)
        return self._core.seal(key=self._key, nonce=nonce, associated_data=b"", plaintext=plaintext)

    def open_full(self, sealed: memoryview, target: memoryview) -> None:
        """n * 16,400 bytes into n * 16,384.

        Raises:
            DecryptionError: a tag does not hold; the target then holds no plaintext.
        """
        self._core.open_chunks(
            key=self._key,
            nonce=self._nonce,
            first_index=self._take(len(sealed) // SEALED_CHUNK_BYTES),
            sealed=sealed,
            target=target,
        )

    def open_last(self, sealed: memoryview) -> bytes:
        """The chunk that ends the message.

        Raises:
            DecryptionError: its tag does not hold, or another chunk ends the message.
        """
        if not TAG_BYTES <= len(sealed) < SEALED_CHUNK_BYTES:
            raise DecryptionError("the last chunk has an impossible length")
        nonce = chunk_nonce(self._nonce, self._take(1), last=True)
        return self._core.open(key=self._key, nonce=nonce, associated_data=b"", sealed=sealed)

    def _take(self, count: int) -> int:
        first = self._next
        if first + count > MAX_CHUNKS:
            raise MessageTooLargeError("a body has at most 2^32 chunks")
        self._next += count
        return first


class Output:
    """A bytes object of known length, written in place.

    Building the result in a bytearray would copy it once more at the end, which for a model costs a third of the
    cipher's own time. A ``BytesIO`` gives out its buffer for writing and then, without a copy, as bytes; the zeros it
    begins with come from the kernel and are not written either.
    """

    def __init__(self, length: int) -> None:
        self._buffer = io.BytesIO(bytes(length))

    def view(self) -> memoryview:
        """All of it, writable; release it before ``taken``."""
        return self._buffer.getbuffer()

    def taken(self) -> bytes:
        return self._buffer.getvalue()
