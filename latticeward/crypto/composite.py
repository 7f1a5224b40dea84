"""Composite signature keys: ML-DSA and a classical scheme as one, after draft-ietf-lamps-pq-composite-sigs-19.

What is signed is a representative: the prefix, the algorithm's label, the context with its length, and the SHA-512 of
the message. Both halves sign the same representative, ML-DSA with the label as its own context, so that neither half
can be cut out and used alone. A signature is good only if both halves are. Which contexts exist is decided in
``signing.py``, whose functions are the only ones that the rest of the product calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Self

from cryptography.exceptions import InvalidSignature

from latticeward.crypto import classical_half, quantum_half
from latticeward.crypto.public_key import PublicKey
from latticeward.crypto.secret_key import SecretKey, require_length
from latticeward.crypto.suites import SignatureAlgorithm, in_benchmark_context
from latticeward.errors import InvalidSignatureError, KeyUsageError, UnsupportedSuiteError

PREHASH_BYTES: Final = 64
CONTEXT_LIMIT_BYTES: Final = 255
_PREFIX: Final = b"CompositeAlgorithmSignatures2025"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeParameters:
    """One algorithm: ``quantum`` is the post-quantum half, ``classical`` the other; None where a half is left out.

    Algorithms with one half, and those that no draft registers (no ``oid``), work in ``benchmark_context`` only.
    """

    label: bytes
    oid: str
    quantum: str | None
    classical: str | None

    @property
    def is_hybrid(self) -> bool:
        """Whether both halves are there."""
        return self.quantum is not None and self.classical is not None

    @property
    def is_in_service(self) -> bool:
        """Whether both halves are there and the draft registers the pair."""
        return self.is_hybrid and bool(self.oid)

    @property
    def seed_bytes(self) -> int:
        """Length of the secret form: ML-DSA seed, then the classical secret key."""
        return quantum_half.SIZES[self.quantum].secret + classical_half.SECRET_BYTES[self.classical]

    @property
    def public_bytes(self) -> int:
        """Length of the public form: ML-DSA key, then the classical one."""
        return quantum_half.SIZES[self.quantum].public + classical_half.PUBLIC_BYTES[self.classical]

    @property
    def signature_limit_bytes(self) -> int:
        """The longest signature."""
        return quantum_half.SIZES[self.quantum].signature + classical_half.SIGNATURE_LIMIT_BYTES[self.classical]


# The long labels of the draft's text; a label file in the draft's repository holds shorter ones, which do not verify.
PARAMETERS: Final[Mapping[str, CompositeParameters]] = MappingProxyType(
    {
        SignatureAlgorithm.MLDSA65_ED25519: CompositeParameters(
            label=b"COMPSIG-MLDSA65-Ed25519-SHA512", oid="1.3.6.1.5.5.7.6.48", quantum="ml-dsa-65", classical="ed25519"
        ),
        SignatureAlgorithm.MLDSA65_P384: CompositeParameters(
            label=b"COMPSIG-MLDSA65-ECDSA-P384-SHA512", oid="1.3.6.1.5.5.7.6.46", quantum="ml-dsa-65", classical="p384"
        ),
        SignatureAlgorithm.MLDSA87_P384: CompositeParameters(
            label=b"COMPSIG-MLDSA87-ECDSA-P384-SHA512", oid="1.3.6.1.5.5.7.6.49", quantum="ml-dsa-87", classical="p384"
        ),
        SignatureAlgorithm.ED25519: CompositeParameters(
            label=b"LATTICEWARD-BENCHMARK-Ed25519-SHA512", oid="", quantum=None, classical="ed25519"
        ),
        SignatureAlgorithm.MLDSA65: CompositeParameters(
            label=b"LATTICEWARD-BENCHMARK-MLDSA65-SHA512", oid="", quantum="ml-dsa-65", classical=None
        ),
        SignatureAlgorithm.FALCON512_ED25519: CompositeParameters(
            label=b"LATTICEWARD-EXPERIMENT-Falcon512-Ed25519-SHA512",
            oid="",
            quantum="falcon-512",
            classical="ed25519",
        ),
        SignatureAlgorithm.FALCON1024_P384: CompositeParameters(
            label=b"LATTICEWARD-EXPERIMENT-Falcon1024-P384-SHA512",
            oid="",
            quantum="falcon-1024",
            classical="p384",
        ),
        SignatureAlgorithm.SLHDSA128F_ED25519: CompositeParameters(
            label=b"LATTICEWARD-EXPERIMENT-SLHDSA128f-Ed25519-SHA512",
            oid="",
            quantum="slh-dsa-sha2-128f",
            classical="ed25519",
        ),
    }
)


def composite_parameters(algorithm: str) -> CompositeParameters:
    """The row of an algorithm that may be used here and now.

    Raises:
        UnsupportedSuiteError: unknown, or with one half only or experimental outside ``benchmark_context``.
    """
    row = PARAMETERS.get(algorithm)
    if row is None:
        raise UnsupportedSuiteError(f"no composite signature is called {str(algorithm)[:40]!r}")
    if not row.is_in_service and not in_benchmark_context():
        why = "is experimental" if row.is_hybrid else "has one half only"
        raise UnsupportedSuiteError(f"{algorithm} {why} and is for benchmarks")
    return row


class CompositeVerifyKey(PublicKey):
    """A composite public key. Made by ``from_raw`` or by a signing key."""

    __slots__ = ("_classical", "_quantum")

    _algorithm: SignatureAlgorithm

    def __init__(self, raw: bytes, algorithm: str) -> None:
        row = composite_parameters(algorithm)
        require_length(raw, row.public_bytes, f"a {algorithm} public key")
        super().__init__(raw, SignatureAlgorithm(algorithm))
        cut = quantum_half.SIZES[row.quantum].public
        self._quantum = quantum_half.load_public(row.quantum, self._raw[:cut])
        self._classical = classical_half.load_public(row.classical, self._raw[cut:])

    @classmethod
    def from_raw(cls, raw: bytes, algorithm: str) -> Self:
        """Read a public key from outside.

        Args:
            raw: ML-DSA key, then Ed25519 key (32 bytes) or uncompressed P-384 point (97 bytes).
            algorithm: id from ``SignatureAlgorithm``.

        Raises:
            MalformedMessageError: wrong length or not a key.
            KeyUsageError: a half is all zero or of small order.
            UnsupportedSuiteError: see ``composite_parameters``.
        """
        return cls(raw, algorithm)

    def verify_prehashed(self, signature: bytes, prehash: bytes, *, context: bytes) -> None:
        """Check both halves, always both, and only then say anything.

        Args:
            signature: ML-DSA's fixed length, then the classical half to the last byte.
            prehash: SHA-512 of the message, 64 bytes.
            context: 1 to 255 bytes; empty for the vectors of the draft.

        Raises:
            InvalidSignatureError: either half is wrong, or the length is.
            UnsupportedSuiteError: see ``composite_parameters``.
        """
        row = composite_parameters(self._algorithm)
        representative = make_representative(row, prehash, context)
        cut = quantum_half.SIZES[row.quantum].signature
        failed = len(signature) > row.signature_limit_bytes
        try:
            quantum_half.verify(self._quantum, bytes(signature[:cut]), representative, label=row.label)
        except InvalidSignature:
            failed = True
        try:
            classical_half.verify(self._classical, bytes(signature[cut:]), representative)
        except InvalidSignature:
            failed = True
        if failed:
            raise InvalidSignatureError(f"the composite signature does not hold under key {self._key_id.hex()[:16]}")


class CompositeSigningKey(SecretKey):
    """A composite private key: ML-DSA seed (32 bytes) and the classical secret, never used apart from each other."""

    KIND = "composite-signing"

    __slots__ = ("_classical", "_quantum", "_verify_key")

    def __init__(self, seed: bytes, algorithm: str) -> None:
        row = composite_parameters(algorithm)
        require_length(seed, row.seed_bytes, f"a {algorithm} secret key")
        super().__init__(SignatureAlgorithm(algorithm), seed)
        cut = quantum_half.SIZES[row.quantum].secret
        self._quantum = quantum_half.load_secret(row.quantum, bytes(seed[:cut]))
        self._classical = classical_half.load_secret(row.classical, bytes(seed[cut:]))
        raw = quantum_half.public_of(self._quantum) + classical_half.public_of(self._classical)
        self._verify_key = CompositeVerifyKey(raw, algorithm)

    @classmethod
    def generate(cls, algorithm: str = SignatureAlgorithm.MLDSA65_ED25519) -> Self:
        """A fresh key from the operating system's randomness."""
        row = composite_parameters(algorithm)
        return cls(quantum_half.new_secret(row.quantum) + classical_half.new_secret(row.classical), algorithm)

    @classmethod
    def from_seed(cls, seed: bytes, algorithm: str = SignatureAlgorithm.MLDSA65_ED25519) -> Self:
        """The key of a stored secret form.

        Args:
            seed: ML-DSA seed (32 bytes), then the raw Ed25519 key (32) or the ECPrivateKey of P-384 (64).
            algorithm: id from ``SignatureAlgorithm``; must be the one that the seed was made for.

        Raises:
            MalformedMessageError: wrong length or not a key.
            UnsupportedSuiteError: see ``composite_parameters``.
        """
        return cls(seed, algorithm)

    @property
    def verify_key(self) -> CompositeVerifyKey:
        """The public key."""
        return self._verify_key

    def sign_prehashed(self, prehash: bytes, *, context: bytes) -> bytes:
        """Sign with both halves. Hedged: two signatures of one message differ.

        Args:
            prehash: SHA-512 of the message, 64 bytes.
            context: 1 to 255 bytes.

        Returns:
            At most 3373 (with Ed25519), 3413 or 4731 bytes.
        """
        row = composite_parameters(self._algorithm)
        representative = make_representative(row, prehash, context)
        first = quantum_half.sign(self._quantum, representative, label=row.label)
        return first + classical_half.sign(self._classical, representative)


def make_representative(row: CompositeParameters, prehash: bytes, context: bytes) -> bytes:
    """The bytes that both halves sign (draft 19, section 2.2)."""
    if len(prehash) != PREHASH_BYTES or len(context) > CONTEXT_LIMIT_BYTES:
        raise KeyUsageError("a composite signature takes a 64-byte digest and a context of at most 255 bytes")
    return _PREFIX + row.label + bytes([len(context)]) + context + prehash
