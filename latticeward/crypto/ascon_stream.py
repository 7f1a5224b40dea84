"""Bodies of the ``constrained`` suite: chunked encryption with Ascon-AEAD128.

::

    body  = salt (24) ‖ C (32) ‖ chunk 0 ‖ chunk 1 ‖ … ‖ last chunk
    chunk = ciphertext of 16,384 bytes ‖ tag (16); the last holds fewer, possibly none

    HKDF-Expand-SHA-512(content key, "latticeward/stream/v1+ascon-aead128" ‖ 0x00 ‖ salt ‖ SHA-512(header), 64)
        = K (16) ‖ N0 (16) ‖ C (32)
    nonce of chunk i = N0 XOR (F ‖ seven zero bytes ‖ i as eight bytes, most significant first)
        F = 1 on the last chunk, else 0; i < 2^32; no associated data

The last chunk is always shorter than 16 KiB, as in C2SP chunked-encryption, so each length has one chunking only and
a full chunk can leave at once. C commits to the key: it is compared before any chunk is touched, so that no body opens
under two keys. The header is bound by the key derivation. A content key serves one message; the fresh salt keeps even
a second write under it apart.

Whole messages go through ``seal_stream`` and ``open_stream``. Files go through ``StreamSealer`` and ``StreamOpener``,
which have the surface of ``cryptography``'s Cobblestone objects (``update`` any number of times, ``finalize`` once)
and hold no more than what they were handed plus one chunk. Feed them pieces of about 1 MiB: the lanes work on the
full chunks of a piece in parallel.
"""

import os

from latticeward.crypto.ascon_chunks import CONTENT_KEY_BYTES, PREFIX_BYTES, SALT_BYTES, ChunkStream, Output
from latticeward.crypto.ascon_core import CHUNK_BYTES, SEALED_CHUNK_BYTES, TAG_BYTES, Buffer, Core
from latticeward.errors import DecryptionError, KeyUsageError


def body_length(plaintext_bytes: int) -> int:
    """The one length in bytes of the body of so many plaintext bytes."""
    return PREFIX_BYTES + plaintext_bytes + TAG_BYTES * (plaintext_bytes // CHUNK_BYTES + 1)


def seal_stream(plaintext: Buffer, *, key: bytes, header: bytes, core: Core | None = None) -> bytes:
    """Encrypt a whole message.

    Args:
        plaintext: any length.
        key: 32 random bytes, for this message only.
        header: bound to the body, not part of it; any length.
        core: a form other than this process's own, for tests and measurements.

    Returns:
        ``body_length(len(plaintext))`` bytes.

    Raises:
        KeyUsageError: the key has another length.
    """
    source = memoryview(plaintext).cast("B")
    chunks = ChunkStream(key=key, salt=os.urandom(SALT_BYTES), header=header, core=core)
    full = len(source) - len(source) % CHUNK_BYTES
    output = Output(body_length(len(source)))
    with output.view() as body:
        body[:PREFIX_BYTES] = chunks.prefix
        end = PREFIX_BYTES + full // CHUNK_BYTES * SEALED_CHUNK_BYTES
        chunks.seal_full(source[:full], body[PREFIX_BYTES:end])
        body[end:] = chunks.seal_last(source[full:])
    return output.taken()


def open_stream(body: Buffer, *, key: bytes, header: bytes, plaintext_bytes: int, core: Core | None = None) -> bytes:
    """Undo ``seal_stream``: nothing is returned unless every tag holds.

    Args:
        body: as ``seal_stream`` made it.
        key: 32 bytes.
        header: the same bytes as at sealing.
        plaintext_bytes: the length that the header declares.
        core: as there.

    Raises:
        DecryptionError: other key, header or length, or a body that was altered, cut, extended or reordered.
        KeyUsageError: the key has not 32 bytes.
    """
    source = memoryview(body).cast("B")
    if plaintext_bytes < 0 or len(source) != body_length(plaintext_bytes):
        raise DecryptionError("the body's length is not that of the declared plaintext")
    chunks = ChunkStream.from_prefix(bytes(source[:PREFIX_BYTES]), key=key, header=header, core=core)
    full = plaintext_bytes - plaintext_bytes % CHUNK_BYTES
    end = PREFIX_BYTES + full // CHUNK_BYTES * SEALED_CHUNK_BYTES
    output = Output(plaintext_bytes)
    with output.view() as plaintext:
        chunks.open_full(source[PREFIX_BYTES:end], plaintext[:full])
        plaintext[full:] = chunks.open_last(source[end:])
    return output.taken()


class StreamSealer:
    """Encrypt a message that comes in pieces; what the calls return, joined, is the body.

    Args:
        key: 32 random bytes, for this message only.
        header: bound to the body, not part of it.

    Raises:
        KeyUsageError: the key has another length.
    """

    def __init__(self, *, key: bytes, header: bytes, core: Core | None = None) -> None:
        self._chunks = ChunkStream(key=key, salt=os.urandom(SALT_BYTES), header=header, core=core)
        self._unsent = self._chunks.prefix
        self._pending = b""
        self._finished = False

    def update(self, plaintext: Buffer) -> bytes:
        """The sealed chunks that are complete with these bytes; often empty for short pieces.

        Raises:
            KeyUsageError: after ``finalize``.
            MessageTooLargeError: the message has more than 2^32 chunks.
        """
        self._require_open()
        data = _joined(self._pending, plaintext)
        full = len(data) - len(data) % CHUNK_BYTES
        output = Output(len(self._unsent) + full // CHUNK_BYTES * SEALED_CHUNK_BYTES)
        with output.view() as body:
            body[: len(self._unsent)] = self._unsent
            self._chunks.seal_full(data[:full], body[len(self._unsent) :])
        self._unsent, self._pending = b"", bytes(data[full:])
        return output.taken()

    def finalize(self) -> bytes:
        """The rest of the body; ends the object.

        Raises:
            KeyUsageError: called twice.
        """
        self._require_open()
        self._finished = True
        return self._unsent + self._chunks.seal_last(memoryview(self._pending))

    def _require_open(self) -> None:
        if self._finished:
            raise KeyUsageError("a stream sealer serves one message")


class StreamOpener:
    """Decrypt a body that comes in pieces.

    Each piece of plaintext is authentic as a prefix; that the message is whole is certain only when ``finalize``
    returned. So write to a temporary place and make it visible after that.

    Args:
        key: 32 bytes.
        header: the same bytes as at sealing.
        plaintext_bytes: the length that the header declares.

    Raises:
        KeyUsageError: the key has another length.
    """

    def __init__(self, *, key: bytes, header: bytes, plaintext_bytes: int, core: Core | None = None) -> None:
        if len(key) != CONTENT_KEY_BYTES:
            raise KeyUsageError("a content key has 32 bytes")
        self._key, self._header, self._core = key, header, core
        self._chunks: ChunkStream | None = None
        self._pending = b""
        self._full_left, self._last_bytes = divmod(plaintext_bytes, CHUNK_BYTES)
        self._ended = False

    def update(self, body: Buffer) -> bytes:
        """The plaintext of the chunks that are complete with these bytes; all their tags hold.

        Raises:
            DecryptionError: as ``open_stream``; ends the object.
            KeyUsageError: the object has ended.
        """
        if self._ended:
            raise KeyUsageError("this stream opener has ended")
        data = _joined(self._pending, body)
        self._pending = b""
        # Whatever is wrong ends the object: a caller that goes on after an error gets nothing more out of it.
        self._ended = True
        plaintext = self._take(data)
        self._ended = False
        return plaintext

    def finalize(self) -> bytes:
        """The last plaintext, once the whole body was handed in; ends the object.

        Raises:
            DecryptionError: the body is cut or its last chunk altered.
            KeyUsageError: the object has ended.
        """
        if self._ended:
            raise KeyUsageError("this stream opener has ended")
        self._ended = True
        if self._chunks is None or self._full_left or len(self._pending) != self._last_bytes + TAG_BYTES:
            raise DecryptionError("the body ends early")
        return self._chunks.open_last(memoryview(self._pending))

    def _take(self, data: memoryview) -> bytes:
        if self._chunks is None:
            if len(data) < PREFIX_BYTES:
                self._pending = bytes(data)
                return b""
            self._chunks = ChunkStream.from_prefix(
                bytes(data[:PREFIX_BYTES]), key=self._key, header=self._header, core=self._core
            )
            data = data[PREFIX_BYTES:]
        count = min(len(data) // SEALED_CHUNK_BYTES, self._full_left)
        end = count * SEALED_CHUNK_BYTES
        output = Output(count * CHUNK_BYTES)
        with output.view() as plaintext:
            self._chunks.open_full(data[:end], plaintext)
        self._full_left -= count
        if not self._full_left and len(data) - end > self._last_bytes + TAG_BYTES:
            raise DecryptionError("the body is longer than its header declares")
        self._pending = bytes(data[end:])
        return output.taken()


def _joined(pending: bytes, data: Buffer) -> memoryview:
    if not pending:
        return memoryview(data).cast("B")
    return memoryview(b"".join((pending, data)))
