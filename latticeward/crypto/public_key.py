"""What every public key class shares: what it is called by, and that two of the same bytes are one key."""

import hashlib


def speakable(digest: bytes) -> str:
    """The first 128 bits of a digest as eight groups of four hex digits, to be read aloud and compared.

    Args:
        digest: 16 bytes or more.
    """
    text = digest[:16].hex()
    return " ".join(text[place : place + 4] for place in range(0, 32, 4))


class PublicKey:
    """Keeps the public form of a key. Subclasses check it first and add what the key does."""

    __slots__ = ("_algorithm", "_key_id", "_raw")

    _algorithm: str

    def __init__(self, raw: bytes, algorithm: str) -> None:
        self._raw, self._algorithm = bytes(raw), algorithm
        self._key_id = hashlib.sha256(algorithm.encode("ascii") + self._raw).digest()

    @property
    def raw(self) -> bytes:
        """The public form, as long as the algorithm says."""
        return self._raw

    @property
    def algorithm(self) -> str:
        """Id of the algorithm; the same bytes under another one are another key."""
        return self._algorithm

    @property
    def key_id(self) -> bytes:
        """SHA-256 of algorithm id and raw key, 32 bytes."""
        return self._key_id

    @property
    def fingerprint(self) -> str:
        """The first half of the key id, in groups to be read aloud."""
        return speakable(self._key_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PublicKey):
            return NotImplemented
        return (type(self), self._algorithm, self._raw) == (type(other), other._algorithm, other._raw)

    def __hash__(self) -> int:
        return hash(self._key_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._algorithm} {self._key_id.hex()[:16]}>"
