"""Encipherment keys: plain ML-KEM keys of devices, which standard tools encrypt to by an X.509 certificate (RFC 9935).

Nothing of this system's own messages is sealed to them: those have hybrid keys (``kem.py``). An encipherment key is a
key of its own and never the lattice half of a hybrid one, since who holds half of a hybrid key in another protocol can
ask that protocol about it. The certificate lives in ``encipherment_certificate.py``, the proof of possession in
``latticeward.encipherment``.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mlkem

from latticeward.crypto.points import require_reduced, require_sound_lattice
from latticeward.crypto.public_key import PublicKey
from latticeward.crypto.secret_key import SecretKey, require_length
from latticeward.crypto.suites import KemAlgorithm, get_suite
from latticeward.errors import DecryptionError, MalformedMessageError, UnsupportedSuiteError

ML_KEM_768: Final = "ml-kem-768"
ML_KEM_1024: Final = "ml-kem-1024"
SEED_BYTES: Final = 64  # d and z of FIPS 203
SHARED_BYTES: Final = 32

MlKemPublic = mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey
MlKemPrivate = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class MlKem:
    """One parameter set of FIPS 203, with the lengths of its public key and ciphertext; OIDs of RFC 9935."""

    name: str
    private: type[mlkem.MLKEM768PrivateKey] | type[mlkem.MLKEM1024PrivateKey]
    public: type[mlkem.MLKEM768PublicKey] | type[mlkem.MLKEM1024PublicKey]
    public_bytes: int
    ciphertext_bytes: int
    oid: x509.ObjectIdentifier


ENCIPHERMENT_ALGORITHMS: Final[Mapping[str, MlKem]] = MappingProxyType(
    {
        row.name: row
        for row in (
            MlKem(
                name=ML_KEM_768,
                private=mlkem.MLKEM768PrivateKey,
                public=mlkem.MLKEM768PublicKey,
                public_bytes=1184,
                ciphertext_bytes=1088,
                oid=x509.ObjectIdentifier("2.16.840.1.101.3.4.4.2"),
            ),
            MlKem(
                name=ML_KEM_1024,
                private=mlkem.MLKEM1024PrivateKey,
                public=mlkem.MLKEM1024PublicKey,
                public_bytes=1568,
                ciphertext_bytes=1568,
                oid=x509.ObjectIdentifier("2.16.840.1.101.3.4.4.3"),
            ),
        )
    }
)
# As strong as what this system seals to the same device.
_OF_KEM: Final[Mapping[KemAlgorithm, str]] = {
    KemAlgorithm.MLKEM768_X25519: ML_KEM_768,
    KemAlgorithm.MLKEM1024_P384: ML_KEM_1024,
}


def encipherment_algorithm(suite: str) -> str:
    """The parameter set of a device's encipherment keys: that of the lattice half of its suite's KEM.

    Raises:
        UnsupportedSuiteError: no such suite, or one that is not in service.
    """
    kem = get_suite(suite).kem
    if kem not in _OF_KEM:
        raise UnsupportedSuiteError(f"devices of the suite {suite} have no encipherment keys")
    return _OF_KEM[kem]


class EnciphermentKey(PublicKey):
    """A public ML-KEM key that standard tools encrypt to."""

    __slots__ = ("_native",)

    def __init__(self, raw: bytes, algorithm: str) -> None:
        row = _row(algorithm)
        require_length(raw, row.public_bytes, f"an {algorithm} public key")
        super().__init__(raw, algorithm)
        require_sound_lattice(self._raw)
        require_reduced(self._raw)
        try:
            self._native = row.public.from_public_bytes(self._raw)
        except ValueError as error:
            raise MalformedMessageError(f"not an {algorithm} public key") from error

    @classmethod
    def from_raw(cls, raw: bytes, algorithm: str) -> Self:
        """Read a public key from outside, with the checks of FIPS 203, section 7.2.

        Args:
            raw: 1184 (768) or 1568 (1024) bytes.
            algorithm: ``ml-kem-768`` or ``ml-kem-1024``.

        Raises:
            UnsupportedSuiteError: another algorithm.
            MalformedMessageError: wrong length, or a coefficient that is not reduced modulo 3329.
            KeyUsageError: zeros only.
        """
        return cls(raw, algorithm)

    @property
    def native(self) -> MlKemPublic:
        """The library's own object, for the certificate."""
        return self._native

    def encapsulate(self) -> tuple[bytes, bytes]:
        """A fresh shared secret (32 bytes) and its ciphertext, which only the private key turns into the secret."""
        return self._native.encapsulate()


class DeciphermentKey(SecretKey):
    """The private half, kept as the 64-byte seed of FIPS 203."""

    KIND = "decipherment"

    __slots__ = ("_native",)

    def __init__(self, algorithm: str, seed: bytes) -> None:
        super().__init__(algorithm, seed)
        self._native: MlKemPrivate = _row(algorithm).private.from_seed_bytes(bytes(seed))

    @classmethod
    def generate(cls, algorithm: str) -> Self:
        """A fresh key from the operating system's randomness.

        Raises:
            UnsupportedSuiteError: no parameter set of encipherment keys.
        """
        _row(algorithm)
        return cls(algorithm, secrets.token_bytes(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes, algorithm: str) -> Self:
        """The key of a stored seed of 64 bytes; the same seed fits every parameter set, so the name must come along.

        Raises:
            UnsupportedSuiteError: no parameter set of encipherment keys.
            MalformedMessageError: another length.
        """
        _row(algorithm)
        require_length(seed, SEED_BYTES, f"the seed of an {algorithm} key")
        return cls(algorithm, seed)

    @property
    def encipherment_key(self) -> EnciphermentKey:
        """The public half."""
        return EnciphermentKey(self._native.public_key().public_bytes_raw(), self._algorithm)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret of a ciphertext, 32 bytes. A forged one gives another secret and no error.

        Raises:
            DecryptionError: wrong length.
        """
        if len(ciphertext) != _row(self._algorithm).ciphertext_bytes:
            raise DecryptionError("a ciphertext of another parameter set")
        return self._native.decapsulate(ciphertext)

    def export_pkcs8(self) -> bytes:
        """The private key as PEM, in the clear: PKCS #8 in the seed form of RFC 9935, which OpenSSL 3.5 reads."""
        return self._native.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _row(algorithm: str) -> MlKem:
    row = ENCIPHERMENT_ALGORITHMS.get(algorithm)
    if row is None:
        raise UnsupportedSuiteError(f"no encipherment key is of the algorithm {str(algorithm)[:40]!r}")
    return row
