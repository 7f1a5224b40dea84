"""What every private key class shares: a seed that is shown, copied, compared and pickled by nobody by accident."""

from typing import Any, ClassVar, Final, NoReturn, Self

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.errors import KeyUsageError, MalformedMessageError

KEY_FILE_LIMIT_BYTES: Final = 16_384


class SecretKey:
    """Keeps a seed. Subclasses add what the key does.

    The seed lies in a ``bytearray`` that is overwritten when the object goes. This narrows the window only: the
    cryptographic library keeps its own copy of the expanded key, and Python may have copied the bytes on their way
    in. A process that uses a key must be trusted with it.
    """

    KIND: ClassVar[str]

    __slots__ = ("_algorithm", "_seed")

    def __init__(self, algorithm: str, seed: bytes) -> None:
        self._algorithm = algorithm
        self._seed = bytearray(seed)

    @property
    def algorithm(self) -> str:
        """Id of the algorithm; a seed is good for this one only."""
        return self._algorithm

    @classmethod
    def from_seed(cls, seed: bytes, algorithm: str) -> Self:
        """The key that a seed expands to. Overridden with the lengths of each kind."""
        raise NotImplementedError

    def export_seed(self) -> bytes:
        """The seed itself, in the clear. Wrap it at once (``crypto/wrapping.py``) and keep its algorithm beside it."""
        return bytes(self._seed)

    def export_file(self) -> bytes:
        """The file form: canonical CBOR that binds the seed to its kind and algorithm, in the clear.

        A bare 32-byte seed fits three parameter sets of ML-DSA and all KEMs here; loaded under the wrong one it gives
        a different, valid key and no error.
        """
        return canonical.encode(
            {
                "type": "latticeward-secret-key",
                "v": 1,
                "kind": self.KIND,
                "algorithm": str(self._algorithm),
                "seed": bytes(self._seed),
            }
        )

    @classmethod
    def from_file(cls, raw: bytes) -> Self:
        """Read ``export_file``'s form.

        Raises:
            MalformedMessageError, MessageTooLargeError: not that form, or not the seed's length.
            KeyUsageError: the key is of another kind.
            UnsupportedSuiteError: the algorithm is unknown.
        """
        fields = Fields(canonical.decode(raw, limit_bytes=KEY_FILE_LIMIT_BYTES), "secret key file")
        if fields.text("type") != "latticeward-secret-key" or fields.integer("v", 1, 1) != 1:
            raise MalformedMessageError("not a secret key file of version 1")
        kind, algorithm, seed = fields.text("kind"), fields.text("algorithm"), fields.bytes("seed")
        fields.end()
        if kind != cls.KIND:
            raise KeyUsageError(f"the file holds a {kind[:40]} key, wanted a {cls.KIND} key")
        return cls.from_seed(seed, algorithm)

    def __del__(self) -> None:
        seed = getattr(self, "_seed", None)
        if seed is not None:
            seed[:] = bytes(len(seed))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._algorithm}, secret>"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secret keys are not compared; compare the ids of their public keys")

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("secret keys are not pickled or copied; export the seed on purpose")

    def __getstate__(self) -> NoReturn:
        raise TypeError("secret keys are not pickled or copied; export the seed on purpose")


def require_length(raw: bytes, length: int, what: str) -> None:
    """Refuse key material of another length than its kind's.

    Raises:
        MalformedMessageError
    """
    if not isinstance(raw, bytes | bytearray | memoryview) or len(raw) != length:
        raise MalformedMessageError(f"{what} has {length} bytes")
