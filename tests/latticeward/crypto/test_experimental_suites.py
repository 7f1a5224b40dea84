"""Experimental suites: whole rows of the table, for measurements, with parts of providers that may be missing.

The schemes of installed providers are used where they are there; a stand-in of the right sizes takes their place where
not, so that composition, lengths and refusals are tested on every machine.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from latticeward.crypto import inner_kem, providers, quantum_half, suites
from latticeward.crypto.composite import CompositeSigningKey, CompositeVerifyKey, composite_parameters
from latticeward.crypto.envelope import parse_envelope
from latticeward.crypto.hpke import hpke_open, hpke_seal, sealed_bytes
from latticeward.crypto.kem import DecapsulationKey, EncapsulationKey
from latticeward.crypto.negotiation import negotiate
from latticeward.crypto.providers import EXPERIMENTAL, provider_state, suite_state
from latticeward.crypto.signing import Purpose, sign, verify
from latticeward.crypto.suites import SUITES, SuiteStatus, benchmark_context, get_suite
from latticeward.errors import DecryptionError, InvalidSignatureError, UnsupportedSuiteError
from tests.latticeward.crypto.samples import Sample

ROWS = [row for row in SUITES.values() if row.status is SuiteStatus.EXPERIMENTAL]
NAMES = [row.id for row in ROWS]


class _StandInSignature:
    """A hash in the shape of a scheme: no security, the right lengths."""

    def __init__(self, name: str) -> None:
        self._sizes = quantum_half.SIZES[name]

    def generate(self) -> tuple[bytes, bytes]:
        public = os.urandom(self._sizes.public)
        return public, (public * 40)[: self._sizes.secret - self._sizes.public]

    def sign(self, secret_key: bytes, message: bytes) -> bytes:
        return hashlib.shake_256(secret_key[:32] + message).digest(self._sizes.signature)

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> None:
        if signature != self.sign(public_key, message):
            raise InvalidSignatureError("the stand-in does not hold")


class _StandInKem:
    """A hash in the shape of HQC-192."""

    def generate(self) -> tuple[bytes, bytes]:
        public = os.urandom(4514)
        return public, public + bytes(88)

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        ciphertext = os.urandom(8978)
        return self.decapsulate(public_key, ciphertext), ciphertext

    def decapsulate(self, secret_key: bytes, ciphertext: bytes) -> bytes:
        return hashlib.sha256(secret_key[:4514] + ciphertext).digest()


@pytest.fixture(autouse=True)
def _stand_ins_for_missing_providers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = quantum_half._scheme

    def scheme(name: str) -> object:
        return real(name) if EXPERIMENTAL[name].state.is_installed else _StandInSignature(name)

    monkeypatch.setattr(quantum_half, "_scheme", scheme)
    if not EXPERIMENTAL["hqc-192"].state.is_installed:
        monkeypatch.setattr(inner_kem, "_scheme", lambda name: _StandInKem())
    with benchmark_context():
        yield


@contextmanager
def _in_service() -> Iterator[None]:
    """Leaves the benchmark context for a block, as code in service would find it."""
    token = suites._in_benchmark.set(False)
    try:
        yield
    finally:
        suites._in_benchmark.reset(token)


def test_falcon_slh_dsa_and_hqc_are_rows_of_the_table() -> None:
    parts = {part for row in ROWS for part in row.experimental}
    assert {"falcon-512", "falcon-1024", "hqc-192"} < parts
    assert any(part.startswith("slh-dsa") for part in parts)
    assert parts <= set(EXPERIMENTAL)
    assert all(row.id.startswith("experimental-") and row.strength < get_suite("constrained").strength for row in ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_an_envelope_of_an_experimental_suite_is_sealed_signed_verified_and_opened(name: str) -> None:
    sample = Sample(suite=name, plaintext=bytes(range(256)) * 100)
    raw = sample.seal()
    assert sample.open(raw).plaintext == sample.plaintext
    limit = composite_parameters(get_suite(name).signature).signature_limit_bytes
    for place in (-1, 10 - limit):  # the classical half, and the other one
        forged = bytearray(raw)
        forged[place] ^= 1
        with pytest.raises(InvalidSignatureError):
            sample.open(bytes(forged))


@pytest.mark.parametrize("name", NAMES)
def test_outside_a_benchmark_nothing_of_an_experimental_suite_is_made_read_or_chosen(name: str) -> None:
    row = get_suite(name)
    raw = Sample(suite=name, plaintext=b"x" * 100).seal()
    with _in_service():
        for refused in (row.require_makeable, row.require_openable):
            with pytest.raises(UnsupportedSuiteError):
                refused()
        with pytest.raises(UnsupportedSuiteError):
            parse_envelope(raw, limit_bytes=len(raw))
        with pytest.raises(UnsupportedSuiteError):
            negotiate([name], [name], name)
        if row.signature not in (get_suite("hybrid").signature, get_suite("high").signature):
            with pytest.raises(UnsupportedSuiteError, match="experimental"):
                CompositeSigningKey.generate(row.signature)
        if row.kem not in (get_suite("hybrid").kem, get_suite("high").kem):
            with pytest.raises(UnsupportedSuiteError, match="experimental"):
                DecapsulationKey.generate(row.kem)


@pytest.mark.parametrize("algorithm", [row.signature for row in ROWS if row.id != "experimental-hqc"])
def test_keys_come_back_from_their_stored_forms_and_both_halves_must_hold(algorithm: str) -> None:
    key = CompositeSigningKey.from_file(CompositeSigningKey.generate(algorithm).export_file())
    public = CompositeVerifyKey.from_raw(key.verify_key.raw, algorithm)
    other = CompositeSigningKey.generate(algorithm)
    mine, theirs = (sign(b"m", purpose=Purpose.BENCHMARK, key=signer) for signer in (key, other))
    verify(mine, b"m", purpose=Purpose.BENCHMARK, key=public)
    cut = quantum_half.SIZES[composite_parameters(algorithm).quantum].signature
    for forged in (mine[:cut] + theirs[cut:], theirs[:cut] + mine[cut:], mine + b"\0", mine[:-1]):
        with pytest.raises(InvalidSignatureError):
            verify(forged, b"m", purpose=Purpose.BENCHMARK, key=public)


def test_a_secret_under_two_kems_needs_both_private_keys() -> None:
    algorithm = get_suite("experimental-hqc").kem
    key, other = DecapsulationKey.generate(algorithm), DecapsulationKey.generate(algorithm)
    stored = DecapsulationKey.from_file(key.export_file())
    public = EncapsulationKey.from_raw(key.encapsulation_key.raw, algorithm)
    sealed = hpke_seal(b"s" * 32, key=public, info=b"info")
    assert len(sealed) == sealed_bytes(algorithm, 32)
    assert hpke_open(sealed, key=stored, info=b"info") == b"s" * 32
    half_and_half = DecapsulationKey.from_seed(key.export_seed()[:32] + other.export_seed()[32:], algorithm)
    other_half = DecapsulationKey.from_seed(other.export_seed()[:32] + key.export_seed()[32:], algorithm)
    for wrong in (other, half_and_half, other_half):
        with pytest.raises(DecryptionError):
            hpke_open(sealed, key=wrong, info=b"info")
    with pytest.raises(DecryptionError):
        hpke_open(sealed, key=key, info=b"other")


def test_a_row_says_what_is_missing_and_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert suite_state(get_suite("hybrid")) == "preferred"
    providers._look.cache_clear()
    monkeypatch.setattr(providers.importlib.util, "find_spec", lambda name: None)
    try:
        assert not provider_state("liboqs").is_installed
        for row in ROWS:
            sentence = suite_state(row)
            assert sentence.startswith("experimental: ") and "not installed" in sentence and "pip install" in sentence
    finally:
        monkeypatch.undo()
        providers._look.cache_clear()
