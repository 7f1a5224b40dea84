"""Named tensors and the one flat vector that stands for them everywhere else.

A layout fixes names, shapes and order; the rest of the system sees d float32 numbers. ``initial_vector`` is a
pure function of the plan, so that every party computes version 0 of a model for itself; a start that is a version of
another training is none of its business (``starts.py``). What does not live
here: the ring encoding of an update (``encoding.py``) and what a trainer does with the tensors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.errors import (
    IncompatiblePlanError,
    LayoutMismatchError,
    MalformedMessageError,
    NonFiniteUpdateError,
)

FloatVector = NDArray[np.float32]

MAX_TENSORS: Final = 4096
MAX_DIMENSIONS: Final = 8
# 2^28 float32 numbers are 1 GiB: above any model that this protocol's memory bounds were measured for.
MAX_SIZE: Final = 2**28


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model: its name, its shape (rows first) and its dtype, which is always float32."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """How many numbers the tensor holds; 1 for the empty shape."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """The tensors of a model in the order in which they lie in the flat vector.

    Raises:
        MalformedMessageError: no tensors, a name twice, an empty or oversized shape, or a dtype other than
            float32.
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.tensors) <= MAX_TENSORS:
            raise MalformedMessageError(f"a layout has 1 to {MAX_TENSORS} tensors, not {len(self.tensors)}")
        if len({spec.name for spec in self.tensors}) != len(self.tensors):
            raise MalformedMessageError("two tensors of the layout share a name")
        for spec in self.tensors:
            if not 1 <= len(spec.name) <= 200 or spec.dtype != "float32":
                raise MalformedMessageError("a tensor needs a name of 1 to 200 characters and the dtype float32")
            if len(spec.shape) > MAX_DIMENSIONS or any(not 1 <= side <= MAX_SIZE for side in spec.shape):
                raise MalformedMessageError(f"the shape of {spec.name!r} is empty or too large")
        if self.size > MAX_SIZE:
            raise MalformedMessageError(f"the layout holds {self.size} numbers, more than {MAX_SIZE}")

    @property
    def size(self) -> int:
        """d, the length of the flat vector."""
        return sum(spec.size for spec in self.tensors)

    def to_wire(self) -> list[Any]:
        """The layout as plain values for a message: a list of maps of name, shape and dtype."""
        return [{"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype} for spec in self.tensors]

    @classmethod
    def from_wire(cls, value: list[Any]) -> Self:
        """Read what ``to_wire`` wrote.

        Raises:
            MalformedMessageError: another form, or a layout that this version refuses.
        """
        if len(value) > MAX_TENSORS:
            raise MalformedMessageError(f"a layout has 1 to {MAX_TENSORS} tensors, not {len(value)}")
        return cls(tuple(_spec(item) for item in value))


def _spec(item: Any) -> TensorSpec:
    fields = Fields(item, "tensor")
    sides = fields.list("shape")
    # bool is an int to Python, and True would pass for a side of one.
    if any(type(side) is not int for side in sides):
        raise MalformedMessageError("a tensor's shape is a list of integers")
    spec = TensorSpec(fields.text("name"), tuple(sides), fields.text("dtype"))
    fields.end()
    return spec


def flatten(layout: TensorLayout, tensors: Mapping[str, NDArray[Any]]) -> FloatVector:
    """Lay named tensors end to end.

    Args:
        layout: d numbers in all.
        tensors: exactly the layout's names, float32, each of its shape.

    Returns:
        A new float32 vector, shape (d,), each tensor in C order.

    Raises:
        LayoutMismatchError: a name, shape or dtype differs from the layout.
    """
    if set(tensors) != {spec.name for spec in layout.tensors}:
        raise LayoutMismatchError("the tensors' names are not those of the layout")
    for spec in layout.tensors:
        tensor = tensors[spec.name]
        if tensor.shape != spec.shape or tensor.dtype != np.float32:
            raise LayoutMismatchError(f"{spec.name!r} is {tensor.dtype} {tensor.shape}, not float32 {spec.shape}")
    return np.concatenate([tensors[spec.name].ravel() for spec in layout.tensors])


def unflatten(layout: TensorLayout, vector: FloatVector) -> dict[str, FloatVector]:
    """The named tensors of a flat vector, as views into it (no copy).

    Args:
        vector: float32, shape (d,), contiguous.

    Raises:
        LayoutMismatchError: the vector is not float32 of shape (d,).
    """
    check_vector(layout.size, vector)
    tensors, start = {}, 0
    for spec in layout.tensors:
        tensors[spec.name] = vector[start : start + spec.size].reshape(spec.shape)
        start += spec.size
    return tensors


def check_vector(size: int, vector: NDArray[Any]) -> None:
    """Refuse a vector that is not float32 of shape (size,).

    Raises:
        LayoutMismatchError
    """
    if vector.dtype != np.float32 or vector.shape != (size,):
        raise LayoutMismatchError(f"a vector is {vector.dtype} {vector.shape}, not float32 ({size},)")


def initial_vector(layout: TensorLayout, initial: Mapping[str, int | str | bytes]) -> FloatVector:
    """Version 0 of a model, the same bits on every machine.

    Args:
        initial: ``{"kind": "zeros"}``, or ``{"kind": "glorot", "seed": n}`` with 0 <= n < 2^63: uniform in
            +-sqrt(6 / (fan in + fan out)) for tensors of two or more dimensions, zero for the others
            (Glorot and Bengio 2010, equation 16).

    Returns:
        float32, shape (d,).

    Raises:
        IncompatiblePlanError: an unknown kind, one that does not follow from the plan, or a seed out of range.
    """
    vector = np.zeros(layout.size, dtype=np.float32)
    match dict(initial):
        case {"kind": "zeros", **rest} if not rest:
            return vector
        case {"kind": "glorot", "seed": int(seed), **rest} if not rest and 0 <= seed < 2**63:
            pass
        case _:
            raise IncompatiblePlanError(f"an initial model cannot be made from {dict(initial)!r}")
    # NumPy keeps a bit generator's raw stream for ever but may change Generator's methods (NEP 19): the step
    # from 64 raw bits to a number in [0, 1) is therefore our own.
    source = np.random.PCG64(seed)
    for spec, tensor in zip(layout.tensors, unflatten(layout, vector).values(), strict=True):
        if len(spec.shape) < 2:
            continue
        fans = (spec.shape[0] + spec.shape[1]) * math.prod(spec.shape[2:])
        uniform = (source.random_raw(spec.size) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        tensor[...] = ((2.0 * uniform - 1.0) * math.sqrt(6.0 / fans)).reshape(spec.shape)
    return vector


def vector_to_bytes(vector: FloatVector) -> bytes:
    """The wire form of weights: 4·d bytes, IEEE 754 single precision, little-endian."""
    return vector.astype("<f4", copy=False).tobytes()


def vector_from_bytes(raw: bytes | memoryview, *, size: int) -> FloatVector:
    """Read weights of d = ``size`` numbers.

    Returns:
        float32, shape (size,), a read-only view of ``raw`` where the machine is little-endian.

    Raises:
        LayoutMismatchError: the length is not 4·size bytes.
        NonFiniteUpdateError: an entry is NaN or infinite.
    """
    if len(raw) != 4 * size:
        raise LayoutMismatchError(f"{len(raw)} bytes of weights, not {4 * size}")
    vector = np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
    if not np.isfinite(vector).all():
        raise NonFiniteUpdateError("a model holds a number that is not finite")
    return vector


def weights_digest(vector: FloatVector) -> bytes:
    """The 32-byte digest by which a model version is known, taken over its wire form."""
    # Hashed where they lie: a copy of the weights costs as much as sealing them.
    wire = np.ascontiguousarray(vector, dtype="<f4")
    return canonical.digest("latticeward/weights/v1", wire.view(np.uint8).data)
