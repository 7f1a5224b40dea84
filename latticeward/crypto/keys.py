"""The key classes of the product, in one place to import them from; each kind has one role and a file of its own.

A private key is kept as its seed and bound to its algorithm; a public key is read with every check that its kind
needs. A key's id is SHA-256 of algorithm id and raw public key, never a row's id.
"""

from latticeward.crypto.authentication import (
    AuthenticationSigningKey,
    AuthenticationVerifyKey,
    ClassicalSigningKey,
    ClassicalVerifyKey,
)
from latticeward.crypto.composite import CompositeSigningKey, CompositeVerifyKey
from latticeward.crypto.kem import DecapsulationKey, EncapsulationKey
from latticeward.crypto.public_key import speakable
from latticeward.crypto.secret_key import SecretKey

__all__ = [
    "AuthenticationSigningKey",
    "AuthenticationVerifyKey",
    "ClassicalSigningKey",
    "ClassicalVerifyKey",
    "CompositeSigningKey",
    "CompositeVerifyKey",
    "DecapsulationKey",
    "EncapsulationKey",
    "SecretKey",
    "speakable",
]
