"""A second KEM inside HPKE: what is sealed is first encrypted under an experimental KEM of an optional provider.

``ciphertext | AES-256-GCM(secret)`` of this file becomes the plaintext of ``hpke.py``, so the secret stays sealed while
either of the two holds. The inner key is HKDF-SHA256 of the KEM's shared secret, bound to its ciphertext and to HPKE's
``info``; it is used once, hence the constant nonce.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from latticeward.crypto.provider_adapters import KemScheme
from latticeward.errors import DecryptionError

TAG_BYTES: Final = 16
_LABEL: Final = b"latticeward/inner-kem/v1"
_NONCE: Final = bytes(12)


def generate(kem: str) -> tuple[bytes, bytes]:
    """A fresh pair: public key, expanded secret key.

    Raises:
        UnsupportedSuiteError: the KEM's provider is not installed; the message says how to install it.
    """
    return _scheme(kem).generate()


def wrap(secret: bytes, *, kem: str, public_key: bytes, info: bytes) -> bytes:
    """Encrypt a secret: the KEM's ciphertext, then the secret and 16 bytes of tag.

    Raises:
        UnsupportedSuiteError: as ``generate``.
    """
    shared, ciphertext = _scheme(kem).encapsulate(public_key)
    return ciphertext + AESGCM(_key(shared, ciphertext, info)).encrypt(_NONCE, secret, None)


def unwrap(wrapped: bytes, *, kem: str, secret_key: bytes, ciphertext_bytes: int, info: bytes) -> bytes:
    """Open what ``wrap`` made.

    Raises:
        DecryptionError: for every cause, without detail.
        UnsupportedSuiteError: as ``generate``.
    """
    ciphertext, sealed = wrapped[:ciphertext_bytes], wrapped[ciphertext_bytes:]
    shared = _scheme(kem).decapsulate(secret_key, ciphertext)
    try:
        return AESGCM(_key(shared, ciphertext, info)).decrypt(_NONCE, sealed, None)
    except (InvalidTag, ValueError):
        raise DecryptionError("a sealed secret did not open") from None


def _key(shared: bytes, ciphertext: bytes, info: bytes) -> bytes:
    bound = _LABEL + hashlib.sha256(ciphertext).digest() + hashlib.sha256(info).digest()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=bound).derive(shared)


def _scheme(kem: str) -> KemScheme:
    # Imported here: a process that never sees an experimental suite loads no provider and does not look for one.
    from latticeward.crypto.providers import kem_scheme

    return kem_scheme(kem)
