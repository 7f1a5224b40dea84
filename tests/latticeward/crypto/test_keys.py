import copy
import hashlib
import json
import pickle
from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from latticeward.crypto.composite import PARAMETERS
from latticeward.crypto.keys import (
    AuthenticationSigningKey,
    AuthenticationVerifyKey,
    ClassicalSigningKey,
    ClassicalVerifyKey,
    CompositeSigningKey,
    CompositeVerifyKey,
    DecapsulationKey,
    EncapsulationKey,
    SecretKey,
)
from latticeward.crypto.points import _ED25519_SMALL, _X25519_SMALL
from latticeward.crypto.suites import benchmark_context
from latticeward.errors import (
    InvalidSignatureError,
    KeyUsageError,
    MalformedMessageError,
    MessageTooLargeError,
    UnsupportedSuiteError,
)
from tests.latticeward.crypto.samples import decapsulation_key, signing_key
from tests.vectors.generate import HERE

SIGNATURES = ["mldsa65-ed25519", "mldsa65-p384", "mldsa87-p384"]
KEMS = ["mlkem768-x25519", "mlkem1024-p384"]


def secret_keys() -> list[SecretKey]:
    return [
        *(signing_key(name) for name in SIGNATURES),
        *(decapsulation_key(name) for name in KEMS),
        AuthenticationSigningKey.generate(),
        ClassicalSigningKey.generate(),
    ]


@pytest.mark.parametrize("key", secret_keys(), ids=repr)
def test_a_secret_key_is_not_shown_compared_copied_or_pickled(key: SecretKey) -> None:
    secret = key.export_seed()
    for shown in (repr(key), str(key), f"{key}"):
        assert secret.hex() not in shown and repr(secret) not in shown
        assert "secret" in shown
    for comparison in (lambda: key == key, lambda: key != key, lambda: hash(key)):
        with pytest.raises(TypeError):
            comparison()
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copying(key)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("key", secret_keys(), ids=repr)
def test_a_key_comes_back_from_its_seed_and_from_its_file(key: SecretKey) -> None:
    for again in (type(key).from_seed(key.export_seed(), key.algorithm), type(key).from_file(key.export_file())):
        assert again.export_seed() == key.export_seed()
        assert again.algorithm == key.algorithm


@pytest.mark.parametrize("key", secret_keys(), ids=repr)
def test_a_seed_of_another_length_is_refused(key: SecretKey) -> None:
    seed = key.export_seed()
    for wrong in (b"", seed[:-1], seed + b"\0", seed.hex()):
        with pytest.raises(MalformedMessageError):
            type(key).from_seed(wrong, key.algorithm)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", secret_keys(), ids=repr)
def test_a_key_file_is_bound_to_kind_and_algorithm(key: SecretKey) -> None:
    for other in (CompositeSigningKey, DecapsulationKey, AuthenticationSigningKey, ClassicalSigningKey):
        if other is not type(key):
            with pytest.raises(KeyUsageError, match="holds"):
                other.from_file(key.export_file())
    with pytest.raises(UnsupportedSuiteError):
        type(key).from_seed(key.export_seed(), "rsa-2048")
    with pytest.raises(MalformedMessageError):
        type(key).from_file(b"\xa0")
    with pytest.raises(MessageTooLargeError):
        type(key).from_file(bytes(20_000))


def test_one_seed_gives_unrelated_keys_under_two_algorithms() -> None:
    seed = bytes(32)
    first, second = (DecapsulationKey.from_seed(seed, name).encapsulation_key for name in KEMS)
    assert first.raw[:32] != second.raw[:32]


def test_the_seed_is_overwritten_when_a_key_goes() -> None:
    key = ClassicalSigningKey.generate()
    seed = key._seed
    del key
    assert seed == bytes(32)


@pytest.mark.parametrize("case", json.loads((HERE / "keys.json").read_text()), ids=lambda case: case["algorithm"])
def test_frozen_key_ids_hold(case: dict[str, str]) -> None:
    seed, algorithm = b64decode(case["seed"]), case["algorithm"]
    public: CompositeVerifyKey | EncapsulationKey | AuthenticationVerifyKey | ClassicalVerifyKey
    match case["kind"]:
        case "composite":
            public = CompositeSigningKey.from_seed(seed, algorithm).verify_key
        case "kem":
            public = DecapsulationKey.from_seed(seed, algorithm).encapsulation_key
        case AuthenticationSigningKey.KIND:
            public = AuthenticationSigningKey.from_seed(seed, algorithm).verify_key
        case _:
            public = ClassicalSigningKey.from_seed(seed, algorithm).verify_key
    assert public.key_id.hex() == case["key_id"]
    assert public.key_id == hashlib.sha256(algorithm.encode() + public.raw).digest()
    assert public.fingerprint == " ".join(case["key_id"][place : place + 4] for place in range(0, 32, 4))


@pytest.mark.parametrize("algorithm", SIGNATURES)
def test_a_composite_public_key_has_its_length_and_round_trips(algorithm: str) -> None:
    key = signing_key(algorithm).verify_key
    assert len(key.raw) == PARAMETERS[algorithm].public_bytes
    assert CompositeVerifyKey.from_raw(key.raw, algorithm) == key
    assert key != signing_key(algorithm, 1).verify_key
    for wrong in (key.raw[:-1], key.raw + b"\0", b""):
        with pytest.raises(MalformedMessageError):
            CompositeVerifyKey.from_raw(wrong, algorithm)


@pytest.mark.parametrize("algorithm", KEMS)
def test_an_encapsulation_key_has_its_length_and_round_trips(algorithm: str) -> None:
    key = decapsulation_key(algorithm).encapsulation_key
    assert EncapsulationKey.from_raw(key.raw, algorithm) == key
    assert key != decapsulation_key(algorithm, 1).encapsulation_key
    for wrong in (key.raw[:-1], key.raw + b"\0", b""):
        with pytest.raises(MalformedMessageError):
            EncapsulationKey.from_raw(wrong, algorithm)


def test_a_lattice_coefficient_out_of_range_is_refused() -> None:
    raw = decapsulation_key().encapsulation_key.raw
    with pytest.raises(MalformedMessageError):
        EncapsulationKey.from_raw(b"\xff" * 3 + raw[3:], "mlkem768-x25519")


def test_a_point_off_the_curve_is_refused() -> None:
    raw = decapsulation_key("mlkem1024-p384").encapsulation_key.raw
    for tail in (bytes(97), b"\x04" + bytes(96), b"\x02" + raw[1569:], raw[1568:-1] + bytes([raw[-1] ^ 1])):
        with pytest.raises(MalformedMessageError):
            EncapsulationKey.from_raw(raw[:1568] + tail, "mlkem1024-p384")
    raw = signing_key("mldsa87-p384").verify_key.raw
    with pytest.raises(MalformedMessageError):
        CompositeVerifyKey.from_raw(raw[:2592] + b"\x04" + bytes(96), "mldsa87-p384")


def test_a_half_of_zeros_is_refused() -> None:
    for algorithm, cut in (("mlkem768-x25519", 1184), ("mlkem1024-p384", 1568)):
        raw = decapsulation_key(algorithm).encapsulation_key.raw
        with pytest.raises(KeyUsageError):
            EncapsulationKey.from_raw(bytes(cut) + raw[cut:], algorithm)
    raw = signing_key().verify_key.raw
    with pytest.raises(KeyUsageError):
        CompositeVerifyKey.from_raw(bytes(1952) + raw[1952:], "mldsa65-ed25519")
    with pytest.raises(KeyUsageError):
        AuthenticationVerifyKey.from_raw(bytes(1952))


@pytest.mark.parametrize("coordinate", sorted(_X25519_SMALL))
@pytest.mark.parametrize("top", [0, 1 << 255])
def test_x25519_points_of_small_order_are_refused(coordinate: int, top: int) -> None:
    point = (coordinate | top).to_bytes(32, "little")
    # The list is right if the library finds an all-zero secret for each of its members.
    with pytest.raises(ValueError, match="Error computing shared key"):
        x25519.X25519PrivateKey.generate().exchange(x25519.X25519PublicKey.from_public_bytes(point))
    raw = decapsulation_key().encapsulation_key.raw
    with pytest.raises(KeyUsageError):
        EncapsulationKey.from_raw(raw[:1184] + point, "mlkem768-x25519")


def _edwards_order_divides_eight(y: int) -> bool:
    """Whether the points with this y-coordinate on edwards25519 have an order of 1, 2, 4 or 8."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    # Doubling needs y only: y' = (y² + x²) / (2 - y² + x²) on -x² + y² = 1 + dx²y², with x² from y.
    for _ in range(3):
        x2 = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        y = (y * y + x2) * pow(2 - y * y + x2, -1, p) % p
    return y == 1


def test_the_list_of_ed25519_points_of_small_order_is_right() -> None:
    assert len(_ED25519_SMALL) == 5
    assert all(_edwards_order_divides_eight(y) for y in _ED25519_SMALL)
    public = int.from_bytes(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw(), "little")
    assert not _edwards_order_divides_eight(public & (2**255 - 1))


@pytest.mark.parametrize("coordinate", [*sorted(_ED25519_SMALL), 2**255 - 19, 2**255 - 18, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_ed25519_points_of_small_order_or_second_spelling_are_refused(coordinate: int, sign: int) -> None:
    point = (coordinate | sign).to_bytes(32, "little")
    with pytest.raises(KeyUsageError):
        ClassicalVerifyKey.from_raw(point)
    with pytest.raises(KeyUsageError):
        CompositeVerifyKey.from_raw(signing_key().verify_key.raw[:1952] + point, "mldsa65-ed25519")


def test_one_half_alone_is_no_key_outside_benchmarks() -> None:
    with benchmark_context():
        alone = [CompositeSigningKey.generate("ed25519"), CompositeSigningKey.generate("mldsa65")]
        kems = [DecapsulationKey.generate("x25519"), DecapsulationKey.generate("mlkem768")]
    for key in alone:
        with pytest.raises(UnsupportedSuiteError):
            CompositeVerifyKey.from_raw(key.verify_key.raw, key.algorithm)
    for kem in kems:
        with pytest.raises(UnsupportedSuiteError):
            EncapsulationKey.from_raw(kem.encapsulation_key.raw, kem.algorithm)


def test_authentication_keys_sign_and_refuse() -> None:
    for kind in (AuthenticationSigningKey, ClassicalSigningKey):
        key, other = kind.generate(), kind.generate()
        signature = key.sign(b"data")
        key.verify_key.verify(signature, b"data")
        refused = [(signature, b"Data"), (signature[:-1], b"data"), (signature + b"\0", b"data"), (b"", b"data")]
        for bad, data in refused:
            with pytest.raises(InvalidSignatureError):
                key.verify_key.verify(bad, data)
        with pytest.raises(InvalidSignatureError):
            other.verify_key.verify(signature, b"data")


def test_an_ecdsa_secret_with_another_frame_or_scalar_is_refused() -> None:
    seed = signing_key("mldsa87-p384").export_seed()
    for wrong in (seed[:32] + b"\x31" + seed[33:], seed[:-1] + b"\0", seed[:39] + bytes(48) + seed[87:]):
        with pytest.raises(MalformedMessageError):
            CompositeSigningKey.from_seed(wrong, "mldsa87-p384")
