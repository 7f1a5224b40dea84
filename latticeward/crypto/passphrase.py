"""A secret under a passphrase: the form in which root and trust anchor leave the service for a safe.

The passphrase becomes a key by scrypt (RFC 7914) with N = 2^17, r = 8, p = 1, which needs 128 MiB and about half a
second a guess; the key wraps by AES-256-GCM. The library's own password format for private keys is not used: it
stretches with 2,048 rounds of PBKDF2 only.
"""

import secrets
from typing import Final

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.wrapping import unwrap_secret, wrap_secret
from latticeward.errors import KeyUsageError

_COST: Final = 2**17
_SALT_BYTES: Final = 16
_LIMIT_BYTES: Final = 65_536
LEAST_PASSPHRASE_CHARS: Final = 12


def lock(secret: bytes, *, passphrase: str, label: str) -> bytes:
    """Put a secret under a passphrase.

    Args:
        secret: at most 60 kB.
        passphrase: 12 characters or more.
        label: what it is; bound, shown in the clear.

    Returns:
        Canonical CBOR.

    Raises:
        KeyUsageError: the passphrase is too short to protect a root.
    """
    if len(passphrase) < LEAST_PASSPHRASE_CHARS:
        raise KeyUsageError(f"a passphrase needs {LEAST_PASSPHRASE_CHARS} characters or more")
    salt = secrets.token_bytes(_SALT_BYTES)
    wrapped = wrap_secret(secret, key=_stretch(passphrase, salt), associated_data=_bound(label))
    return canonical.encode({"type": "locked-secret", "v": 1, "label": label, "salt": salt, "wrapped": wrapped})


def unlock(raw: bytes, *, passphrase: str, label: str) -> bytes:
    """Take a secret out again.

    Raises:
        DecryptionError: wrong passphrase, wrong label or changed bytes.
        MalformedMessageError, MessageTooLargeError: not what ``lock`` makes.
    """
    fields = Fields(canonical.decode(raw, limit_bytes=_LIMIT_BYTES), "locked-secret")
    fields.text("type")
    fields.integer("v", 1, 1)
    fields.text("label")
    salt, wrapped = fields.bytes("salt", _SALT_BYTES), fields.bytes("wrapped")
    fields.end()
    return unwrap_secret(wrapped, key=_stretch(passphrase, salt), associated_data=_bound(label))


def _stretch(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(passphrase.encode())


def _bound(label: str) -> bytes:
    return canonical.encode(["latticeward/locked-secret/v1", label])
