"""Secrets at rest: wrap a key under a key, bound to where it belongs, and derive labelled keys from one secret."""

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from latticeward.errors import DecryptionError, KeyUsageError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_HKDF_LIMIT_BYTES: Final = 255 * 32


def new_key() -> bytes:
    """A fresh 32-byte key from the operating system's randomness."""
    return secrets.token_bytes(KEY_BYTES)


def wrap_secret(secret: bytes, *, key: bytes, associated_data: bytes) -> bytes:
    """Encrypt a secret with AES-256-GCM under a random nonce.

    One key may wrap 2^32 times (NIST SP 800-38D, random nonces). GCM does not commit to its key, so a wrapped secret
    is opened with the one key that its record names, never with several in turn.

    Args:
        secret: any length up to 64 GiB; in practice a seed or a sealed row.
        key: 32 bytes.
        associated_data: what the secret belongs to (record, purpose, version), so that rows cannot be swapped.

    Returns:
        Nonce (12 bytes), ciphertext, tag (16 bytes).

    Raises:
        KeyUsageError: the key is not 32 bytes.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + _cipher(key).encrypt(nonce, secret, associated_data)


def unwrap_secret(wrapped: bytes | memoryview, *, key: bytes, associated_data: bytes) -> bytes:
    """Open what ``wrap_secret`` made.

    Raises:
        DecryptionError: another key, other associated data, or changed bytes.
        KeyUsageError: the key is not 32 bytes.
    """
    cipher = _cipher(key)
    if len(wrapped) < NONCE_BYTES + TAG_BYTES:
        raise DecryptionError("a wrapped secret did not open")
    try:
        return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], associated_data)
    except InvalidTag:
        raise DecryptionError("a wrapped secret did not open") from None


def wrap_bulk(secret: memoryview, *, key: bytes, associated_data: bytes) -> bytearray:
    """``wrap_secret`` for what is as large as a model: the same form, written once and copied nowhere.

    Args:
        secret: contiguous bytes.
    """
    nonce, wrapped = secrets.token_bytes(NONCE_BYTES), bytearray(NONCE_BYTES + len(secret) + TAG_BYTES)
    wrapped[:NONCE_BYTES] = nonce
    with memoryview(wrapped) as view:
        _cipher(key).encrypt_into(nonce, secret, associated_data, view[NONCE_BYTES:])
    return wrapped


def unwrap_bulk(wrapped: memoryview, target: memoryview, *, key: bytes, associated_data: bytes) -> None:
    """``unwrap_secret`` into memory of the caller's, of exactly the secret's length.

    Raises:
        DecryptionError: as there, or another length; ``target`` then holds nothing to be believed.
    """
    cipher = _cipher(key)
    if len(wrapped) != NONCE_BYTES + len(target) + TAG_BYTES:
        raise DecryptionError("a wrapped secret did not open")
    try:
        cipher.decrypt_into(bytes(wrapped[:NONCE_BYTES]), wrapped[NONCE_BYTES:], associated_data, target)
    except InvalidTag:
        raise DecryptionError("a wrapped secret did not open") from None


def derive_key(secret: bytes, *, label: str, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 with an empty salt: independent keys from one secret, told apart by their labels.

    Args:
        secret: high-entropy input, 16 bytes or more; not a password.
        label: what the key is for, with a version; never empty.
        length: 1 to 8160 bytes.

    Raises:
        KeyUsageError: the secret is too short to be a key, the label is empty, or the length is out of range.
    """
    if len(secret) < 16 or not label or not 1 <= length <= _HKDF_LIMIT_BYTES:
        raise KeyUsageError("a derived key needs 16 bytes of secret, a label, and a length of 1 to 8160 bytes")
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=label.encode()).derive(secret)


def _cipher(key: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise KeyUsageError("a wrapping key has 32 bytes")
    return AESGCM(key)
