"""Seal a short secret to one public key: HPKE base mode (RFC 9180) over the KEM of the key, AES-256-GCM inside.

The library's HPKE is single shot and has no public associated data, so whatever must be bound stands in ``info``.
Base mode does not say who sealed: a signature beside it must.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke

from latticeward.crypto import inner_kem
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
        Encapsulation and ciphertext in one, ``sealed_bytes`` long: for the KEMs in service ``encapsulation_bytes``, the
        plaintext and 16.

    Raises:
        MessageTooLargeError: ``info`` is too long.
        UnsupportedSuiteError: a benchmark KEM outside ``benchmark_context``.
    """
    suite, row = _suite(key.algorithm, info), kem_parameters(key.algorithm)
    if row.inner:
        plaintext = inner_kem.wrap(plaintext, kem=row.inner, public_key=key.inner_raw, info=info)
    return suite.encrypt(plaintext, key.native, info=info)


def hpke_open(ciphertext: bytes, *, key: DecapsulationKey, info: bytes) -> bytes:
    """Open what ``hpke_seal`` made. ML-KEM never says that a ciphertext was forged: the tag inside is the only signal.

    Raises:
        DecryptionError: for every cause, without detail.
        MessageTooLargeError: ``info`` is too long.
        UnsupportedSuiteError: a benchmark KEM outside ``benchmark_context``.
    """
    suite, row = _suite(key.algorithm, info), kem_parameters(key.algorithm)
    try:
        opened = suite.decrypt(ciphertext, key.native, info=info)
    except (InvalidTag, ValueError):
        raise DecryptionError("a sealed secret did not open") from None
    if row.inner is None:
        return opened
    return inner_kem.unwrap(
        opened, kem=row.inner, secret_key=key.inner_secret, ciphertext_bytes=row.inner_ciphertext_bytes, info=info
    )


def sealed_bytes(algorithm: str, plaintext_bytes: int) -> int:
    """Length of what ``hpke_seal`` returns."""
    row = kem_parameters(algorithm)
    inner = row.inner_ciphertext_bytes + inner_kem.TAG_BYTES if row.inner else 0
    return row.encapsulation_bytes + inner + plaintext_bytes + TAG_BYTES


def _suite(algorithm: str, info: bytes) -> hpke.Suite:
    row = kem_parameters(algorithm)
    if len(info) > INFO_LIMIT_BYTES:
        raise MessageTooLargeError(f"HPKE info of {len(info)} bytes, at most {INFO_LIMIT_BYTES}")
    suite = _SUITES.get(algorithm)
    if suite is None:
        suite = hpke.Suite(_KEMS[row.outer or KemAlgorithm(algorithm)], _KDFS[row.kdf], hpke.AEAD.AES_256_GCM)
        _SUITES[algorithm] = suite
    return suite
