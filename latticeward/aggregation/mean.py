"""The weighted mean: the only rule that needs no more than the sum.

Weights are the hospitals' examples, each capped by the plan, and travel inside the sum
(``updates/encoding.py``); so neither the mean nor its weights require a look at any one update. It resists no
poisoning beyond the clip norm.
"""

from latticeward.updates.encoding import DecodedSum, FixedPointCodec
from latticeward.updates.ring import RingVector


def aggregate_sum(ring_sum: RingVector, codec: FixedPointCodec) -> DecodedSum:
    """The mean update of a round from the sum of its contributions.

    Args:
        ring_sum: uint32 or uint64, shape (d + 1 + m,).

    Raises:
        LayoutMismatchError, NormExceededError, NonFiniteUpdateError: as ``FixedPointCodec.decode_sum``.
    """
    return codec.decode_sum(ring_sum)
