import ctypes.util
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from latticeward.crypto import provider_adapters, providers
from latticeward.crypto.providers import (
    EXPERIMENTAL,
    PROVIDERS,
    kem_scheme,
    provider_state,
    signature_scheme,
)
from latticeward.crypto.suites import MAKEABLE, SUITES
from latticeward.errors import InvalidSignatureError, UnsupportedSuiteError


@pytest.fixture(autouse=True)
def _forget_what_was_found() -> Iterator[None]:
    for remembered in (providers._look, providers._load):
        remembered.cache_clear()
    yield
    for remembered in (providers._look, providers._load):
        remembered.cache_clear()


def test_experimental_rows_are_labelled_and_never_a_part_of_a_suite_in_service() -> None:
    parts = {part for row in SUITES.values() if row.status in MAKEABLE for part in row.experimental}
    assert not parts
    for row in EXPERIMENTAL.values():
        assert row.status == "experimental"
        assert row.note
        assert "FN-DSA" not in row.title and "SPHINCS" not in row.title
        assert set(row.names) <= set(PROVIDERS)


def test_a_missing_provider_says_so_and_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in PROVIDERS:
        state = provider_state(name)
        assert not state.is_installed
        assert "not installed" in state.sentence and "pip install" in state.sentence
    for row in EXPERIMENTAL.values():
        ask = signature_scheme if row.kind == "signature" else kem_scheme
        with pytest.raises(UnsupportedSuiteError, match="not installed"):
            ask(row.id)


def test_the_wrapper_of_liboqs_is_not_imported_where_no_library_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "oqs", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setenv("OQS_INSTALL_PATH", str(tmp_path))
    assert not provider_state("liboqs").is_installed
    providers._look.cache_clear()
    # A file of the right name that is no library would send the wrapper on to its network build.
    for folder in ("lib", "lib64"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "liboqs.so").write_bytes(b"not a library")
    assert not provider_state("liboqs").is_installed
    assert "oqs" not in sys.modules


def test_the_look_ups_are_those_of_the_wrapper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"{name}.so.7")
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "liboqs.so").touch()
    monkeypatch.setenv("OQS_INSTALL_PATH", str(tmp_path))
    assert providers._liboqs_candidates() == ["liboqs.so.7", "oqs.so.7", str(tmp_path / "lib64" / "liboqs.so")]
    monkeypatch.delenv("OQS_INSTALL_PATH")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "nowhere")
    assert providers._liboqs_candidates() == []


@pytest.mark.parametrize("failure", [SystemExit(1), ImportError("x"), OSError("x"), RuntimeError("x")])
def test_a_provider_that_ends_the_process_is_only_not_there(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def refuse(name: str) -> None:
        raise failure

    monkeypatch.setattr(providers, "_liboqs_candidates", lambda: ["liboqs.so"])
    monkeypatch.setattr(providers, "_loads", lambda name: True)
    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(UnsupportedSuiteError, match="cannot be loaded"):
        signature_scheme("falcon-512")


def test_what_a_provider_prints_does_not_reach_our_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty(name: str) -> SimpleNamespace:
        print("liboqs-python faulthandler is disabled")
        return SimpleNamespace(Signature=object)

    monkeypatch.setattr(providers, "_liboqs_candidates", lambda: ["liboqs.so"])
    monkeypatch.setattr(providers, "_loads", lambda name: True)
    monkeypatch.setattr(importlib, "import_module", chatty)
    signature_scheme("falcon-1024")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["", "hqc-192", "ml-dsa-65", "fn-dsa-512"])
def test_an_unknown_signature_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedSuiteError):
        signature_scheme(name)
    with pytest.raises(UnsupportedSuiteError):
        provider_state("openssl-legacy")


class _FakeLiboqs:
    """The surface of liboqs-python: a context manager, a boolean verify, ciphertext before secret."""

    def __init__(self, name: str, secret_key: bytes | None = None) -> None:
        self.secret_key = secret_key

    def __enter__(self) -> "_FakeLiboqs":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def generate_keypair(self) -> bytes:
        return b"public"

    def export_secret_key(self) -> bytes:
        return b"secret"

    def sign(self, message: bytes) -> bytes:
        return b"signed " + message

    def verify(self, message: bytes, signature: bytes, public_key: bytes) -> bool:
        return signature == b"signed " + message and public_key == b"public"

    def encap_secret(self, public_key: bytes) -> tuple[bytes, bytes]:
        return b"ciphertext", b"shared"

    def decap_secret(self, ciphertext: bytes) -> bytes:
        return b"shared" if ciphertext == b"ciphertext" and self.secret_key == b"secret" else b"noise"


def test_liboqs_is_turned_round_to_our_surface() -> None:
    module = SimpleNamespace(Signature=_FakeLiboqs, KeyEncapsulation=_FakeLiboqs)
    scheme = provider_adapters.SIGNATURE_ADAPTERS["liboqs"](module, "Falcon-512")
    public, secret = scheme.generate()
    scheme.verify(public, b"m", scheme.sign(secret, b"m"))
    with pytest.raises(InvalidSignatureError):
        scheme.verify(public, b"n", scheme.sign(secret, b"m"))
    kem = provider_adapters.KEM_ADAPTERS["liboqs"](module, "HQC-3")
    public, secret = kem.generate()
    shared, ciphertext = kem.encapsulate(public)
    assert (shared, ciphertext) == (b"shared", b"ciphertext")
    assert kem.decapsulate(secret, ciphertext) == shared


def test_every_installed_algorithm_works_and_has_the_sizes_of_its_row() -> None:
    for name, row in EXPERIMENTAL.items():
        # The small variants sign for a second and are the same code.
        if row.state.is_installed and not name.endswith("s"):
            _require_working(name)
        assert row.state.is_installed or "install" in row.state.sentence


def _require_working(name: str) -> None:
    row = EXPERIMENTAL[name]
    if row.kind == "kem":
        kem = kem_scheme(name)
        public, secret = kem.generate()
        shared, output = kem.encapsulate(public)
        assert kem.decapsulate(secret, output) == shared
    else:
        scheme = signature_scheme(name)
        public, secret = scheme.generate()
        output = scheme.sign(secret, b"message")
        scheme.verify(public, b"message", output)
        with pytest.raises(InvalidSignatureError):
            scheme.verify(public, b"Message", output)
    assert len(public) == row.public_bytes
    assert len(output) <= row.output_bytes


_LEAN = """
import sys
import latticeward.crypto.envelope, latticeward.crypto.keys, latticeward.crypto.signing, latticeward.crypto.suites
heavy = {"oqs", "pqcrypto", "numpy", "django", "latticeward.crypto.providers", "latticeward.crypto.conformance"}
print(sorted(heavy & set(sys.modules)))
"""


def test_the_ordinary_imports_load_no_provider() -> None:
    run = subprocess.run([sys.executable, "-c", _LEAN], capture_output=True, text=True, check=True, env={**os.environ})
    assert run.stdout.strip() == "[]"
