"""Updates as integers modulo 2^k: sums are exact, the same in any order and grouping, and cannot overflow.

One contribution is a ring vector of d + 1 + m coordinates: d for the weighted update, one for the weight
share, m for the counts of a metric. With clip norm C, weight cap W and cohort bound N, every coordinate is an
integer of at most B = floor((2^(k-1) - 1) / N) in size, so N of them fit a signed k-bit number: that is the
whole overflow argument, and ``encode`` enforces it on each coordinate. Fixed-point aggregation after Bonawitz
et al. 2017 (secure aggregation); stochastic rounding keeps the mean unbiased. What does not live here:
clipping (``clipping.py``), the sums themselves (``ring.py``), masks, encryption.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from latticeward.errors import (
    IncompatiblePlanError,
    LayoutMismatchError,
    NonFiniteUpdateError,
    NormExceededError,
)
from latticeward.updates.clipping import ClippedUpdate
from latticeward.updates.ring import RingVector, as_signed, extent_of
from latticeward.updates.tensors import FloatVector, check_vector

CountVector = NDArray[np.uint32]

# 65,536 numbers (512 KiB) stay in the cache between the steps of one pass.
_BLOCK: Final = 65_536
# float32 clipping leaves a norm at most this much above C, relatively.
_NORM_SLACK: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedUpdate:
    """One contribution in the ring.

    Attributes:
        vector: uint32 or uint64, shape (d + 1 + m,), two's complement.
        saturated: coordinates that rounding would have carried beyond the bound B and that were held at it.
    """

    vector: RingVector
    saturated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedSum:
    """What the sum of at most N contributions says.

    Attributes:
        mean: float32, shape (d,), weighted by the capped examples; zero if nobody gave any weight.
        weight_share_sum: sum of min(w, W)/W over the contributions.
        examples: the same in examples, each hospital capped at W.
        metric_counts: int64, shape (m,), exact.
    """

    mean: FloatVector
    weight_share_sum: float
    examples: float
    metric_counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPointCodec:
    """The map between updates and the ring, fixed by the plan.

    Args:
        clip_norm: C > 0, in the unit of the weights.
        weight_cap: W > 0, in examples.
        cohort_bound: N >= 2, contributions that a sum may hold.
        ring_bits: k, 32 or 64.
        size: d >= 1.
        metric_size: m >= 0.

    Attributes:
        scale: s = floor((2^(k-1) - 1) / (N·C)), steps per unit of the weights.
        bound: B = floor((2^(k-1) - 1) / N), the largest size of a coordinate.

    Raises:
        IncompatiblePlanError: a parameter is out of range, or the ring too small for one step per unit.
    """

    clip_norm: float
    weight_cap: float
    cohort_bound: int
    ring_bits: int
    size: int
    metric_size: int
    scale: int = field(init=False)
    bound: int = field(init=False)

    def __post_init__(self) -> None:
        if self.ring_bits not in (32, 64):
            raise IncompatiblePlanError(f"the ring has 32 or 64 bits, not {self.ring_bits}")
        # N >= 2 also keeps s·C below 2^62, so that the step to int64 in ``encode`` cannot wrap.
        if self.cohort_bound < 2 or self.size < 1 or self.metric_size < 0:
            raise IncompatiblePlanError("a cohort has room for two or more, a model for one number or more")
        if not all(math.isfinite(value) and value > 0 for value in (self.clip_norm, self.weight_cap)):
            raise IncompatiblePlanError("clip norm and weight cap must be positive numbers")
        largest = 2 ** (self.ring_bits - 1) - 1
        # Exact fractions: both ends must find the same integer, also where float64
        # would round.
        scale = math.floor(Fraction(largest) / (self.cohort_bound * Fraction(self.clip_norm)))
        if scale < 1:
            raise IncompatiblePlanError("the clip norm is too large for this ring and cohort")
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "bound", largest // self.cohort_bound)

    @property
    def length(self) -> int:
        """d + 1 + m, the coordinates of a contribution."""
        return self.size + 1 + self.metric_size

    @property
    def length_bytes(self) -> int:
        """The wire form's length: k/8 bytes a coordinate."""
        return self.length * (self.ring_bits // 8)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """uint32 or uint64, in the machine's byte order."""
        return np.dtype(np.uint32) if self.ring_bits == 32 else np.dtype(np.uint64)

    @property
    def weight_unit(self) -> float:
        """The weight coordinate of a full share: s·C, so that it obeys the same bound as the update."""
        return float(self.scale) * self.clip_norm

    def encode(self, update: ClippedUpdate, metric_counts: CountVector, rng: np.random.Generator) -> EncodedUpdate:
        """Turn a clipped update into one contribution: round(s · (min(w, W)/W) · x) with stochastic rounding.

        Args:
            update: float32, shape (d,), norm <= C.
            metric_counts: uint32, shape (m,), each at most B.
            rng: source of the rounding; a uniform number a coordinate.

        Returns:
            uint32 or uint64, shape (d + 1 + m,). A zero update gives zero coordinates.

        Raises:
            LayoutMismatchError: a length or dtype differs from the codec's.
            NormExceededError: the update was clipped for a larger norm, or a count is beyond B.
        """
        # 1. The parts have the codec's form. 2. Counts fit: they are exact or refused, never saturated.
        # 3. The weighted update, a block at a time. 4. The weight share. 5. The counts.
        check_vector(self.size, update.vector)
        if metric_counts.dtype != np.uint32 or metric_counts.shape != (self.metric_size,):
            raise LayoutMismatchError(
                f"counts are {metric_counts.dtype} {metric_counts.shape}, not uint32 ({self.metric_size},)"
            )
        if metric_counts.size and int(metric_counts.max()) > self.bound:
            raise NormExceededError(f"a metric counts more than {self.bound}, the room of one device")

        share = min(update.weight, self.weight_cap) / self.weight_cap
        factor = float(self.scale) * share
        limit = self.weight_unit * (1.0 + _NORM_SLACK) + 1.0
        vector = np.empty(self.length, dtype=self.dtype)
        saturated = 0
        for start in range(0, self.size, _BLOCK):
            stop = min(start + _BLOCK, self.size)
            steps = update.vector[start:stop] * np.float64(factor)
            # floor(x + u) with u uniform in [0, 1) rounds up with exactly the probability of x's fraction.
            steps += rng.random(stop - start)
            np.floor(steps, out=steps)
            if not float(np.abs(steps).max()) <= limit:
                raise NormExceededError("a coordinate of the update is beyond the clip norm")
            integers = steps.astype(np.int64)
            held = np.clip(integers, -self.bound, self.bound)
            saturated += int(np.count_nonzero(held != integers))
            vector[start:stop] = held.astype(self.dtype)
        vector[self.size] = min(round(share * self.weight_unit), self.bound)
        vector[self.size + 1 :] = metric_counts
        return EncodedUpdate(vector=vector, saturated=saturated)

    def validate_ring(self, vector: RingVector) -> None:
        """Refuse a contribution, opened on its own, that no honest device could have made.

        Args:
            vector: uint32 or uint64, shape (d + 1 + m,).

        Raises:
            LayoutMismatchError: a length or dtype differs from the codec's.
            NormExceededError: a coordinate beyond B, a negative weight or count, or an update whose norm is
                beyond its weight share's part of C (plus a step a coordinate, for rounding).
        """
        self._check_form(vector)
        found, counts = extent_of(vector[: self.size]), as_signed(vector[self.size :])
        if not -self.bound <= found.least <= found.greatest <= self.bound or int(counts.max()) > self.bound:
            raise NormExceededError(f"a coordinate is larger than {self.bound}")
        weight = int(counts[0])
        if int(counts.min()) < 0 or weight > round(self.weight_unit):
            raise NormExceededError("the weight or a count is out of range")
        # Exact on both sides, so that whoever recomputes a round on another machine refuses the same updates: an honest
        # one that was clipped lies at the limit.
        limit = weight * (1.0 + _NORM_SLACK) + math.sqrt(self.size) + 1.0
        if found.squares > Fraction(limit) ** 2:
            raise NormExceededError("the update's norm is beyond its share of the clip norm")

    def decode_sum(self, ring_sum: RingVector) -> DecodedSum:
        """Read the sum of at most N contributions, dividing by the weight that is really in it.

        Args:
            ring_sum: uint32 or uint64, shape (d + 1 + m,), summed modulo 2^k.

        Raises:
            LayoutMismatchError: a length or dtype differs from the codec's.
            NormExceededError: the weights or counts sum to less than nothing.
            NonFiniteUpdateError: the mean does not fit float32.
        """
        self._check_form(ring_sum)
        signed = as_signed(ring_sum)
        if int(signed[self.size :].min()) < 0:
            raise NormExceededError("the weights or counts of the sum are negative")
        share_sum = int(signed[self.size]) / self.weight_unit
        divisor = float(self.scale) * share_sum
        mean = np.zeros(self.size, dtype=np.float32)
        # In pieces that stay in the cache: the page faults of a float64 copy would cost more than the division.
        quotient = np.empty(min(_BLOCK, self.size))
        for start in range(0, self.size if divisor else 0, _BLOCK):
            block = signed[start : min(start + _BLOCK, self.size)]
            piece = np.divide(block, np.float64(divisor), out=quotient[: block.size])
            with np.errstate(over="ignore"):
                mean[start : start + block.size] = piece
            if not np.isfinite(mean[start : start + block.size]).all():
                raise NonFiniteUpdateError("the mean of the updates is not finite")
        return DecodedSum(
            mean=mean,
            weight_share_sum=share_sum,
            examples=share_sum * self.weight_cap,
            metric_counts=signed[self.size + 1 :].astype(np.int64),
        )

    def empty_sum(self) -> RingVector:
        """A sum of nothing: zeros, shape (d + 1 + m,), to be handed to ``accumulate``."""
        return np.zeros(self.length, dtype=self.dtype)

    def to_bytes(self, vector: RingVector) -> bytes:
        """The wire form of a ring vector: k/8 bytes a coordinate, little-endian.

        Raises:
            LayoutMismatchError: a length or dtype differs from the codec's.
        """
        self._check_form(vector)
        return vector.astype(self.dtype.newbyteorder("<"), copy=False).tobytes()

    def from_bytes(self, raw: bytes | memoryview) -> RingVector:
        """Read the wire form; says nothing about the size of the coordinates (``validate_ring`` does).

        Returns:
            A read-only view of ``raw`` where the machine is little-endian.

        Raises:
            LayoutMismatchError: the length is not ``length_bytes``.
        """
        if len(raw) != self.length_bytes:
            raise LayoutMismatchError(f"a ring vector of {len(raw)} bytes, not {self.length_bytes}")
        return np.frombuffer(raw, dtype=self.dtype.newbyteorder("<")).astype(self.dtype, copy=False)

    def _check_form(self, vector: RingVector) -> None:
        if vector.dtype != self.dtype or vector.shape != (self.length,):
            raise LayoutMismatchError(
                f"a ring vector is {vector.dtype} {vector.shape}, not {self.dtype} ({self.length},)"
            )
