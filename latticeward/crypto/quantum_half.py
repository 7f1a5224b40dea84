"""The post-quantum half of a composite signature: ML-DSA, or an experimental scheme of an optional provider.

Used by ``composite.py`` only, by one set of functions like those of ``classical_half.py``. ``None`` stands for a half
that is left out, which is for benchmarks. ML-DSA keys are kept as their seeds (FIPS 204); providers have no common seed
form, so an experimental key is kept as public key and expanded secret key, in this order, and is good for the provider
that made it only: two of them may expand one algorithm's key differently.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa

from latticeward.crypto.points import require_sound_lattice
from latticeward.crypto.provider_adapters import SignatureScheme
from latticeward.errors import InvalidSignatureError, MalformedMessageError


@dataclass(frozen=True, slots=True)
class ProviderPublic:
    """A public key of an experimental scheme."""

    scheme: str
    raw: bytes


@dataclass(frozen=True, slots=True, repr=False)
class ProviderPrivate:
    """A private key of an experimental scheme, in its provider's expanded form."""

    public: ProviderPublic
    secret: bytes


QuantumPublic = mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey | ProviderPublic
QuantumPrivate = mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey | ProviderPrivate


@dataclass(frozen=True, slots=True)
class HalfSizes:
    """Bytes of the secret form, of the public key and of a signature, each a fixed length."""

    secret: int
    public: int
    signature: int


SIZES: Final[Mapping[str | None, HalfSizes]] = MappingProxyType(
    {
        None: HalfSizes(0, 0, 0),
        "ml-dsa-65": HalfSizes(32, 1952, 3309),
        "ml-dsa-87": HalfSizes(32, 2592, 4627),
        "falcon-512": HalfSizes(897 + 1281, 897, 666),
        "falcon-1024": HalfSizes(1793 + 2305, 1793, 1280),
        "slh-dsa-sha2-128f": HalfSizes(32 + 64, 32, 17_088),
    }
)
_FROM_SEED: Final[Mapping[str, Callable[[bytes], QuantumPrivate]]] = {
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.from_seed_bytes,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.from_seed_bytes,
}
_FROM_RAW: Final[Mapping[str, Callable[[bytes], QuantumPublic]]] = {
    "ml-dsa-65": mldsa.MLDSA65PublicKey.from_public_bytes,
    "ml-dsa-87": mldsa.MLDSA87PublicKey.from_public_bytes,
}


def new_secret(kind: str | None) -> bytes:
    """A fresh secret form.

    Raises:
        UnsupportedSuiteError: the scheme's provider is not installed; the message says how to install it.
    """
    if kind is None:
        return b""
    if kind in _FROM_SEED:
        return secrets.token_bytes(SIZES[kind].secret)
    public, secret = _scheme(kind).generate()
    return public + secret


def load_secret(kind: str | None, raw: bytes) -> QuantumPrivate | None:
    """Read a secret form of ``SIZES[kind].secret`` bytes."""
    if kind is None:
        return None
    if kind in _FROM_SEED:
        return _FROM_SEED[kind](raw)
    cut = SIZES[kind].public
    return ProviderPrivate(ProviderPublic(kind, raw[:cut]), raw[cut:])


def load_public(kind: str | None, raw: bytes) -> QuantumPublic | None:
    """Read and check a public key of ``SIZES[kind].public`` bytes.

    Raises:
        MalformedMessageError: not a key.
        KeyUsageError: zeros only.
    """
    if kind is None:
        return None
    require_sound_lattice(raw)
    if kind not in _FROM_RAW:
        return ProviderPublic(kind, raw)
    try:
        return _FROM_RAW[kind](raw)
    except ValueError as error:
        raise MalformedMessageError("not an ML-DSA public key") from error


def public_of(key: QuantumPrivate | None) -> bytes:
    """The public form of a private key."""
    match key:
        case None:
            return b""
        case ProviderPrivate():
            return key.public.raw
        case _:
            return key.public_key().public_bytes_raw()


def sign(key: QuantumPrivate | None, representative: bytes, *, label: bytes) -> bytes:
    """A signature of the scheme's fixed length. ML-DSA takes ``label`` as its context; the others read it in the
    representative, which begins with it, since no provider offers contexts for all of them."""
    match key:
        case None:
            return b""
        case ProviderPrivate():
            return _scheme(key.public.scheme).sign(key.secret, representative)
        case _:
            return key.sign(representative, context=label)


def verify(key: QuantumPublic | None, signature: bytes, representative: bytes, *, label: bytes) -> None:
    """Check this half of a signature.

    Raises:
        InvalidSignature: of the library; ``composite.py`` checks the other half too before it says anything.
    """
    try:
        match key:
            case None:
                pass
            case ProviderPublic():
                _scheme(key.scheme).verify(key.raw, representative, signature)
            case _:
                key.verify(signature, representative, context=label)
    except (InvalidSignatureError, ValueError) as error:
        raise InvalidSignature from error


def _scheme(kind: str) -> SignatureScheme:
    # Imported here: a process that never sees an experimental suite loads no provider and does not look for one.
    from latticeward.crypto.providers import signature_scheme

    return signature_scheme(kind)
