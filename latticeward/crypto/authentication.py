"""The keys that sign requests: ML-DSA-65 or -87 (also certificate requests and TLS) and Ed25519, each by itself.

They sign with the empty context, as RFC 9421 and X.509 demand, and therefore never anything of our own formats. What
they do sign cannot be mistaken for each other: a signature base opens with a quotation mark, a certificate request
with the byte 0x30, TLS 1.3 with sixty-four spaces. Composite keys do none of the three.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from latticeward.crypto.points import require_sound_ed25519, require_sound_lattice
from latticeward.crypto.public_key import PublicKey
from latticeward.crypto.secret_key import SecretKey, require_length
from latticeward.errors import InvalidSignatureError, MalformedMessageError, UnsupportedSuiteError

ML_DSA_65: Final = "ml-dsa-65"
ML_DSA_87: Final = "ml-dsa-87"
ED25519: Final = "ed25519"
_SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Lattice:
    """One ML-DSA parameter set, and the length of its public key."""

    private: type[mldsa.MLDSA65PrivateKey] | type[mldsa.MLDSA87PrivateKey]
    public: type[mldsa.MLDSA65PublicKey] | type[mldsa.MLDSA87PublicKey]
    public_bytes: int


_LATTICES: Final[Mapping[str, _Lattice]] = MappingProxyType(
    {
        ML_DSA_65: _Lattice(mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey, 1952),
        ML_DSA_87: _Lattice(mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey, 2592),
    }
)


class AuthenticationVerifyKey(PublicKey):
    """An ML-DSA public key: 1952 bytes (``ml-dsa-65``) or 2592 (``ml-dsa-87``)."""

    __slots__ = ("_native",)

    def __init__(self, raw: bytes, algorithm: str) -> None:
        row = _lattice(algorithm)
        require_length(raw, row.public_bytes, f"an {algorithm} public key")
        require_sound_lattice(raw)
        try:
            self._native = row.public.from_public_bytes(bytes(raw))
        except ValueError as error:
            raise MalformedMessageError(f"not an {algorithm} public key") from error
        super().__init__(raw, algorithm)

    @classmethod
    def from_raw(cls, raw: bytes, algorithm: str = ML_DSA_65) -> Self:
        """Read a public key from outside.

        Raises:
            MalformedMessageError: not as long as the algorithm's keys, or not a key.
            KeyUsageError: zeros only.
            UnsupportedSuiteError: another algorithm.
        """
        return cls(raw, algorithm)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check an ML-DSA signature (3309 or 4627 bytes) with the empty context.

        Raises:
            InvalidSignatureError
        """
        try:
            self._native.verify(bytes(signature), data)
        except (InvalidSignature, ValueError):
            raise InvalidSignatureError(f"the {self.algorithm} signature does not hold under {self!r}") from None


class ClassicalVerifyKey(PublicKey):
    """An Ed25519 public key, 32 bytes."""

    __slots__ = ("_native",)

    def __init__(self, raw: bytes) -> None:
        require_length(raw, 32, "an ed25519 public key")
        require_sound_ed25519(raw)
        try:
            self._native = ed25519.Ed25519PublicKey.from_public_bytes(bytes(raw))
        except ValueError as error:
            raise MalformedMessageError("not an Ed25519 public key") from error
        super().__init__(raw, ED25519)

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """Read a public key from outside.

        Raises:
            MalformedMessageError: not 32 bytes.
            KeyUsageError: a point of small order.
        """
        return cls(raw)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check an Ed25519 signature (64 bytes).

        Raises:
            InvalidSignatureError
        """
        try:
            self._native.verify(bytes(signature), data)
        except (InvalidSignature, ValueError):
            raise InvalidSignatureError(f"the ed25519 signature does not hold under {self!r}") from None


class AuthenticationSigningKey(SecretKey):
    """An ML-DSA private key, kept as its 32-byte seed."""

    KIND = "authentication-signing"

    __slots__ = ("_native", "_verify_key")

    def __init__(self, seed: bytes, algorithm: str) -> None:
        row = _lattice(algorithm)
        require_length(seed, _SEED_BYTES, f"an {algorithm} seed")
        super().__init__(algorithm, seed)
        self._native = row.private.from_seed_bytes(bytes(seed))
        self._verify_key = AuthenticationVerifyKey(self._native.public_key().public_bytes_raw(), algorithm)

    @classmethod
    def generate(cls, algorithm: str = ML_DSA_65) -> Self:
        """A fresh key of ``ml-dsa-65`` or ``ml-dsa-87`` from the operating system's randomness."""
        return cls(secrets.token_bytes(_SEED_BYTES), algorithm)

    @classmethod
    def from_seed(cls, seed: bytes, algorithm: str = ML_DSA_65) -> Self:
        """The key of a 32-byte seed. The same seed fits both parameter sets, so the name must come along.

        Raises:
            MalformedMessageError: another length.
            UnsupportedSuiteError: the seed is said to be for another algorithm.
        """
        return cls(seed, algorithm)

    @property
    def verify_key(self) -> AuthenticationVerifyKey:
        """The public key."""
        return self._verify_key

    def sign(self, data: bytes) -> bytes:
        """Sign with the empty context: 3309 or 4627 bytes, other ones each time (hedged)."""
        return self._native.sign(data)


class ClassicalSigningKey(SecretKey):
    """An Ed25519 private key, 32 bytes."""

    KIND = "classical-signing"

    __slots__ = ("_native", "_verify_key")

    def __init__(self, seed: bytes) -> None:
        require_length(seed, _SEED_BYTES, "an ed25519 secret key")
        super().__init__(ED25519, seed)
        self._native = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(seed))
        self._verify_key = ClassicalVerifyKey(self._native.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """A fresh key from the operating system's randomness."""
        return cls(secrets.token_bytes(_SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes, algorithm: str = ED25519) -> Self:
        """The key of a 32-byte seed.

        Raises:
            MalformedMessageError: another length.
            UnsupportedSuiteError: the seed is said to be for another algorithm.
        """
        if algorithm != ED25519:
            raise UnsupportedSuiteError(f"this kind of key is {ED25519}, not {str(algorithm)[:40]!r}")
        return cls(seed)

    @property
    def verify_key(self) -> ClassicalVerifyKey:
        """The public key."""
        return self._verify_key

    def sign(self, data: bytes) -> bytes:
        """Sign: 64 bytes."""
        return self._native.sign(data)


def _lattice(algorithm: str) -> _Lattice:
    row = _LATTICES.get(algorithm)
    if row is None:
        raise UnsupportedSuiteError(f"no authentication key is of {str(algorithm)[:40]!r}")
    return row
