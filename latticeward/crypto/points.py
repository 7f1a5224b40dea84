"""Public keys that are well formed and worthless: all zero, or points of small order.

A secret agreed with a point of small order, or encapsulated to an all-zero lattice key, is known to everyone; a
signature under such an Ed25519 key can be made by everyone. The hybrid would still hold by its other half, and that is
not what it was sold as. The library refuses the first at use; here all are refused when the key is read.
"""

from typing import Final

from latticeward.errors import KeyUsageError, MalformedMessageError

_P: Final = 2**255 - 19
_Q: Final = 3329  # of ML-KEM
_SEED_BYTES: Final = 32  # rho, which ends an ML-KEM public key
_MASK: Final = 2**255 - 1

# All encodings of x-coordinates of small order on Curve25519 and its twist, top bit cleared (the curve ignores it).
_X25519_SMALL: Final = frozenset(
    (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
        _P,
        _P + 1,
    )
)
# All y-coordinates of small order on edwards25519, sign bit cleared.
_ED25519_SMALL: Final = frozenset(
    (
        0,
        1,
        _P - 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    )
)


def require_sound_x25519(raw: bytes) -> None:
    """Refuse an X25519 public key (32 bytes) of small order.

    Raises:
        KeyUsageError
    """
    if int.from_bytes(raw, "little") & _MASK in _X25519_SMALL:
        raise KeyUsageError("an X25519 public key of small order")


def require_sound_ed25519(raw: bytes) -> None:
    """Refuse an Ed25519 public key (32 bytes) of small order, or with a second spelling of its coordinate.

    Raises:
        KeyUsageError
    """
    coordinate = int.from_bytes(raw, "little") & _MASK
    if coordinate >= _P or coordinate in _ED25519_SMALL:
        raise KeyUsageError("an Ed25519 public key of small order or not in its only encoding")


def require_sound_lattice(raw: bytes) -> None:
    """Refuse an ML-KEM or ML-DSA public key of zeros only.

    Raises:
        KeyUsageError
    """
    if not any(raw):
        raise KeyUsageError("a lattice public key of zeros only")


def require_reduced(raw: bytes) -> None:
    """Refuse an ML-KEM public key with a coefficient of 3329 or more: the modulus check of FIPS 203, section 7.2.

    Args:
        raw: coefficients of 12 bits, two in three bytes, then 32 bytes of seed.

    Raises:
        MalformedMessageError
    """
    for place in range(0, len(raw) - _SEED_BYTES, 3):
        pair = int.from_bytes(raw[place : place + 3], "little")
        if pair & 0xFFF >= _Q or pair >> 12 >= _Q:
            raise MalformedMessageError("an ML-KEM public key with a coefficient that is not reduced modulo 3329")
