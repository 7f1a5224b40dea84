"""Seal a short secret to one public key: HPKE base mode (RFC 9180) over the KEM of the key, AES-256-GCM inside.

The library's HPKE is single shot and has no public associated data, so whatever must be bound stands in ``info``.
Base mode does not say who sealed: a signature beside it must.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke

from latticeward.crypto.kem import DecapsulationKey, EncapsulationKey, kem_parameters
from latticeward.crypto.suites import KdfAlgorithm, KemAlgorithm
from latticeward.errors import DecryptionError, MessageTooLargeError

INFO_LIMIT_BYTES: Final = 65_535
TAG_BYTES: Final = 16

_KEMS: Final = {
    KemAlgorithm.MLKEM768_X25519: hpke.KEM.MLKEM768_X25519,
    KemAlgorithm.MLKEM1024_P384: hpke.KEM.MLKEM1024_P384,
    KemAlgorithm.MLKEM768: hpke.KEM.MLKEM768,
    KemAlgorithm.X25519: hpke.KEM.X25519,
}
# The KDFs of RFC 9180. The SHAKE ones have another key schedule, of a draft that still moves.
_KDFS: Final = {
    KdfAlgorithm.HKDF_SHA256: hpke.KDF.HKDF_SHA256,
    KdfAlgorithm.HKDF_SHA384: hpke.KDF.HKDF_SHA384,
}
_SUITES: Final[dict[str, hpke.Suite]] = {}


def hpke_seal(plaintext: bytes, *, key: EncapsulationKey, info: bytes) -> bytes:
    """Seal a secret so that only the holder of the private key opens it, under the same ``info``.

    Args:
        plaintext: a key or a challenge, any length.
        key: of the recipient.
        info: everything that the ciphertext must be bound to, at most 65,535 bytes.

    Returns:
        Encapsulation and ciphertext in one: ``encapsulation_bytes`` of the KEM plus the plaintext plus 16.

    Raises:
        MessageTooLargeError: ``info`` is too long.
        UnsupportedSuiteError: a benchmark KEM outside ``benchmark_context``.
    """
    return _suite(key.algorithm, info).encrypt(plaintext, key.native, info=info)


def hpke_open(ciphertext: bytes, *, key: DecapsulationKey, info: bytes) -> bytes:
    """Open what ``hpke_seal`` made. ML-KEM never says that a ciphertext was forged: the tag inside is the only signal.

    Raises:
        DecryptionError: for every cause, without detail.
        MessageTooLargeError: ``info`` is too long.
        UnsupportedSuiteError: a benchmark KEM outside ``benchmark_context``.
    """
    suite = _suite(key.algorithm, info)
    try:
        return suite.decrypt(ciphertext, key.native, info=info)
    except (InvalidTag, ValueError):
        raise DecryptionError("a sealed secret did not open") from None


def sealed_bytes(algorithm: str, plaintext_bytes: int) -> int:
    """Length of what ``hpke_seal`` returns."""
    return kem_parameters(algorithm).encapsulation_bytes + plaintext_bytes + TAG_BYTES


def _suite(algorithm: str, info: bytes) -> hpke.Suite:
    row = kem_parameters(algorithm)
    if len(info) > INFO_LIMIT_BYTES:
        raise MessageTooLargeError(f"HPKE info of {len(info)} bytes, at most {INFO_LIMIT_BYTES}")
    suite = _SUITES.get(algorithm)
    if suite is None:
        suite = hpke.Suite(_KEMS[KemAlgorithm(algorithm)], _KDFS[row.kdf], hpke.AEAD.AES_256_GCM)
        _SUITES[algorithm] = suite
    return suite
