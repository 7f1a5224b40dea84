import json
from base64 import b64decode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latticeward.crypto.wrapping import derive_key, new_key, unwrap_secret, wrap_secret
from latticeward.errors import DecryptionError, KeyUsageError
from tests.latticeward.crypto.samples import flipped
from tests.vectors.generate import HERE

FROZEN = json.loads((HERE / "wrapping.json").read_text())


@given(st.binary(max_size=200), st.binary(max_size=50))
@settings(max_examples=50, deadline=None)
def test_a_wrapped_secret_comes_back(secret: bytes, bound: bytes) -> None:
    key = new_key()
    wrapped = wrap_secret(secret, key=key, associated_data=bound)
    assert len(wrapped) == len(secret) + 28
    assert unwrap_secret(wrapped, key=key, associated_data=bound) == secret


def test_every_flipped_bit_every_cut_and_every_other_row_is_refused() -> None:
    key = new_key()
    wrapped = wrap_secret(b"seed" * 8, key=key, associated_data=b"row 1")
    forgeries = [flipped(wrapped, place) for place in range(len(wrapped))]
    forgeries += [wrapped[:end] for end in range(len(wrapped))] + [wrapped + b"\0"]
    for raw in forgeries:
        with pytest.raises(DecryptionError):
            unwrap_secret(raw, key=key, associated_data=b"row 1")
    with pytest.raises(DecryptionError):
        unwrap_secret(wrapped, key=key, associated_data=b"row 2")
    with pytest.raises(DecryptionError):
        unwrap_secret(wrapped, key=new_key(), associated_data=b"row 1")


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_a_wrapping_key_has_32_bytes(size: int) -> None:
    with pytest.raises(KeyUsageError):
        wrap_secret(b"", key=bytes(size), associated_data=b"")
    with pytest.raises(KeyUsageError):
        unwrap_secret(bytes(40), key=bytes(size), associated_data=b"")


def test_derived_keys_are_told_apart_by_label_and_secret() -> None:
    keys = {derive_key(bytes([n]) * 32, label=label) for n in (1, 2) for label in ("a", "b")}
    assert len(keys) == 4
    assert derive_key(bytes(32), label="a", length=64)[:32] == derive_key(bytes(32), label="a")


@pytest.mark.parametrize(
    ("secret", "label", "length"),
    [(bytes(15), "a", 32), (bytes(32), "", 32), (bytes(32), "a", 0), (bytes(32), "a", 8161)],
)
def test_a_password_an_empty_label_and_an_odd_length_are_refused(secret: bytes, label: str, length: int) -> None:
    with pytest.raises(KeyUsageError):
        derive_key(secret, label=label, length=length)


def test_frozen_answers_hold() -> None:
    for case in FROZEN["wrapped"]:
        opened = unwrap_secret(
            b64decode(case["wrapped"]), key=b64decode(case["key"]), associated_data=b64decode(case["associated_data"])
        )
        assert opened == b64decode(case["secret"])
    for case in FROZEN["derived"]:
        assert derive_key(b64decode(case["secret"]), label=case["label"]) == b64decode(case["key"])
