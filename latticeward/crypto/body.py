"""The bodies of envelopes: streams of 16 KiB chunks that commit to their key, one row per algorithm.

Every algorithm here has the same outer shape: 56 bytes in front (24 of salt, 32 of commitment to the key), then chunks
with a tag of 16 bytes each, the last one always shorter than full, if need be empty. Order, truncation and extension
are therefore visible, and the sealed length follows from the plain one. Each body has a fresh key of its own.
"""

import ctypes
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Final, Protocol

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from latticeward.crypto.suites import BodyAlgorithm
from latticeward.errors import DecryptionError
from latticeward.hashing import BLOCK_BYTES, Hash

CONTENT_KEY_BYTES: Final = 32
CHUNK_BYTES: Final = 16_384
TAG_BYTES: Final = 16
FRONT_BYTES: Final = 56
_LABEL: Final = b"latticeward/body/v1"
_new_bytes: Final = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)


class BodyStream(Protocol):
    """One direction of one body, fed in order: each call gives as much output as the algorithm has ready."""

    def update_into(self, data: bytes | memoryview, buf: bytearray | memoryview, /) -> int:
        """Take the next bytes, write what is ready into ``buf``, return how much; ``buf`` has ``room_bytes``."""

    def finalize(self) -> bytes:
        """The rest. When opening, only its return says that the body is whole."""


def sealed_body_bytes(plaintext_bytes: int) -> int:
    """Length of a sealed body, whatever the algorithm."""
    return FRONT_BYTES + plaintext_bytes + TAG_BYTES * (plaintext_bytes // CHUNK_BYTES + 1)


def room_bytes(piece_bytes: int) -> int:
    """Least length of the buffer for ``update_into`` when pieces have at most ``piece_bytes``."""
    return FRONT_BYTES + piece_bytes + CHUNK_BYTES + TAG_BYTES * (piece_bytes // CHUNK_BYTES + 2)


def body_sealer(algorithm: BodyAlgorithm, *, key: bytes, header: bytes) -> BodyStream:
    """Start to seal a body.

    Args:
        algorithm: of the suite.
        key: the content key, 32 fresh random bytes, for this body only.
        header: the envelope's header bytes, which the body is bound to.
    """
    return _ROWS[algorithm].sealer(key, header)


def body_opener(algorithm: BodyAlgorithm, *, key: bytes, header: bytes, plaintext_bytes: int) -> BodyStream:
    """Start to open a body of a declared plain length; its methods raise ``DecryptionError`` for every cause.

    What ``update_into`` gives is authentic, and may still be cut short: it counts once ``finalize`` has returned and
    the lengths add up to ``plaintext_bytes``.
    """
    return _OpeningStream(_ROWS[algorithm].opener(key, header, plaintext_bytes))


def seal_body_into(
    algorithm: BodyAlgorithm,
    plaintext: bytes | memoryview,
    target: memoryview,
    *,
    key: bytes,
    header: bytes,
    state: Hash,
) -> None:
    """Seal a whole body into a buffer of exactly ``sealed_body_bytes(len(plaintext))``, and hash what it gets.

    Args:
        state: is given the sealed bytes piece by piece, while the cache holds them.
    """
    sealer, view = body_sealer(algorithm, key=key, header=header), memoryview(plaintext)
    place = 0
    for start in range(0, len(view), BLOCK_BYTES):
        end = place + sealer.update_into(view[start : start + BLOCK_BYTES], target[place:])
        state.update(target[place:end])
        place = end
    target[place:] = sealer.finalize()
    state.update(target[place:])


def open_whole_body(
    algorithm: BodyAlgorithm, body: bytes | memoryview, *, key: bytes, header: bytes, plaintext_bytes: int
) -> bytes:
    """Open a whole body of a declared plain length.

    Raises:
        DecryptionError: wrong key or header, changed, cut or longer bytes, or another length than declared.
    """
    if len(body) != sealed_body_bytes(plaintext_bytes):
        raise DecryptionError("a body did not open")
    try:
        return _ROWS[algorithm].open_whole(body, key, header, plaintext_bytes)
    except (InvalidTag, ValueError):
        raise DecryptionError("a body did not open") from None


def sized_buffer(size: int) -> BytesIO:
    """A buffer of a size, to be filled to the last byte; its ``getvalue`` gives the bytes without copying them."""
    # The buffer adopts these bytes, which nobody else holds. They come as the C API hands them out, not zeroed: where
    # memory is used again, clearing a model's worth would cost a third of what the cipher then does.
    return BytesIO(_new_bytes(None, size))


def _context(header: bytes) -> bytes:
    return _LABEL + hashlib.sha512(header).digest()


def _open_cobblestone(body: bytes | memoryview, key: bytes, header: bytes, plaintext_bytes: int) -> bytes:
    opener = Cobblestone256Decryptor(key, _context(header))
    opened = sized_buffer(plaintext_bytes)
    with opened.getbuffer() as target:
        place = opener.update_into(body, target)
        target[place:] = opener.finalize()
    return opened.getvalue()


def _open_ascon(body: bytes | memoryview, key: bytes, header: bytes, plaintext_bytes: int) -> bytes:
    # Imported here, because processes that never see this suite need not load its lanes.
    from latticeward.crypto.ascon_stream import open_stream

    return open_stream(body, key=key, header=header, plaintext_bytes=plaintext_bytes)


class _OpeningStream:
    """An opener whose failures are all one error."""

    def __init__(self, opener: BodyStream) -> None:
        self._opener = opener

    def update_into(self, data: bytes | memoryview, buf: bytearray | memoryview, /) -> int:
        try:
            return self._opener.update_into(data, buf)
        except InvalidTag:
            raise DecryptionError("a body did not open") from None

    def finalize(self) -> bytes:
        try:
            return self._opener.finalize()
        except (InvalidTag, ValueError):
            raise DecryptionError("a body did not open") from None


class _AsconStream(Protocol):
    def update(self, piece: bytes | memoryview, /) -> bytes: ...

    def finalize(self) -> bytes: ...


class _Copying:
    """The Ascon streams return fresh bytes; this hands them over as the library's streams do."""

    def __init__(self, stream: _AsconStream) -> None:
        self._stream = stream

    def update_into(self, data: bytes | memoryview, buf: bytearray | memoryview, /) -> int:
        ready = self._stream.update(data)
        buf[: len(ready)] = ready
        return len(ready)

    def finalize(self) -> bytes:
        return self._stream.finalize()


def _seal_ascon(key: bytes, header: bytes) -> BodyStream:
    from latticeward.crypto.ascon_stream import StreamSealer

    return _Copying(StreamSealer(key=key, header=header))


def _open_ascon_stream(key: bytes, header: bytes, plaintext_bytes: int) -> BodyStream:
    from latticeward.crypto.ascon_stream import StreamOpener

    return _Copying(StreamOpener(key=key, header=header, plaintext_bytes=plaintext_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    sealer: Callable[[bytes, bytes], BodyStream]
    opener: Callable[[bytes, bytes, int], BodyStream]
    open_whole: Callable[[bytes | memoryview, bytes, bytes, int], bytes]


_ROWS: Final[Mapping[BodyAlgorithm, _Row]] = MappingProxyType(
    {
        BodyAlgorithm.COBBLESTONE_256: _Row(
            sealer=lambda key, header: Cobblestone256Encryptor(key, _context(header)),
            opener=lambda key, header, _: Cobblestone256Decryptor(key, _context(header)),
            open_whole=_open_cobblestone,
        ),
        BodyAlgorithm.ASCON_STREAM: _Row(sealer=_seal_ascon, opener=_open_ascon_stream, open_whole=_open_ascon),
    }
)
