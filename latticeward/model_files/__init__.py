"""Weights as files that other tools read: one format a file, and the table of them.

A file holds the named float32 tensors of a layout and a few lines of text about where they come from. No format here
can carry code: nothing is ever pickled. Writing is deterministic, so the same version and metadata give the same
bytes; reading is there to prove that what was written is what was meant.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from latticeward.errors import MalformedMessageError
from latticeward.model_files import npz, safetensors
from latticeward.updates.tensors import FloatVector, TensorLayout, flatten, vector_from_bytes, vector_to_bytes

Metadata = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """One format: how a file of it ends, what it is called on the wire, how it is written and read."""

    name: str
    suffix: str
    media_type: str
    write: Callable[[TensorLayout, FloatVector, Metadata], bytes]
    read: Callable[[bytes], tuple[dict[str, FloatVector], dict[str, str]]]


MODEL_FORMATS: Final[Mapping[str, ModelFormat]] = MappingProxyType(
    {
        row.name: row
        for row in (
            ModelFormat("safetensors", ".safetensors", "application/octet-stream", safetensors.write, safetensors.read),
            ModelFormat("npz", ".npz", "application/zip", npz.write, npz.read),
        )
    }
)


def read_vector(form: ModelFormat, raw: bytes, *, layout: TensorLayout) -> FloatVector:
    """The flat vector of a file, float32 (d,), with names and shapes held against the layout.

    Raises:
        MalformedMessageError: not a file of this format.
        LayoutMismatchError: other names, shapes or dtypes than the layout's.
        NonFiniteUpdateError: an entry is NaN or infinite.
    """
    tensors, _ = form.read(raw)
    if not tensors:
        raise MalformedMessageError("the file holds no tensor")
    return vector_from_bytes(vector_to_bytes(flatten(layout, tensors)), size=layout.size)
