"""What is written as a file is read back to the same bits, by us and by the formats' own libraries."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load

from latticeward.errors import LayoutMismatchError, MalformedMessageError
from latticeward.model_files import MODEL_FORMATS, ModelFormat, read_vector
from latticeward.updates.tensors import FloatVector, TensorLayout, TensorSpec, unflatten, weights_digest

LAYOUT = TensorLayout(
    (
        TensorSpec("hidden.weight", (3, 4)),
        TensorSpec("file", (4,)),
        TensorSpec("größe/ß", (2, 1, 2)),
        TensorSpec("s", ()),
    )
)
METADATA = {"manifest": "00" * 32, "licence": "CC BY 4.0", "title": 'Heart "disease", süd'}
FORMATS = pytest.mark.parametrize("form", MODEL_FORMATS.values(), ids=lambda form: form.name)


def some_vector(size: int = LAYOUT.size) -> FloatVector:
    return np.random.default_rng(7).normal(size=size).astype(np.float32)


@FORMATS
def test_a_file_reads_back_to_the_weights_digest(form: ModelFormat) -> None:
    vector = some_vector()
    raw = form.write(LAYOUT, vector, METADATA)
    assert weights_digest(read_vector(form, raw, layout=LAYOUT)) == weights_digest(vector)
    assert form.read(raw)[1] == METADATA


@FORMATS
@given(
    shapes=st.lists(st.lists(st.integers(1, 5), max_size=3).map(tuple), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
def test_any_layout_reads_back_to_the_same_bits(form: ModelFormat, shapes: list[tuple[int, ...]], seed: int) -> None:
    layout = TensorLayout(tuple(TensorSpec(f"tensor {place}", shape) for place, shape in enumerate(shapes)))
    vector = np.random.default_rng(seed).normal(size=layout.size).astype(np.float32)
    raw = form.write(layout, vector, {})
    assert read_vector(form, raw, layout=layout).tobytes() == vector.tobytes()


@FORMATS
def test_the_same_weights_and_metadata_are_the_same_bytes(form: ModelFormat) -> None:
    assert form.write(LAYOUT, some_vector(), METADATA) == form.write(LAYOUT, some_vector(), METADATA)


@FORMATS
def test_a_cut_file_is_refused(form: ModelFormat) -> None:
    raw = form.write(LAYOUT, some_vector(), METADATA)
    for length in (0, 7, 9, len(raw) // 2, len(raw) - 1):
        with pytest.raises(MalformedMessageError):
            form.read(raw[:length])


@FORMATS
def test_another_layout_is_refused(form: ModelFormat) -> None:
    raw = form.write(LAYOUT, some_vector(), METADATA)
    with pytest.raises(LayoutMismatchError):
        read_vector(form, raw, layout=TensorLayout((TensorSpec("hidden.weight", (12,)),)))


def test_the_reference_implementation_reads_our_safetensors(tmp_path: object) -> None:
    vector = some_vector()
    raw = MODEL_FORMATS["safetensors"].write(LAYOUT, vector, METADATA)
    for name, tensor in unflatten(LAYOUT, vector).items():
        found = load(raw)[name]
        assert found.dtype == np.float32 and found.shape == tensor.shape and found.tobytes() == tensor.tobytes()
    path = f"{tmp_path}/model.safetensors"
    with open(path, "wb") as file:
        file.write(raw)
    with safe_open(path, framework="numpy") as opened:
        assert opened.metadata() == METADATA
    assert (8 + int.from_bytes(raw[:8], "little")) % 8 == 0


def test_numpy_reads_our_npz_without_unpickling() -> None:
    vector = some_vector()
    raw = MODEL_FORMATS["npz"].write(LAYOUT, vector, METADATA)
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        assert json.loads(str(arrays["__metadata__"])) == METADATA
        assert arrays["file"].tobytes() == vector[12:16].tobytes()


def test_an_npz_that_holds_objects_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        array = io.BytesIO()
        np.lib.format.write_array(array, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        archive.writestr("weight.npy", array.getvalue())
        archive.writestr("other.pkl", pickle.dumps([1]))
    with pytest.raises(MalformedMessageError):
        MODEL_FORMATS["npz"].read(stream.getvalue())


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}}',
        b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 8]}}',
        b'{"__metadata__": 7}',
    ],
)
def test_a_broken_safetensors_header_is_refused(header: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        MODEL_FORMATS["safetensors"].read(len(header).to_bytes(8, "little") + header + bytes(8))


@FORMATS
def test_the_name_of_the_metadata_is_no_tensor(form: ModelFormat) -> None:
    layout = TensorLayout((TensorSpec("__metadata__", (1,)),))
    with pytest.raises(MalformedMessageError):
        form.write(layout, some_vector(1), {})
