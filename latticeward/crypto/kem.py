"""Encapsulation keys: what content keys are sealed to, hybrid by default, kept as one 32-byte seed.

The seed expands with SHAKE256 into the halves' own seeds, as X-Wing and the concrete hybrid KEM drafts do. How a
message is sealed to a key lives in ``hpke.py``.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Self

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from latticeward.crypto import inner_kem
from latticeward.crypto.points import require_sound_lattice, require_sound_x25519
from latticeward.crypto.public_key import PublicKey
from latticeward.crypto.secret_key import SecretKey, require_length
from latticeward.crypto.suites import KdfAlgorithm, KemAlgorithm, in_benchmark_context
from latticeward.errors import KeyUsageError, MalformedMessageError, UnsupportedSuiteError

SEED_BYTES: Final = 32
_LATTICE_SEED_BYTES: Final = 64
_P384_SCALAR_BYTES: Final = 48

NativePublic = (
    hpke.MLKEM768X25519PublicKey | hpke.MLKEM1024P384PublicKey | mlkem.MLKEM768PublicKey | x25519.X25519PublicKey
)
NativePrivate = (
    hpke.MLKEM768X25519PrivateKey | hpke.MLKEM1024P384PrivateKey | mlkem.MLKEM768PrivateKey | x25519.X25519PrivateKey
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KemParameters:
    """One KEM: its KDF in HPKE, the length of its public key and of its encapsulation, and whether it is a hybrid.

    An experimental KEM is ``outer`` for HPKE, and ``inner`` (a row of ``providers.EXPERIMENTAL``) around the secret
    inside it. Its public and private forms are those of both, the outer one first; see ``inner_kem.py``.
    """

    kdf: KdfAlgorithm
    public_bytes: int
    encapsulation_bytes: int
    is_hybrid: bool
    outer: KemAlgorithm | None = None
    inner: str | None = None
    inner_public_bytes: int = 0
    inner_secret_bytes: int = 0
    inner_ciphertext_bytes: int = 0

    @property
    def is_in_service(self) -> bool:
        """Whether it is a hybrid without experimental parts."""
        return self.is_hybrid and self.inner is None

    @property
    def seed_bytes(self) -> int:
        """Length of the secret form: 32, and the inner KEM's public and secret key where there is one."""
        return SEED_BYTES + self.inner_public_bytes + self.inner_secret_bytes


KEM_PARAMETERS: Final[Mapping[str, KemParameters]] = MappingProxyType(
    {
        KemAlgorithm.MLKEM768_X25519: KemParameters(
            kdf=KdfAlgorithm.HKDF_SHA256, public_bytes=1216, encapsulation_bytes=1120, is_hybrid=True
        ),
        KemAlgorithm.MLKEM1024_P384: KemParameters(
            kdf=KdfAlgorithm.HKDF_SHA384, public_bytes=1665, encapsulation_bytes=1665, is_hybrid=True
        ),
        KemAlgorithm.MLKEM768: KemParameters(
            kdf=KdfAlgorithm.HKDF_SHA256, public_bytes=1184, encapsulation_bytes=1088, is_hybrid=False
        ),
        KemAlgorithm.X25519: KemParameters(
            kdf=KdfAlgorithm.HKDF_SHA256, public_bytes=32, encapsulation_bytes=32, is_hybrid=False
        ),
        KemAlgorithm.MLKEM768_X25519_HQC192: KemParameters(
            kdf=KdfAlgorithm.HKDF_SHA256,
            public_bytes=1216 + 4514,
            encapsulation_bytes=1120,
            is_hybrid=True,
            outer=KemAlgorithm.MLKEM768_X25519,
            inner="hqc-192",
            inner_public_bytes=4514,
            inner_secret_bytes=4602,
            inner_ciphertext_bytes=8978,
        ),
    }
)

# How many bytes at the beginning of a public key are its ML-KEM key.
_LATTICE_BYTES: Final[Mapping[KemAlgorithm, int]] = {
    KemAlgorithm.MLKEM768_X25519: 1184,
    KemAlgorithm.MLKEM1024_P384: 1568,
    KemAlgorithm.MLKEM768: 1184,
    KemAlgorithm.X25519: 0,
}


def kem_parameters(algorithm: str) -> KemParameters:
    """The row of a KEM that may be used here and now.

    Raises:
        UnsupportedSuiteError: unknown, or with one half only or experimental outside ``benchmark_context``.
    """
    row = KEM_PARAMETERS.get(algorithm)
    if row is None:
        raise UnsupportedSuiteError(f"no KEM is called {str(algorithm)[:40]!r}")
    if not row.is_in_service and not in_benchmark_context():
        why = "is experimental" if row.is_hybrid else "has one half only"
        raise UnsupportedSuiteError(f"{algorithm} {why} and is for benchmarks")
    return row


class EncapsulationKey(PublicKey):
    """A public key that content keys are sealed to. Made by ``from_raw`` or by a decapsulation key."""

    __slots__ = ("_native",)

    _algorithm: KemAlgorithm

    def __init__(self, raw: bytes, algorithm: str) -> None:
        row = kem_parameters(algorithm)
        require_length(raw, row.public_bytes, f"a {algorithm} public key")
        super().__init__(raw, KemAlgorithm(algorithm))
        cut = row.public_bytes - row.inner_public_bytes
        try:
            self._native = _load_public(row.outer or self._algorithm, self._raw[:cut])
        except ValueError as error:
            raise MalformedMessageError(f"not a {algorithm} public key") from error

    @classmethod
    def from_raw(cls, raw: bytes, algorithm: str) -> Self:
        """Read a public key from outside.

        Args:
            raw: ML-KEM key, then X25519 key or uncompressed P-384 point: 1216 or 1665 bytes.
            algorithm: id from ``KemAlgorithm``.

        Raises:
            MalformedMessageError: wrong length or not a key.
            KeyUsageError: a half is all zero or of small order.
            UnsupportedSuiteError: see ``kem_parameters``.
        """
        return cls(raw, algorithm)

    @property
    def native(self) -> NativePublic:
        """The library's own object, for ``hpke.py``."""
        return self._native

    @property
    def lattice_raw(self) -> bytes:
        """Its ML-KEM public key, which no other key may have; empty for a KEM without one."""
        return self._raw[: _LATTICE_BYTES[KEM_PARAMETERS[self._algorithm].outer or self._algorithm]]

    @property
    def inner_raw(self) -> bytes:
        """The inner KEM's public key, for ``hpke.py``; empty where there is no inner KEM."""
        row = KEM_PARAMETERS[self._algorithm]
        return self._raw[row.public_bytes - row.inner_public_bytes :]


class DecapsulationKey(SecretKey):
    """A private KEM key, kept as the 32-byte seed of all its halves."""

    KIND = "decapsulation"

    __slots__ = ("_encapsulation_key", "_native")

    def __init__(self, seed: bytes, algorithm: str) -> None:
        row = kem_parameters(algorithm)
        require_length(seed, row.seed_bytes, f"a {algorithm} seed")
        super().__init__(KemAlgorithm(algorithm), seed)
        self._native, raw = _expand(row.outer or KemAlgorithm(algorithm), bytes(seed[:SEED_BYTES]))
        inner = bytes(seed[SEED_BYTES : SEED_BYTES + row.inner_public_bytes])
        self._encapsulation_key = EncapsulationKey(raw + inner, algorithm)

    @classmethod
    def generate(cls, algorithm: str = KemAlgorithm.MLKEM768_X25519) -> Self:
        """A fresh key from the operating system's randomness."""
        inner = kem_parameters(algorithm).inner
        pair = b"".join(inner_kem.generate(inner)) if inner else b""
        return cls(secrets.token_bytes(SEED_BYTES) + pair, algorithm)

    @classmethod
    def from_seed(cls, seed: bytes, algorithm: str = KemAlgorithm.MLKEM768_X25519) -> Self:
        """The key of a stored seed.

        Args:
            seed: 32 bytes; longer for an experimental KEM, see ``KemParameters``.
            algorithm: id from ``KemAlgorithm``; must be the one that the seed was made for.

        Raises:
            MalformedMessageError: another length.
            KeyUsageError: the seed expands to a scalar out of range (one in 2^190): draw another.
            UnsupportedSuiteError: see ``kem_parameters``.
        """
        return cls(seed, algorithm)

    @property
    def encapsulation_key(self) -> EncapsulationKey:
        """The public key."""
        return self._encapsulation_key

    @property
    def native(self) -> NativePrivate:
        """The library's own object, for ``hpke.py``."""
        return self._native

    @property
    def inner_secret(self) -> bytes:
        """The inner KEM's secret key, for ``hpke.py``; empty where there is no inner KEM."""
        return bytes(self._seed[SEED_BYTES + KEM_PARAMETERS[self._algorithm].inner_public_bytes :])


def _load_public(algorithm: KemAlgorithm, raw: bytes) -> NativePublic:
    match algorithm:
        case KemAlgorithm.MLKEM768_X25519:
            require_sound_lattice(raw[:1184])
            require_sound_x25519(raw[1184:])
            return hpke.MLKEM768X25519PublicKey(
                mlkem.MLKEM768PublicKey.from_public_bytes(raw[:1184]),
                x25519.X25519PublicKey.from_public_bytes(raw[1184:]),
            )
        case KemAlgorithm.MLKEM1024_P384:
            require_sound_lattice(raw[:1568])
            return hpke.MLKEM1024P384PublicKey(
                mlkem.MLKEM1024PublicKey.from_public_bytes(raw[:1568]),
                ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), raw[1568:]),
            )
        case KemAlgorithm.MLKEM768:
            require_sound_lattice(raw)
            return mlkem.MLKEM768PublicKey.from_public_bytes(raw)
        case KemAlgorithm.X25519:
            require_sound_x25519(raw)
            return x25519.X25519PublicKey.from_public_bytes(raw)
    raise AssertionError(f"{algorithm} is no KEM of HPKE")


def _expand(algorithm: KemAlgorithm, seed: bytes) -> tuple[NativePrivate, bytes]:
    """The private key of a seed and its raw public key."""
    match algorithm:
        case KemAlgorithm.MLKEM768_X25519:
            wide = hashlib.shake_256(seed).digest(_LATTICE_SEED_BYTES + 32)
            lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(wide[:_LATTICE_SEED_BYTES])
            curve = x25519.X25519PrivateKey.from_private_bytes(wide[_LATTICE_SEED_BYTES:])
            raw = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
            return hpke.MLKEM768X25519PrivateKey(lattice, curve), raw
        case KemAlgorithm.MLKEM1024_P384:
            wide = hashlib.shake_256(seed).digest(_LATTICE_SEED_BYTES + _P384_SCALAR_BYTES)
            large = mlkem.MLKEM1024PrivateKey.from_seed_bytes(wide[:_LATTICE_SEED_BYTES])
            try:
                scalar = int.from_bytes(wide[_LATTICE_SEED_BYTES:], "big")
                p384 = ec.derive_private_key(scalar, ec.SECP384R1())
            except ValueError as error:
                raise KeyUsageError("the seed expands to a P-384 scalar out of range: draw another") from error
            point = p384.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return hpke.MLKEM1024P384PrivateKey(large, p384), large.public_key().public_bytes_raw() + point
        case KemAlgorithm.MLKEM768:
            wide = hashlib.shake_256(seed).digest(_LATTICE_SEED_BYTES)
            alone = mlkem.MLKEM768PrivateKey.from_seed_bytes(wide)
            return alone, alone.public_key().public_bytes_raw()
        case KemAlgorithm.X25519:
            key = x25519.X25519PrivateKey.from_private_bytes(seed)
            return key, key.public_key().public_bytes_raw()
    raise AssertionError(f"{algorithm} is no KEM of HPKE")
