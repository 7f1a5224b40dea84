"""What every form of Ascon-AEAD128 offers, and the sizes that they share.

The forms are ``ascon_compiled.py`` (C, up to sixteen chunks at once), ``ascon_lanes.py`` (NumPy) and
``ascon_reference.py`` (plain Python). All give the same bytes; ``ascon.py`` chooses. A core checks no lengths of its
own: ``ascon.py`` and ``ascon_stream.py`` do, once for all.
"""

from typing import Final, Protocol

KEY_BYTES: Final = 16
NONCE_BYTES: Final = 16
TAG_BYTES: Final = 16
CHUNK_BYTES: Final = 16_384
SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + TAG_BYTES

Buffer = bytes | bytearray | memoryview


class Core(Protocol):
    """One form of Ascon-AEAD128. Keys and nonces have 16 bytes."""

    @property
    def name(self) -> str:
        """As reports and the suite table show it, e.g. ``c avx512 8 lanes``."""

    @property
    def compiled(self) -> bool:
        """Whether the form is fast enough for model-sized messages in a round's time."""

    def seal(self, *, key: bytes, nonce: bytes, associated_data: bytes, plaintext: Buffer) -> bytes:
        """Ciphertext and 16-byte tag of one message of any length."""

    def open(self, *, key: bytes, nonce: bytes, associated_data: bytes, sealed: Buffer) -> bytes:
        """The plaintext of one message of at least 16 bytes.

        Raises:
            DecryptionError: the tag does not hold.
        """

    def seal_chunks(
        self, *, key: bytes, nonce: bytes, first_index: int, plaintext: memoryview, target: memoryview
    ) -> None:
        """Seal whole chunks, none of them a message's last, into ``target``.

        Args:
            key: 16 bytes.
            nonce: 16 bytes, the message's first nonce, which ``chunk_nonce`` turns into each chunk's.
            first_index: the number of the first chunk.
            plaintext: n * 16,384 bytes.
            target: n * 16,400 writable bytes.
        """

    def open_chunks(
        self, *, key: bytes, nonce: bytes, first_index: int, sealed: memoryview, target: memoryview
    ) -> None:
        """The reverse: ``sealed`` has n * 16,400 bytes, ``target`` n * 16,384 writable ones.

        Raises:
            DecryptionError: a tag does not hold; ``target`` then holds no plaintext.
        """


def chunk_nonce(nonce: bytes, index: int, *, last: bool) -> bytes:
    """The nonce of one chunk: the message's first nonce XOR (F ‖ seven zero bytes ‖ index), F = 1 on the last chunk.

    Args:
        nonce: 16 bytes.
        index: 0 <= index < 2^32, as eight bytes, most significant first.
        last: whether the chunk ends the message.

    Returns:
        16 bytes.
    """
    mask = int(last) << 120 | index
    return (int.from_bytes(nonce, "big") ^ mask).to_bytes(NONCE_BYTES, "big")
