"""The library's own calls under an envelope, with nothing of ours around them: the floor of what sealing can cost."""

import os
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519

_REPRESENTATIVE_BYTES: Final = 147
_LATTICE_BYTES: Final = 1184


class NativeCalls:
    """Keys of the suite ``hybrid``, read beforehand, and the calls that an envelope makes with them."""

    def __init__(self) -> None:
        self._message = os.urandom(_REPRESENTATIVE_BYTES)
        self._lattice_signer, self._curve_signer = (
            mldsa.MLDSA65PrivateKey.generate(),
            ed25519.Ed25519PrivateKey.generate(),
        )
        self._lattice_verifier, self._curve_verifier = (
            self._lattice_signer.public_key(),
            self._curve_signer.public_key(),
        )
        self._signatures = self._lattice_signer.sign(self._message), self._curve_signer.sign(self._message)
        self._kem, self._curve = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
        self._public = self._kem.public_key(), self._curve.public_key()
        self._encapsulated = self._public[0].encapsulate()[1], x25519.X25519PrivateKey.generate().public_key()

    def sign(self) -> None:
        """Both halves of a composite signature."""
        self._lattice_signer.sign(self._message)
        self._curve_signer.sign(self._message)

    def verify(self) -> None:
        """Both halves of a composite signature."""
        self._lattice_verifier.verify(self._signatures[0], self._message)
        self._curve_verifier.verify(self._signatures[1], self._message)

    def encapsulate(self) -> None:
        """Both halves of the hybrid KEM."""
        _encapsulate(*self._public)

    def decapsulate(self) -> None:
        """Both halves of the hybrid KEM."""
        self._kem.decapsulate(self._encapsulated[0])
        self._curve.exchange(self._encapsulated[1])


def encapsulate_bare(raw: bytes) -> None:
    """Read a public key of 1216 bytes and make one shared secret for each half; no key schedule and no AEAD."""
    kem = mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_LATTICE_BYTES])
    _encapsulate(kem, x25519.X25519PublicKey.from_public_bytes(raw[_LATTICE_BYTES:]))


def _encapsulate(kem: mlkem.MLKEM768PublicKey, curve: x25519.X25519PublicKey) -> None:
    kem.encapsulate()
    fresh = x25519.X25519PrivateKey.generate()
    fresh.public_key().public_bytes_raw()
    fresh.exchange(curve)
