import json
from base64 import b64decode

import pytest

from latticeward.crypto.hpke import INFO_LIMIT_BYTES, hpke_open, hpke_seal, sealed_bytes
from latticeward.crypto.keys import DecapsulationKey
from latticeward.crypto.suites import benchmark_context
from latticeward.errors import DecryptionError, MessageTooLargeError, UnsupportedSuiteError
from tests.latticeward.crypto.samples import decapsulation_key, flipped
from tests.vectors.generate import HERE

KEMS = ["mlkem768-x25519", "mlkem1024-p384"]


@pytest.mark.parametrize("algorithm", KEMS)
@pytest.mark.parametrize("size", [0, 1, 32, 1000])
def test_what_is_sealed_opens_and_has_the_length_it_should(algorithm: str, size: int) -> None:
    key, secret = decapsulation_key(algorithm), bytes(size)
    sealed = hpke_seal(secret, key=key.encapsulation_key, info=b"for a test")
    assert len(sealed) == sealed_bytes(algorithm, size)
    assert hpke_open(sealed, key=key, info=b"for a test") == secret


@pytest.mark.parametrize("algorithm", KEMS)
def test_two_seals_of_one_secret_differ(algorithm: str) -> None:
    key = decapsulation_key(algorithm).encapsulation_key
    assert hpke_seal(b"x", key=key, info=b"") != hpke_seal(b"x", key=key, info=b"")


@pytest.mark.parametrize("algorithm", KEMS)
def test_every_forgery_is_one_error_without_detail(algorithm: str) -> None:
    key, other = decapsulation_key(algorithm), decapsulation_key(algorithm, 1)
    sealed = hpke_seal(b"k" * 32, key=key.encapsulation_key, info=b"info")
    # A changed ML-KEM ciphertext gives another secret and no error of its own; only the tag tells.
    forged = [flipped(sealed, place) for place in (0, 500, 1087, 1119, len(sealed) - 17, len(sealed) - 1)]
    cases = [(raw, key, b"info") for raw in (*forged, b"", sealed[:-1], sealed + b"\0", sealed[:100])]
    cases += [(sealed, other, b"info"), (sealed, key, b"Info"), (sealed, key, b"")]
    messages = set()
    for raw, opener, info in cases:
        with pytest.raises(DecryptionError) as caught:
            hpke_open(raw, key=opener, info=info)
        messages.add(str(caught.value))
        assert caught.value.__cause__ is None
        assert type(caught.value) is DecryptionError
    assert len(messages) == 1


def test_a_secret_for_one_kem_does_not_open_with_another() -> None:
    sealed = hpke_seal(b"x", key=decapsulation_key(KEMS[0]).encapsulation_key, info=b"")
    with pytest.raises(DecryptionError):
        hpke_open(sealed, key=decapsulation_key(KEMS[1]), info=b"")


def test_info_has_a_limit() -> None:
    key = decapsulation_key()
    hpke_seal(b"x", key=key.encapsulation_key, info=bytes(INFO_LIMIT_BYTES))
    with pytest.raises(MessageTooLargeError):
        hpke_seal(b"x", key=key.encapsulation_key, info=bytes(INFO_LIMIT_BYTES + 1))
    with pytest.raises(MessageTooLargeError):
        hpke_open(bytes(2000), key=key, info=bytes(INFO_LIMIT_BYTES + 1))


def test_a_benchmark_kem_seals_and_opens_inside_the_context_only() -> None:
    with benchmark_context():
        key = DecapsulationKey.generate("x25519")
        sealed = hpke_seal(b"x", key=key.encapsulation_key, info=b"")
        assert hpke_open(sealed, key=key, info=b"") == b"x"
    with pytest.raises(UnsupportedSuiteError):
        hpke_seal(b"x", key=key.encapsulation_key, info=b"")
    with pytest.raises(UnsupportedSuiteError):
        hpke_open(sealed, key=key, info=b"")


@pytest.mark.parametrize("case", json.loads((HERE / "hpke.json").read_text()), ids=lambda case: case["algorithm"])
def test_frozen_sealed_secrets_open(case: dict[str, str]) -> None:
    key = DecapsulationKey.from_seed(b64decode(case["seed"]), case["algorithm"])
    opened = hpke_open(b64decode(case["sealed"]), key=key, info=b64decode(case["info"]))
    assert opened == b64decode(case["plaintext"])
