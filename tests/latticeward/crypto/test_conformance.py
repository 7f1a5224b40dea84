import json
from pathlib import Path

import pytest

from latticeward.crypto.conformance import OWN_VECTORS, ConformanceRow, run_conformance
from tests.latticeward.crypto.samples import SHARED_VECTORS


@pytest.fixture(scope="module")
def rows() -> list[ConformanceRow]:
    return run_conformance(SHARED_VECTORS if SHARED_VECTORS.is_dir() else None)


def test_no_vector_fails(rows: list[ConformanceRow]) -> None:
    assert [row for row in rows if row.failed] == []
    assert all(row.passed + row.failed == row.cases for row in rows)
    assert all(bool(row.cases) != bool(row.skipped) for row in rows)


def test_our_own_frozen_vectors_are_always_run(rows: list[ConformanceRow]) -> None:
    own = [row for row in rows if row.source == "own frozen vectors"]
    assert len(own) == 7
    assert all(row.cases for row in own)


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("ML-KEM-768", 1000),
        ("ML-KEM-1024", 1000),
        ("ML-DSA-65", 100),
        ("ML-DSA-87", 100),
        ("HPKE, post-quantum and hybrid KEMs", 5),
        ("AES-256-GCM, 96-bit nonce", 375),
        ("Composite ML-DSA, draft 19", 3),
        ("Ascon-AEAD128, SP 800-232", 1089),
        ("ML-DSA in HTTP message signatures", 3),
    ],
)
def test_all_cases_of_a_standard_are_run(rows: list[ConformanceRow], name: str, cases: int) -> None:
    row = next(row for row in rows if row.name == name)
    if row.skipped:
        pytest.skip(row.skipped)
    assert row.cases == cases


def test_vectors_that_are_not_there_are_skipped_with_a_reason(tmp_path: Path) -> None:
    found = run_conformance(None, own_vectors_dir=tmp_path)
    missing = [row for row in found if row.source != "cryptography_vectors"]
    assert missing and all(row.skipped and not row.cases for row in missing)


def test_a_wrong_vector_is_counted_as_failed(tmp_path: Path) -> None:
    sealed = json.loads((OWN_VECTORS / "hpke.json").read_text())
    sealed[0]["plaintext"] = sealed[0]["info"]
    (tmp_path / "hpke.json").write_text(json.dumps(sealed))
    sealed = json.loads((OWN_VECTORS / "envelopes.json").read_text())
    sealed[0]["role"] = "device"
    (tmp_path / "envelopes.json").write_text(json.dumps(sealed))
    failed = {row.name: row for row in run_conformance(None, own_vectors_dir=tmp_path) if row.failed}
    assert set(failed) == {"Sealed secrets", "Envelopes"}
    assert failed["Sealed secrets"].passed == 1
