"""Ascon-AEAD128 in C, as a kernel of ``latticeward/compiled.py``: the form for model-sized messages.

Loading runs a known answer through every lane form before anybody may use it.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from latticeward.compiled import Kernel
from latticeward.crypto.ascon_core import CHUNK_BYTES, SEALED_CHUNK_BYTES, TAG_BYTES, Buffer, chunk_nonce
from latticeward.errors import DecryptionError, SelfTestError

KERNEL: Final = Kernel(
    name="ascon",
    folder=Path(__file__).parent,
    sources=("_ascon.c", "_ascon.h", "_ascon_forms.h", "_ascon_lanes.h"),
)
LANE_NAMES: Final = {1: "scalar", 2: "vector", 4: "avx2", 8: "avx512"}

# Count 546 of the designers' known answers: 16 bytes of plaintext, 17 of associated data.
_KNOWN_KEY: Final = bytes(range(0x10))
_KNOWN_NONCE: Final = bytes(range(0x10, 0x20))
_KNOWN_PLAINTEXT: Final = bytes(range(0x20, 0x30))
_KNOWN_DATA: Final = bytes(range(0x30, 0x41))
_KNOWN_SEALED: Final = bytes.fromhex("BF77C71B3DE9F1C5B372EF273A08E89B6A67A7A5995C860CE8F00BC0FC2EBAD6")
# One batch of so many chunks passes through every width of a form: 16, 8, 4, 2 and 1.
_CHECKED_CHUNKS: Final = 31


class CompiledCore:
    """One lane form of the compiled library; see ``ascon_core.Core`` for the methods' contract."""

    compiled = True

    def __init__(self, library: ctypes.CDLL, lanes: int) -> None:
        self._library = library
        self._lanes = lanes
        self.name = f"c {LANE_NAMES[lanes]} {lanes} lane{'s' if lanes > 1 else ''}"

    def seal(self, *, key: bytes, nonce: bytes, associated_data: bytes, plaintext: Buffer) -> bytes:
        sealed = bytearray(len(plaintext) + TAG_BYTES)
        source = np.frombuffer(plaintext, dtype=np.uint8)
        self._library.latticeward_ascon_seal(
            key, nonce, associated_data, len(associated_data), source.ctypes.data, len(plaintext), _address(sealed)
        )
        return bytes(sealed)

    def open(self, *, key: bytes, nonce: bytes, associated_data: bytes, sealed: Buffer) -> bytes:
        length = len(sealed) - TAG_BYTES
        # One byte more than needed, because an empty buffer has no address.
        opened = bytearray(length + 1)
        source = np.frombuffer(sealed, dtype=np.uint8)
        if self._library.latticeward_ascon_open(
            key, nonce, associated_data, len(associated_data), source.ctypes.data, length, _address(opened)
        ):
            raise DecryptionError("ascon tag")
        return bytes(memoryview(opened)[:length])

    def seal_chunks(
        self, *, key: bytes, nonce: bytes, first_index: int, plaintext: memoryview, target: memoryview
    ) -> None:
        count = len(plaintext) // CHUNK_BYTES
        if count == 0:
            return
        source = np.frombuffer(plaintext, dtype=np.uint8)
        self._library.latticeward_ascon_seal_chunks(
            key, nonce, first_index, source.ctypes.data, count, _address(target), self._lanes
        )

    def open_chunks(
        self, *, key: bytes, nonce: bytes, first_index: int, sealed: memoryview, target: memoryview
    ) -> None:
        count = len(sealed) // SEALED_CHUNK_BYTES
        if count == 0:
            return
        source = np.frombuffer(sealed, dtype=np.uint8)
        if self._library.latticeward_ascon_open_chunks(
            key, nonce, first_index, source.ctypes.data, count, _address(target), self._lanes
        ):
            raise DecryptionError("ascon tag")


def _address(writable: bytearray | memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(writable))


@cache
def available_cores() -> dict[int, CompiledCore]:
    """The lane forms of this machine by their lanes, widest first; empty when the library is not built.

    Raises:
        SelfTestError: the library gives a wrong answer, so nothing of it may be used.
    """
    library = KERNEL.load()
    if library is None:
        return {}
    byte_pointer, size, pointer = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p
    message = [byte_pointer, byte_pointer, byte_pointer, size, pointer, size, pointer]
    chunks = [byte_pointer, byte_pointer, ctypes.c_uint64, pointer, size, pointer, ctypes.c_int]
    library.latticeward_ascon_lanes.argtypes = []
    for name, arguments, result in (
        ("seal", message, None),
        ("open", message, ctypes.c_int),
        ("seal_chunks", chunks, None),
        ("open_chunks", chunks, ctypes.c_int),
    ):
        function = getattr(library, f"latticeward_ascon_{name}")
        function.argtypes = arguments
        function.restype = result
    widest = library.latticeward_ascon_lanes()
    cores = {lanes: CompiledCore(library, lanes) for lanes in sorted(LANE_NAMES, reverse=True) if lanes <= widest}
    _check(cores)
    return cores


def _check(cores: dict[int, CompiledCore]) -> None:
    scalar = cores[1]
    key, nonce = _KNOWN_KEY, _KNOWN_NONCE
    sealed = scalar.seal(key=key, nonce=nonce, associated_data=_KNOWN_DATA, plaintext=_KNOWN_PLAINTEXT)
    if sealed != _KNOWN_SEALED:
        raise SelfTestError("the compiled Ascon-AEAD128 fails a known answer")
    chunk = (_KNOWN_PLAINTEXT * (CHUNK_BYTES // len(_KNOWN_PLAINTEXT)))[:CHUNK_BYTES]
    expected = b"".join(
        scalar.seal(key=key, nonce=chunk_nonce(nonce, index, last=False), associated_data=b"", plaintext=chunk)
        for index in range(_CHECKED_CHUNKS)
    )
    for core in cores.values():
        target = bytearray(len(expected))
        core.seal_chunks(
            key=key,
            nonce=nonce,
            first_index=0,
            plaintext=memoryview(chunk * _CHECKED_CHUNKS),
            target=memoryview(target),
        )
        if target != expected:
            raise SelfTestError(f"{core.name} of Ascon-AEAD128 differs from one chunk at a time")
