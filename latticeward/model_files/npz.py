"""NumPy's archive: a ZIP file of one ``.npy`` a tensor, uncompressed, and one JSON text about where they come from.

``numpy.load(path, allow_pickle=False)`` reads it. Written entry by entry instead of with ``numpy.savez``: that takes
names as keyword arguments (a tensor called ``file`` would clash), and its time stamps are not promised.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Final

import numpy as np

from latticeward.errors import MalformedMessageError
from latticeward.updates.tensors import FloatVector, TensorLayout, unflatten

_METADATA: Final = "__metadata__"
# The earliest date that ZIP knows: the file says nothing about when it was written.
_DATE: Final = (1980, 1, 1, 0, 0, 0)


def write(layout: TensorLayout, vector: FloatVector, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file; metadata is the array ``__metadata__``, one JSON text.

    Args:
        vector: float32, shape (d,), d = layout.size.

    Raises:
        LayoutMismatchError: the vector is not of this layout.
        MalformedMessageError: a tensor has the name that is kept for metadata.
    """
    arrays: dict[str, np.ndarray] = dict(unflatten(layout, vector))
    if _METADATA in arrays:
        raise MalformedMessageError(f"a tensor cannot be called {_METADATA}")
    arrays[_METADATA] = np.array(json.dumps(dict(sorted(metadata.items())), ensure_ascii=False))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _DATE)
            # A model of 1 GiB is over the limit of plain ZIP entries, and the size is known only after writing.
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def read(raw: bytes) -> tuple[dict[str, FloatVector], dict[str, str]]:
    """Tensors by name and metadata.

    Raises:
        MalformedMessageError: not such a file, or an array that only unpickling could read.
    """
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            tensors = {name: arrays[name] for name in arrays.files}
        metadata = json.loads(str(tensors.pop(_METADATA, "{}")))
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise MalformedMessageError("not a readable npz file") from error
    return tensors, {str(name): str(value) for name, value in metadata.items()}
