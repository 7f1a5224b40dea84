import builtins
import subprocess
import sys
from typing import Any

import pytest

from latticeward.crypto import selftest, selftest_answers, wrapping
from latticeward.crypto.selftest import run_selftest
from latticeward.errors import SelfTestError
from tests.vectors.generate import answers_source

POLICY = ["hybrid", "high", "constrained"]


def test_every_primitive_of_the_policy_is_checked_by_name() -> None:
    names = run_selftest(POLICY)
    for part in ("SHA-2", "AES-256-GCM", "requests", "mlkem768-x25519", "mlkem1024-p384", "mldsa65-ed25519",
                 "mldsa87-p384", "cobblestone-256", "ascon"):  # fmt: skip
        assert any(part in name for name in names), part
    assert len(set(names)) == len(names)
    assert not any("1024" in name or "ascon" in name for name in run_selftest(["hybrid"]))


def test_the_answers_in_the_code_are_those_of_the_frozen_files() -> None:
    with open(selftest_answers.__file__) as source:
        assert source.read() == answers_source()


@pytest.mark.parametrize("suite", ["classical", "pq-only", "no-such-suite"])
def test_a_policy_with_an_unusable_suite_does_not_start(suite: str) -> None:
    with pytest.raises(SelfTestError, match=r"^The policy names .*\.$"):
        run_selftest(["hybrid", suite])


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("KEY_IDS", "KEM mlkem768-x25519"),
        ("SEALED", "KEM mlkem768-x25519"),
        ("SIGNATURES", "signature mldsa65-ed25519"),
        ("BODIES", "body cobblestone-256"),
        ("WRAPPED", "AES-256-GCM"),
        ("DERIVED", "HKDF-SHA256"),
    ],
)
def test_a_wrong_answer_stops_the_start_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, table: str, name: str
) -> None:
    answers: dict[str, str] = getattr(selftest_answers, table)
    if table == "KEY_IDS":
        swapped = {key: value if key.startswith(("ml-", "ed")) else "00" * 32 for key, value in answers.items()}
    else:
        swapped = {key: value[:40] + ("B" if value[40] == "A" else "A") + value[41:] for key, value in answers.items()}
    monkeypatch.setattr(selftest_answers, table, swapped)
    with pytest.raises(SelfTestError) as caught:
        run_selftest(["hybrid"])
    sentence = str(caught.value)
    assert name in sentence and "wrong answer" in sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_a_primitive_that_refuses_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from latticeward.crypto import classical_half

    monkeypatch.setattr(classical_half, "verify", lambda *_: None)
    with pytest.raises(SelfTestError, match="mldsa65-ed25519"):
        run_selftest(["hybrid"])
    monkeypatch.undo()
    monkeypatch.setattr(wrapping, "unwrap_secret", lambda *_, **__: selftest_answers.PAYLOAD)
    with pytest.raises(SelfTestError, match="AES-256-GCM"):
        run_selftest(["hybrid"])


def test_whatever_a_broken_primitive_throws_becomes_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise MemoryError

    monkeypatch.setattr(selftest, "_check_digests", broken)
    with pytest.raises(SelfTestError, match="SHA-2"):
        run_selftest(["hybrid"])


def test_a_missing_primitive_becomes_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_mldsa(name: str, *rest: Any, **more: Any) -> Any:
        if name == "latticeward.crypto.authentication":
            raise ImportError("cannot import name 'mldsa'")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_mldsa)
    with pytest.raises(SelfTestError, match=r"missing: install cryptography 50\.0\.2 or newer \(found "):
        run_selftest(["hybrid"])


_OLD = """
import sys, types
import cryptography.hazmat.primitives.asymmetric as asymmetric
sys.modules["cryptography.hazmat.primitives.asymmetric.mldsa"] = None
from latticeward.crypto.selftest import run_selftest
from latticeward.errors import SelfTestError
try:
    run_selftest(["hybrid"])
except SelfTestError as error:
    print(error)
"""


def test_an_older_library_without_ml_dsa_ends_in_the_sentence_too() -> None:
    run = subprocess.run([sys.executable, "-c", _OLD], capture_output=True, text=True, check=True)
    assert run.stdout.count("\n") == 1
    assert "ML-DSA-65" in run.stdout and "install cryptography" in run.stdout
