"""The safetensors format (github.com/huggingface/safetensors), which many tools read and none executes.

8 bytes of little-endian header length N, N bytes of JSON that names dtype, shape and place of every tensor, then the
tensors' bytes without gaps. Written here in a page, because the format is one; a test has the reference
implementation read what this writes. The header is filled with spaces so that the numbers begin at a multiple of 8.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from latticeward.errors import MalformedMessageError
from latticeward.updates.tensors import FloatVector, TensorLayout, unflatten, vector_to_bytes

# The reference implementation refuses larger headers.
HEADER_LIMIT_BYTES: Final = 100_000_000
_METADATA: Final = "__metadata__"


def write(layout: TensorLayout, vector: FloatVector, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file.

    Args:
        vector: float32, shape (d,), d = layout.size.
        metadata: text to text.

    Raises:
        LayoutMismatchError: the vector is not of this layout.
        MalformedMessageError: a tensor has the name that the format keeps for metadata.
    """
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))}
    start = 0
    for name, tensor in unflatten(layout, vector).items():
        if name == _METADATA:
            raise MalformedMessageError(f"a tensor cannot be called {_METADATA}")
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.nbytes],
        }
        start += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + vector_to_bytes(vector)


def read(raw: bytes) -> tuple[dict[str, FloatVector], dict[str, str]]:
    """Tensors by name and metadata of a file whose tensors are all float32.

    Raises:
        MalformedMessageError: not such a file: cut short, gaps or overlaps, another dtype, or a broken header.
    """
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > min(HEADER_LIMIT_BYTES, len(raw) - 8):
        raise MalformedMessageError("a safetensors file is cut short")
    try:
        header = json.loads(raw[8 : 8 + length])
        metadata = {str(name): str(value) for name, value in header.pop(_METADATA, {}).items()}
        places = sorted((*row["data_offsets"], name, row["dtype"], tuple(row["shape"])) for name, row in header.items())
        body, at = memoryview(raw)[8 + length :], 0
        tensors: dict[str, FloatVector] = {}
        for begin, end, name, dtype, shape in places:
            if dtype != "F32" or begin != at or end > len(body):
                raise MalformedMessageError(f"the tensor {name!r} is not float32, or not where it should be")
            tensors[name] = np.frombuffer(body[begin:end], dtype="<f4").astype(np.float32, copy=False).reshape(shape)
            at = end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedMessageError("the header of a safetensors file is broken") from error
    if at != len(body):
        raise MalformedMessageError("a safetensors file has bytes that belong to no tensor")
    return tensors, metadata
