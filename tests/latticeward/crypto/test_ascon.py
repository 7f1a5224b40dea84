"""Ascon-AEAD128: the designers' known answers in every form, agreement between forms, and refusals."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from latticeward.crypto import ascon
from latticeward.crypto.ascon import Form, available_forms, get_core
from latticeward.crypto.ascon_core import CHUNK_BYTES, SEALED_CHUNK_BYTES, Core, chunk_nonce
from latticeward.crypto.ascon_lanes import NumpyCore
from latticeward.crypto.providers import suite_is_slow, suite_state
from latticeward.crypto.suites import get_suite
from latticeward.errors import DecryptionError, KeyUsageError, UnsupportedSuiteError

KNOWN_ANSWERS = Path(__file__).parents[4] / "shared" / "vectors" / "ascon" / "LWC_AEAD_KAT_128_128.txt"
KEY, NONCE = bytes(range(16)), bytes(range(16, 32))


@pytest.fixture(params=available_forms())
def core(request: pytest.FixtureRequest) -> Core:
    return get_core(request.param)


def known_answers() -> Iterator[dict[str, bytes]]:
    for record in KNOWN_ANSWERS.read_text().strip().split("\n\n"):
        fields = (line.partition(" =") for line in record.splitlines()[1:])
        yield {name: bytes.fromhex(value.strip()) for name, _, value in fields}


@pytest.mark.skipif(not KNOWN_ANSWERS.exists(), reason=f"{KNOWN_ANSWERS} is not there")
def test_known_answers(core: Core) -> None:
    count = 0
    for answer in known_answers():
        sealed = core.seal(
            key=answer["Key"], nonce=answer["Nonce"], associated_data=answer["AD"], plaintext=answer["PT"]
        )
        assert sealed == answer["CT"]
        opened = core.open(key=answer["Key"], nonce=answer["Nonce"], associated_data=answer["AD"], sealed=sealed)
        assert opened == answer["PT"]
        count += 1
    assert count == 1089


def test_one_known_answer_that_is_always_there(core: Core) -> None:
    sealed = core.seal(
        key=KEY, nonce=NONCE, associated_data=bytes(range(0x30, 0x41)), plaintext=bytes(range(0x20, 0x30))
    )
    assert sealed.hex() == "bf77c71b3de9f1c5b372ef273a08e89b6a67a7a5995c860ce8f00bc0fc2ebad6"


def test_forms_agree_on_single_messages(core: Core) -> None:
    rng = random.Random(7)
    reference = get_core(Form.REFERENCE)
    for _ in range(60):
        key, nonce = rng.randbytes(16), rng.randbytes(16)
        data, plaintext = rng.randbytes(rng.randrange(50)), rng.randbytes(rng.choice([0, 7, 8, 15, 16, 31, 200, 1000]))
        sealed = core.seal(key=key, nonce=nonce, associated_data=data, plaintext=plaintext)
        assert sealed == reference.seal(key=key, nonce=nonce, associated_data=data, plaintext=plaintext)
        assert core.open(key=key, nonce=nonce, associated_data=data, sealed=memoryview(sealed)) == plaintext


# One chunk more or less than every width of a form: 1, 2, 4, 6 (NumPy's fewest), 8 and 16, and their sums.
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 8, 13, 16, 31, 33])
def test_batches_equal_one_chunk_at_a_time(core: Core, count: int) -> None:
    if core.name == "plain python":
        count = min(count, 3)  # the yardstick takes its time
    rng = random.Random(count)
    key, nonce, first = rng.randbytes(16), rng.randbytes(16), rng.choice([0, 250, 2**32 - count])
    plaintext = rng.randbytes(count * CHUNK_BYTES)
    one_at_a_time = get_core(Form.SCALAR if Form.SCALAR in available_forms() else Form.REFERENCE)
    expected = b"".join(
        one_at_a_time.seal(
            key=key,
            nonce=chunk_nonce(nonce, first + i, last=False),
            associated_data=b"",
            plaintext=plaintext[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES],
        )
        for i in range(count)
    )
    sealed = bytearray(count * SEALED_CHUNK_BYTES)
    core.seal_chunks(
        key=key, nonce=nonce, first_index=first, plaintext=memoryview(plaintext), target=memoryview(sealed)
    )
    assert bytes(sealed) == expected

    opened = bytearray(len(plaintext))
    core.open_chunks(key=key, nonce=nonce, first_index=first, sealed=memoryview(expected), target=memoryview(opened))
    assert bytes(opened) == plaintext


@pytest.mark.parametrize("count", [1, 7, 19])
def test_a_batch_with_one_wrong_bit_gives_out_nothing(core: Core, count: int) -> None:
    if core.name == "plain python":
        count = 1  # the yardstick takes its time
    rng = random.Random(count)
    plaintext = rng.randbytes(count * CHUNK_BYTES)
    sealed = bytearray(count * SEALED_CHUNK_BYTES)
    core.seal_chunks(key=KEY, nonce=NONCE, first_index=0, plaintext=memoryview(plaintext), target=memoryview(sealed))
    # In the ciphertext of the first chunk, in the tag of the last, and somewhere.
    for at in (0, len(sealed) - 1, rng.randrange(len(sealed))):
        sealed[at] ^= 0x10
        target = bytearray(len(plaintext))
        with pytest.raises(DecryptionError):
            core.open_chunks(key=KEY, nonce=NONCE, first_index=0, sealed=memoryview(sealed), target=memoryview(target))
        assert not any(target)
        sealed[at] ^= 0x10


@pytest.mark.parametrize("length", [0, 1, 8, 16, 40])
def test_every_altered_bit_is_refused(core: Core, length: int) -> None:
    sealed = bytearray(core.seal(key=KEY, nonce=NONCE, associated_data=b"data", plaintext=bytes(length)))
    for bit in range(8 * len(sealed)):
        sealed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptionError):
            core.open(key=KEY, nonce=NONCE, associated_data=b"data", sealed=sealed)
        sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecryptionError):
        core.open(key=KEY, nonce=NONCE, associated_data=b"other", sealed=sealed)
    with pytest.raises(DecryptionError):
        core.open(key=NONCE, nonce=NONCE, associated_data=b"data", sealed=sealed)


def test_the_public_functions_check_lengths_and_take_a_core() -> None:
    sealed = ascon.seal(b"plaintext", key=KEY, nonce=NONCE, associated_data=b"")
    reference = get_core(Form.REFERENCE)
    assert ascon.open_sealed(sealed, key=KEY, nonce=NONCE, associated_data=b"", core=reference) == b"plaintext"
    with pytest.raises(DecryptionError):
        ascon.open_sealed(sealed[:15], key=KEY, nonce=NONCE, associated_data=b"")
    for key, nonce in ((KEY[1:], NONCE), (KEY, NONCE + b"\0")):
        with pytest.raises(KeyUsageError):
            ascon.seal(b"", key=key, nonce=nonce, associated_data=b"")
        with pytest.raises(KeyUsageError):
            ascon.open_sealed(sealed, key=key, nonce=nonce, associated_data=b"")


def test_the_nonce_of_a_chunk() -> None:
    assert chunk_nonce(bytes(16), 0x01020304, last=False).hex() == "00000000000000000000000001020304"
    assert chunk_nonce(bytes(16), 5, last=True).hex() == "01000000000000000000000000000005"
    assert chunk_nonce(b"\xff" * 16, 1, last=True) == b"\xfe" + b"\xff" * 14 + b"\xfe"


def test_a_form_can_be_forced_and_an_absent_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(form: str) -> Core:
        monkeypatch.setenv(ascon.FORM_VARIABLE, form)
        return ascon.default_core.__wrapped__()

    assert chosen("numpy").name == "numpy lanes" and not chosen("numpy").compiled
    assert chosen("reference").name == "plain python"
    assert chosen("").name == get_core(available_forms()[0]).name
    with pytest.raises(UnsupportedSuiteError):
        chosen("abacus")
    monkeypatch.setattr(ascon, "available_cores", dict)
    with pytest.raises(UnsupportedSuiteError):
        chosen("avx512")
    assert available_forms() == [Form.NUMPY, Form.REFERENCE]
    assert chosen("").name == "numpy lanes"


def test_without_a_compiler_the_suite_serves_and_calls_itself_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ascon, "default_core", NumpyCore)
    suite = get_suite("constrained")
    assert suite_is_slow(suite) and not suite_is_slow(get_suite("hybrid"))
    assert suite_state(suite).startswith("accepted: slow here (numpy lanes): python -m latticeward.build_kernels")


def test_with_a_compiled_form_the_suite_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    form = available_forms()[0]
    if not get_core(form).compiled:
        pytest.skip("no C compiler here")
    monkeypatch.setattr(ascon, "default_core", lambda: get_core(form))
    assert suite_state(get_suite("constrained")) == "accepted"
