"""The classical half of a composite signature: Ed25519, or ECDSA on P-384 with SHA-384, by one set of functions.

Used by ``composite.py`` only: a half is never used apart from the other. ``None`` stands for a half that is left out,
which is for benchmarks.
"""

import secrets
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from latticeward.crypto.points import require_sound_ed25519
from latticeward.errors import MalformedMessageError

ClassicalPublic = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
ClassicalPrivate = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

SECRET_BYTES: Final = {"ed25519": 32, "p384": 64, None: 0}
PUBLIC_BYTES: Final = {"ed25519": 32, "p384": 97, None: 0}
SIGNATURE_LIMIT_BYTES: Final = {"ed25519": 64, "p384": 104, None: 0}
# ECPrivateKey (RFC 5915) with the named curve and without the public key: everything but the scalar is constant.
_P384_OPEN, _P384_CLOSE = bytes.fromhex("303e0201010430"), bytes.fromhex("a00706052b81040022")


def load_public(kind: str | None, raw: bytes) -> ClassicalPublic | None:
    """Read and check a public key: 32 bytes, or an uncompressed point of 97.

    Raises:
        MalformedMessageError: not a key.
        KeyUsageError: a point of small order.
    """
    try:
        match kind:
            case None:
                return None
            case "ed25519":
                require_sound_ed25519(raw)
                return ed25519.Ed25519PublicKey.from_public_bytes(raw)
            case _:
                return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), raw)
    except ValueError as error:
        raise MalformedMessageError("the classical half is not a public key") from error


def sign(key: ClassicalPrivate | None, representative: bytes) -> bytes:
    """Ed25519: 64 bytes. ECDSA with SHA-384: DER, at most 104 bytes."""
    match key:
        case None:
            return b""
        case ed25519.Ed25519PrivateKey():
            return key.sign(representative)
        case _:
            return key.sign(representative, ec.ECDSA(hashes.SHA384()))


def verify(key: ClassicalPublic | None, signature: bytes, representative: bytes) -> None:
    """Check the classical half of a signature, to its last byte.

    Raises:
        InvalidSignature: of the library; ``composite.py`` checks the other half too before it says anything.
    """
    match key:
        case None:
            if signature:
                raise InvalidSignature
        case ed25519.Ed25519PublicKey():
            key.verify(signature, representative)
        case _:
            # DER read and written again must be the same bytes: nothing trails, and there is one spelling.
            try:
                written_again = encode_dss_signature(*decode_dss_signature(signature))
            except ValueError as error:
                raise InvalidSignature from error
            if written_again != signature:
                raise InvalidSignature
            key.verify(signature, representative, ec.ECDSA(hashes.SHA384()))


def new_secret(kind: str | None) -> bytes:
    """A fresh secret form from the operating system's randomness."""
    match kind:
        case None:
            return b""
        case "ed25519":
            return secrets.token_bytes(32)
        case _:
            scalar = ec.generate_private_key(ec.SECP384R1()).private_numbers().private_value
            return _P384_OPEN + scalar.to_bytes(48, "big") + _P384_CLOSE


def load_secret(kind: str | None, raw: bytes) -> ClassicalPrivate | None:
    """Read a secret form: raw Ed25519 key, or ECPrivateKey of P-384 without its public part.

    Raises:
        MalformedMessageError: another frame, or a scalar out of range.
    """
    match kind:
        case None:
            return None
        case "ed25519":
            return ed25519.Ed25519PrivateKey.from_private_bytes(raw)
        case _:
            if not (raw.startswith(_P384_OPEN) and raw.endswith(_P384_CLOSE)):
                raise MalformedMessageError("the P-384 half is not an ECPrivateKey without its public part")
            try:
                scalar = int.from_bytes(raw[len(_P384_OPEN) : -len(_P384_CLOSE)], "big")
                return ec.derive_private_key(scalar, ec.SECP384R1())
            except ValueError as error:
                raise MalformedMessageError("the P-384 scalar is out of range") from error


def public_of(key: ClassicalPrivate | None) -> bytes:
    """The public form of a private key."""
    match key:
        case None:
            return b""
        case ed25519.Ed25519PrivateKey():
            return key.public_key().public_bytes_raw()
        case _:
            return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
