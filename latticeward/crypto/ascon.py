"""Ascon-AEAD128 (NIST SP 800-232): which of its forms serves, and single messages.

The compiled form if it is built, else NumPy. All forms give the same bytes, so the choice is one of speed, never of
suite; ``is_compiled`` lets the suite table call itself slow instead of changing to another cipher unasked. The stream
form for bodies is ``ascon_stream.py``. ``LATTICEWARD_ASCON_FORM`` forces a form for tests and measurements.
"""

import os
from enum import StrEnum
from functools import cache
from typing import Final

from latticeward.crypto.ascon_compiled import available_cores
from latticeward.crypto.ascon_core import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Buffer, Core
from latticeward.crypto.ascon_lanes import NumpyCore
from latticeward.crypto.ascon_reference import ReferenceCore
from latticeward.errors import DecryptionError, KeyUsageError, UnsupportedSuiteError

FORM_VARIABLE: Final = "LATTICEWARD_ASCON_FORM"


class Form(StrEnum):
    """A form of Ascon-AEAD128 by the name that forces it."""

    AVX512 = "avx512"
    AVX2 = "avx2"
    VECTOR = "vector"
    SCALAR = "scalar"
    NUMPY = "numpy"
    REFERENCE = "reference"


_LANES: Final = {Form.AVX512: 8, Form.AVX2: 4, Form.VECTOR: 2, Form.SCALAR: 1}


def available_forms() -> list[Form]:
    """The forms that this machine and this installation have, quickest first."""
    compiled = available_cores()
    return [form for form, lanes in _LANES.items() if lanes in compiled] + [Form.NUMPY, Form.REFERENCE]


def get_core(form: Form) -> Core:
    """One form, or none.

    Raises:
        UnsupportedSuiteError: the processor lacks it or the library is not built.
    """
    match form:
        case Form.NUMPY:
            return NumpyCore()
        case Form.REFERENCE:
            return ReferenceCore()
        case _:
            core = available_cores().get(_LANES[form])
            if core is None:
                raise UnsupportedSuiteError(f"Ascon-AEAD128 has no {form} form here")
            return core


@cache
def default_core() -> Core:
    """The form that serves in this process.

    Raises:
        UnsupportedSuiteError: ``LATTICEWARD_ASCON_FORM`` names a form that is unknown or not here.
        SelfTestError: the compiled library gives a wrong answer.
    """
    forced = os.environ.get(FORM_VARIABLE)
    if not forced:
        return get_core(available_forms()[0])
    try:
        form = Form(forced)
    except ValueError as error:
        raise UnsupportedSuiteError(f"{FORM_VARIABLE}={forced!r} is no form of Ascon-AEAD128") from error
    return get_core(form)


def implementation() -> str:
    """What serves here, for reports: ``c avx512 8 lanes``, ``numpy lanes``, …"""
    return default_core().name


def is_compiled() -> bool:
    """Whether the compiled form serves; without it the suite is to be reported as slow."""
    return default_core().compiled


def seal(plaintext: Buffer, *, key: bytes, nonce: bytes, associated_data: bytes, core: Core | None = None) -> bytes:
    """Encrypt and authenticate one message.

    Args:
        plaintext: any length.
        key: 16 bytes.
        nonce: 16 bytes, never used twice with this key.
        associated_data: authenticated, not encrypted; any length.
        core: a form other than this process's own.

    Returns:
        Ciphertext and tag, ``len(plaintext) + 16`` bytes.

    Raises:
        KeyUsageError: key or nonce has another length.
    """
    _check_lengths(key, nonce)
    return (core or default_core()).seal(key=key, nonce=nonce, associated_data=associated_data, plaintext=plaintext)


def open_sealed(sealed: Buffer, *, key: bytes, nonce: bytes, associated_data: bytes, core: Core | None = None) -> bytes:
    """Undo ``seal``; arguments as there.

    Raises:
        DecryptionError: too short, altered, or made with other key, nonce or associated data.
        KeyUsageError: key or nonce has another length.
    """
    _check_lengths(key, nonce)
    if len(sealed) < TAG_BYTES:
        raise DecryptionError("ascon message is shorter than its tag")
    return (core or default_core()).open(key=key, nonce=nonce, associated_data=associated_data, sealed=sealed)


def _check_lengths(key: bytes, nonce: bytes) -> None:
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise KeyUsageError("an Ascon-AEAD128 key and its nonce have 16 bytes each")
