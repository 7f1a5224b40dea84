"""Sealed protection: the contribution travels as it is, inside the envelope, to one worker that can open it.

It hides the update from everyone but the intake worker, and nothing from that worker. The proof of who may
open is the envelope's (``crypto/envelope.py``); here is only what goes into it.
"""

from latticeward.updates.encoding import EncodedUpdate, FixedPointCodec
from latticeward.updates.ring import RingVector


def protect(encoded: EncodedUpdate, codec: FixedPointCodec) -> bytes:
    """The envelope's plaintext: the ring vector's wire form, ``codec.length_bytes`` bytes.

    Raises:
        LayoutMismatchError: the vector is not of this codec.
    """
    return codec.to_bytes(encoded.vector)


def read_contribution(plaintext: bytes | memoryview, codec: FixedPointCodec) -> RingVector:
    """Read one opened contribution and refuse what no honest device could have made.

    Returns:
        uint32 or uint64, shape (d + 1 + m,), perhaps a read-only view of ``plaintext``.

    Raises:
        LayoutMismatchError: another length.
        NormExceededError: a coordinate or the norm is beyond what the plan allows.
    """
    vector = codec.from_bytes(plaintext)
    codec.validate_ring(vector)
    return vector
