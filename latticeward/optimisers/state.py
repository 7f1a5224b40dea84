"""What a server optimiser remembers from round to round, as a value and as bytes.

Everything is float64: the server's own arithmetic is where small steps add up over hundreds of rounds. The
bytes are for sealed storage between rounds; no device ever sees them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.errors import IncompatiblePlanError, LayoutMismatchError, MalformedMessageError

Float64Vector = NDArray[np.float64]
Settings = Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserState:
    """The moments of an optimiser after ``step`` rounds.

    Attributes:
        step: rounds applied so far.
        moments: by name, float64, shape (d,) each; empty before the first round.
    """

    step: int = 0
    moments: Mapping[str, Float64Vector] = field(default_factory=dict)

    def moment(self, name: str, *, like: Float64Vector, initial: float = 0.0) -> Float64Vector:
        """A moment, or ``initial`` everywhere if no round has made it yet.

        Raises:
            LayoutMismatchError: the stored moment has another shape than the weights.
        """
        if name not in self.moments:
            return np.full_like(like, initial)
        if self.moments[name].shape != like.shape:
            raise LayoutMismatchError(f"the optimiser's {name!r} has another shape than the weights")
        return self.moments[name]

    def to_bytes(self) -> bytes:
        """Deterministic CBOR: the step, and each moment as 8·d little-endian bytes."""
        moments = {name: moment.astype("<f8", copy=False).tobytes() for name, moment in self.moments.items()}
        return canonical.encode({"step": self.step, "moments": moments})

    @classmethod
    def from_bytes(cls, raw: bytes, *, size: int) -> Self:
        """Read what ``to_bytes`` wrote, for weights of d = ``size`` numbers.

        Raises:
            MalformedMessageError: other bytes, or moments of another length.
        """
        # Two moments at most are known to this version; the rest is room for names and lengths.
        fields = Fields(canonical.decode(raw, limit_bytes=2 * 8 * size + 4096), "optimiser state")
        step, stored = fields.integer("step", 0, 2**31), fields.map("moments")
        fields.end()
        if any(not isinstance(moment, bytes) or len(moment) != 8 * size for moment in stored.values()):
            raise MalformedMessageError("a moment of the optimiser has the wrong length")
        moments = {name: np.frombuffer(moment, dtype="<f8").astype(np.float64) for name, moment in stored.items()}
        return cls(step=step, moments=moments)


def number(settings: Settings, name: str, *, low: float, high: float) -> float:
    """A setting as a finite number with low <= value <= high.

    Raises:
        IncompatiblePlanError: not a number, or out of range.
    """
    value = settings[name]
    # A plan's settings can hold any value that CBOR or JSON has; NaN and infinities fail the comparison.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise IncompatiblePlanError(f"the optimiser's {name!r} must lie between {low:g} and {high:g}")
    return float(value)
