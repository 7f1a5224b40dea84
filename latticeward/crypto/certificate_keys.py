"""The ML-DSA keys of X.509: they sign certificates, certificate requests and status answers.

They sign nothing else, and with the empty context, as RFC 9881 asks. Keys of messages live in ``keys.py``;
the two kinds never mix.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.x509.oid import SignatureAlgorithmOID

from latticeward.crypto.authentication import ML_DSA_65, ML_DSA_87
from latticeward.crypto.secret_key import SecretKey, require_length
from latticeward.errors import KeyUsageError, MalformedMessageError

SEED_BYTES: Final = 32

MlDsaPrivate = mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
MlDsaPublic = mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey


@dataclass(frozen=True, slots=True)
class MlDsa:
    """One parameter set; the OID of the key is the OID of its signatures."""

    name: str
    private: type[mldsa.MLDSA65PrivateKey] | type[mldsa.MLDSA87PrivateKey]
    public: type[mldsa.MLDSA65PublicKey] | type[mldsa.MLDSA87PublicKey]
    oid: x509.ObjectIdentifier


ALGORITHMS: Final[Mapping[str, MlDsa]] = {
    row.name: row
    for row in (
        MlDsa(ML_DSA_65, mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey, SignatureAlgorithmOID.ML_DSA_65),
        MlDsa(ML_DSA_87, mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey, SignatureAlgorithmOID.ML_DSA_87),
    )
}


class CertificateSigningKey(SecretKey):
    """A private ML-DSA key that signs certificates (root, issuing), certificate requests or status answers."""

    KIND = "certificate"

    __slots__ = ("_key",)

    def __init__(self, algorithm: str, seed: bytes) -> None:
        super().__init__(algorithm, seed)
        self._key = ALGORITHMS[algorithm].private.from_seed_bytes(seed)

    @classmethod
    def generate(cls, algorithm: str) -> Self:
        """A fresh key of ``ml-dsa-65`` or ``ml-dsa-87``."""
        return cls(algorithm, secrets.token_bytes(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes, algorithm: str) -> Self:
        """Rebuild from the 32-byte seed. The same seed fits every parameter set, so the name must come along.

        Raises:
            KeyUsageError: the algorithm is not one of certificates.
            MalformedMessageError: wrong length.
        """
        if algorithm not in ALGORITHMS:
            raise KeyUsageError(f"certificates are not signed with {algorithm!r}")
        require_length(seed, SEED_BYTES, "the seed of a certificate key")
        return cls(algorithm, seed)

    @property
    def public_raw(self) -> bytes:
        """Raw public key: 1952 bytes (65) or 2592 (87)."""
        return self._key.public_key().public_bytes_raw()

    @property
    def key_id(self) -> bytes:
        """SHA-256 of algorithm id and raw public key, 32 bytes."""
        return hashlib.sha256(self.algorithm.encode("ascii") + self.public_raw).digest()

    @property
    def private(self) -> MlDsaPrivate:
        """The library's object; only modules of ``latticeward.crypto`` can do anything with it."""
        return self._key


def load_public(raw: bytes, algorithm: str) -> MlDsaPublic:
    try:
        return ALGORITHMS[algorithm].public.from_public_bytes(raw)
    except ValueError as exc:
        raise MalformedMessageError(f"not a raw {algorithm} public key") from exc
