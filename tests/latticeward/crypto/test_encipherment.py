"""Encipherment keys and their certificates: ML-KEM as FIPS 203 and RFC 9935 have it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from latticeward.crypto.certificate import PROFILES, DeviceNames, verify_chain
from latticeward.crypto.encipherment import (
    ENCIPHERMENT_ALGORITHMS,
    ML_KEM_768,
    ML_KEM_1024,
    DeciphermentKey,
    EnciphermentKey,
    encipherment_algorithm,
)
from latticeward.crypto.encipherment_certificate import as_pem, verify_encipherment_chain
from latticeward.crypto.issuing import issue_encipherment
from latticeward.errors import (
    CertificateNotValidError,
    DecryptionError,
    KeyUsageError,
    MalformedMessageError,
    UnsupportedSuiteError,
)
from tests.latticeward.peers import FEDERATION, NOW, SITE, authority, device_keys

DEVICE_ID = "5b1f6c2e-0000-4000-8000-000000000001"
NAMES = DeviceNames(federation=FEDERATION, site=SITE, device_id=DEVICE_ID)
SEED = bytes(range(64))
EVERY = sorted(ENCIPHERMENT_ALGORITHMS)


def certificate(key: EnciphermentKey, **changes: Any) -> bytes:
    own = authority()
    values = {"names": NAMES, "issuing": own.issuing, "issuing_key": own.issuing_key, "now": NOW}
    return issue_encipherment(key, **{**values, "lifetime": timedelta(days=1), **changes})


def verify(leaf: bytes, **changes: Any) -> Any:
    own = authority()
    values = {"root": own.root, "now": NOW, "names": NAMES, "profile": PROFILES["standard"]}
    return verify_encipherment_chain([leaf, own.issuing], **{**values, **changes})


@pytest.mark.parametrize("name", EVERY)
def test_what_is_encapsulated_to_a_key_is_decapsulated_by_it_alone(name: str) -> None:
    key = DeciphermentKey.from_seed(SEED, name)
    secret, ciphertext = key.encipherment_key.encapsulate()
    assert key.decapsulate(ciphertext) == secret and len(secret) == 32
    assert len(ciphertext) == ENCIPHERMENT_ALGORITHMS[name].ciphertext_bytes
    assert DeciphermentKey.generate(name).decapsulate(ciphertext) != secret
    with pytest.raises(DecryptionError):
        key.decapsulate(ciphertext[:-1])


@pytest.mark.parametrize("name", EVERY)
def test_a_public_key_is_read_as_it_was_written(name: str) -> None:
    key = DeciphermentKey.from_seed(SEED, name).encipherment_key
    again = EnciphermentKey.from_raw(key.raw, name)
    assert again == key and hash(again) == hash(key) and again.key_id == key.key_id
    assert key != EnciphermentKey.from_raw(DeciphermentKey.generate(name).encipherment_key.raw, name)


def test_one_seed_gives_two_keys_of_two_parameter_sets() -> None:
    keys = [DeciphermentKey.from_seed(SEED, name).encipherment_key for name in EVERY]
    assert keys[0].key_id != keys[1].key_id


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("coefficient", [3329, 4095])
def test_a_coefficient_out_of_range_is_refused_wherever_it_stands(name: str, coefficient: int) -> None:
    raw = DeciphermentKey.from_seed(SEED, name).encipherment_key.raw
    last = len(raw) - 35
    for place, pair in ((0, coefficient), (0, coefficient << 12), (last, coefficient), (last, coefficient << 12)):
        bent = raw[:place] + pair.to_bytes(3, "little") + raw[place + 3 :]
        with pytest.raises(MalformedMessageError, match="3329"):
            EnciphermentKey.from_raw(bent, name)


def test_the_seed_of_the_matrix_is_no_coefficient() -> None:
    raw = DeciphermentKey.from_seed(SEED, ML_KEM_768).encipherment_key.raw
    assert EnciphermentKey.from_raw(raw[:-32] + b"\xff" * 32, ML_KEM_768).raw.endswith(b"\xff" * 32)


@pytest.mark.parametrize("name", EVERY)
def test_keys_of_wrong_length_zeros_and_unknown_sets_are_refused(name: str) -> None:
    raw = DeciphermentKey.from_seed(SEED, name).encipherment_key.raw
    for bent in (raw[:-1], raw + b"\x00", b""):
        with pytest.raises(MalformedMessageError):
            EnciphermentKey.from_raw(bent, name)
    with pytest.raises(KeyUsageError):
        EnciphermentKey.from_raw(bytes(len(raw)), name)
    for unknown in ("ml-kem-512", "mlkem768", ""):
        with pytest.raises(UnsupportedSuiteError):
            EnciphermentKey.from_raw(raw, unknown)
        with pytest.raises(UnsupportedSuiteError):
            DeciphermentKey.from_seed(SEED, unknown)
    with pytest.raises(MalformedMessageError):
        DeciphermentKey.from_seed(SEED[:32], name)


def test_the_suite_decides_on_the_parameter_set() -> None:
    found = {suite: encipherment_algorithm(suite) for suite in ("hybrid", "constrained", "high")}
    assert found == {"hybrid": ML_KEM_768, "constrained": ML_KEM_768, "high": ML_KEM_1024}
    with pytest.raises(UnsupportedSuiteError):
        encipherment_algorithm("classical")
    with pytest.raises(UnsupportedSuiteError):
        encipherment_algorithm("tomorrow")


@pytest.mark.parametrize("name", EVERY)
def test_the_private_key_file_holds_the_seed_and_nothing_else(name: str) -> None:
    key = DeciphermentKey.from_seed(SEED, name)
    text = key.export_pkcs8()
    assert text.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    read: Any = load_pem_private_key(text, None)
    assert read.private_bytes_raw() == SEED
    assert "secret" in repr(key) and SEED.hex() not in repr(key)


@pytest.mark.parametrize("name", EVERY)
def test_a_certificate_is_believed_for_its_device(name: str) -> None:
    key = DeciphermentKey.from_seed(SEED, name).encipherment_key
    found = verify(certificate(key))
    assert (found.algorithm, found.public_key) == (name, key.raw)
    assert found.not_after_at == (NOW + timedelta(days=1)).replace(microsecond=0)


def test_a_certificate_that_is_not_this_is_refused() -> None:
    key = DeciphermentKey.from_seed(SEED, ML_KEM_768).encipherment_key
    good, own = certificate(key), authority()
    identity = own.certificate(device_keys().authentication.verify_key.raw, device_id=DEVICE_ID)
    for leaf, changes, why in (
        (good, {"names": replace(NAMES, site="other")}, "another device"),
        (good, {"now": NOW + timedelta(days=2)}, "path validation"),
        (good, {"profile": PROFILES["cnsa2"]}, "another algorithm"),
        (identity, {}, "another algorithm"),
    ):
        with pytest.raises(CertificateNotValidError, match=why):
            verify(leaf, **changes)
    # And the other way round: it proves nobody's identity.
    with pytest.raises(CertificateNotValidError, match="another algorithm"):
        verify_chain([good, own.issuing], root=own.root, now=NOW)
    with pytest.raises(MalformedMessageError):
        as_pem([b"nothing"])
    assert as_pem([good, own.issuing]).count(b"BEGIN CERTIFICATE") == 2
