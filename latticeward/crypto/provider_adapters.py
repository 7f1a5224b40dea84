"""One surface over the optional providers: each one's order of arguments and results ends in this file.

liboqs and pqcrypto give a KEM's ciphertext first and the secret second, ``cryptography`` the other way round; one
returns a boolean where the other raises. Whether a provider is there is found out in ``providers.py``.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from latticeward.errors import DecryptionError, InvalidSignatureError


class SignatureScheme(Protocol):
    """A signature algorithm of a provider; keys are in the provider's own expanded form."""

    def generate(self) -> tuple[bytes, bytes]:
        """A fresh pair: public key, secret key."""

    def sign(self, secret_key: bytes, message: bytes) -> bytes:
        """Sign without a context; the caller puts one into the message."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> None:
        """Raises InvalidSignatureError."""


class KemScheme(Protocol):
    """A KEM of a provider. The secret comes first, as in ``cryptography``, whatever the provider's own order."""

    def generate(self) -> tuple[bytes, bytes]:
        """A fresh pair: public key, secret key."""

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """Shared secret, ciphertext."""

    def decapsulate(self, secret_key: bytes, ciphertext: bytes) -> bytes:
        """The shared secret; a forged ciphertext gives another one, or DecryptionError where its length is wrong."""


class _LiboqsSignature:
    def __init__(self, module: Any, name: str) -> None:
        self._make, self._name = module.Signature, name

    def generate(self) -> tuple[bytes, bytes]:
        with self._make(self._name) as scheme:
            return scheme.generate_keypair(), scheme.export_secret_key()

    def sign(self, secret_key: bytes, message: bytes) -> bytes:
        with self._make(self._name, secret_key) as scheme:
            return bytes(scheme.sign(message))

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> None:
        with self._make(self._name) as scheme:
            if not scheme.verify(message, signature, public_key):
                raise InvalidSignatureError(f"the {self._name} signature does not hold")


class _LiboqsKem:
    def __init__(self, module: Any, name: str) -> None:
        self._make, self._name = module.KeyEncapsulation, name

    def generate(self) -> tuple[bytes, bytes]:
        with self._make(self._name) as scheme:
            return scheme.generate_keypair(), scheme.export_secret_key()

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        with self._make(self._name) as scheme:
            ciphertext, secret = scheme.encap_secret(public_key)
            return secret, ciphertext

    def decapsulate(self, secret_key: bytes, ciphertext: bytes) -> bytes:
        with self._make(self._name, secret_key) as scheme:
            return bytes(scheme.decap_secret(ciphertext))


class _PqcryptoSignature:
    def __init__(self, module: Any, name: str) -> None:
        self._scheme = getattr(module, name)

    def generate(self) -> tuple[bytes, bytes]:
        public_key, secret_key = self._scheme.keygen()
        return public_key, secret_key

    def sign(self, secret_key: bytes, message: bytes) -> bytes:
        return bytes(self._scheme.sign(secret_key, message))

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> None:
        try:
            self._scheme.verify(public_key, message, signature)
        except ValueError as error:
            raise InvalidSignatureError(f"the {self._scheme.ALGORITHM} signature does not hold") from error


class _PqcryptoKem:
    def __init__(self, module: Any, name: str) -> None:
        self._scheme = getattr(module, name)

    def generate(self) -> tuple[bytes, bytes]:
        public_key, secret_key = self._scheme.keygen()
        return public_key, secret_key

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        ciphertext, secret = self._scheme.encaps(public_key)
        return secret, ciphertext

    def decapsulate(self, secret_key: bytes, ciphertext: bytes) -> bytes:
        try:
            return bytes(self._scheme.decaps(secret_key, ciphertext))
        except ValueError as error:
            raise DecryptionError("an experimental ciphertext did not open") from error


SIGNATURE_ADAPTERS: Final[Mapping[str, Callable[[Any, str], SignatureScheme]]] = {
    "liboqs": _LiboqsSignature,
    "pqcrypto": _PqcryptoSignature,
}
KEM_ADAPTERS: Final[Mapping[str, Callable[[Any, str], KemScheme]]] = {
    "liboqs": _LiboqsKem,
    "pqcrypto": _PqcryptoKem,
}
