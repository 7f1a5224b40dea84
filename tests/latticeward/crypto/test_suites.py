import threading
from dataclasses import replace

import pytest

from latticeward.crypto import suites
from latticeward.crypto.body import sealed_body_bytes
from latticeward.crypto.composite import PARAMETERS
from latticeward.crypto.kem import KEM_PARAMETERS
from latticeward.crypto.negotiation import negotiate
from latticeward.crypto.suites import DEFAULT_SUITE, SUITES, SuiteStatus, benchmark_context, get_suite
from latticeward.errors import UnsupportedSuiteError

SERVICE = ["hybrid", "high", "constrained"]


def test_the_default_is_the_one_preferred_suite() -> None:
    assert [row.id for row in SUITES.values() if row.status is SuiteStatus.PREFERRED] == [DEFAULT_SUITE]


def test_ids_and_wire_ids_are_unique_and_every_part_has_its_row() -> None:
    assert len({row.wire_id for row in SUITES.values()}) == len(SUITES)
    for name, row in SUITES.items():
        assert name == row.id
        assert 1 <= row.wire_id <= 255
        assert KEM_PARAMETERS[row.kem].kdf == row.kdf
        assert row.signature in PARAMETERS
        assert row.nist_category in (0, 1, 3, 5)
        assert sealed_body_bytes(0) == 72


def test_every_suite_in_service_is_a_hybrid_in_both_halves() -> None:
    for name in SERVICE:
        row = get_suite(name)
        assert KEM_PARAMETERS[row.kem].is_hybrid
        assert PARAMETERS[row.signature].is_hybrid
        assert row.nist_category > 0 and row.classical_bits >= 128


def test_an_unknown_suite_has_no_row() -> None:
    for name in ("", "hybrid ", "HYBRID", None, ["hybrid"]):
        with pytest.raises(UnsupportedSuiteError):
            get_suite(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offered", "accepted", "floor", "chosen"),
    [
        (SERVICE, SERVICE, "constrained", "hybrid"),
        (SERVICE, SERVICE, "high", "high"),
        (["constrained", "high"], SERVICE, "constrained", "high"),
        (["constrained"], SERVICE, "constrained", "constrained"),
        (["future-suite", "hybrid"], SERVICE, "hybrid", "hybrid"),
    ],
)
def test_the_best_common_suite_is_chosen(offered: list[str], accepted: list[str], floor: str, chosen: str) -> None:
    assert negotiate(offered, accepted, floor).id == chosen
    assert negotiate(accepted, offered, floor).id == chosen
    assert negotiate(offered[::-1], accepted[::-1], floor).id == chosen


@pytest.mark.parametrize(
    ("offered", "floor"),
    [
        ([], "constrained"),
        (["constrained"], "hybrid"),
        (["hybrid", "constrained"], "high"),
        (["classical"], "classical"),
        (["pq-only", "classical"], "classical"),
        (["future-suite"], "constrained"),
        (["hybrid"], "future-suite"),
    ],
)
def test_nothing_below_the_floor_and_no_benchmark_suite_is_chosen(offered: list[str], floor: str) -> None:
    with pytest.raises(UnsupportedSuiteError):
        negotiate(offered, list(SUITES), floor)


def test_benchmark_suites_work_inside_the_context_and_nowhere_else() -> None:
    classical = get_suite("classical")
    seen: list[bool] = []
    with benchmark_context():
        classical.require_makeable()
        assert negotiate(["classical"], ["classical"], "classical") is classical
        thread = threading.Thread(target=lambda: seen.append(suites.in_benchmark_context()))
        thread.start()
        thread.join()
    assert seen == [False]
    for refuse in (classical.require_makeable, classical.require_openable):
        with pytest.raises(UnsupportedSuiteError):
            refuse()


def test_the_benchmark_context_closes_after_an_error() -> None:
    with pytest.raises(RuntimeError), benchmark_context():
        raise RuntimeError
    assert not suites.in_benchmark_context()


def test_a_retired_suite_opens_and_makes_nothing() -> None:
    retired = replace(get_suite("hybrid"), status=SuiteStatus.RETIRED)
    retired.require_openable()
    with pytest.raises(UnsupportedSuiteError, match="retired"):
        retired.require_makeable()


def test_a_forbidden_suite_does_nothing() -> None:
    forbidden = replace(get_suite("hybrid"), status=SuiteStatus.FORBIDDEN)
    for refuse in (forbidden.require_makeable, forbidden.require_openable):
        with pytest.raises(UnsupportedSuiteError, match="forbidden"):
            refuse()
    with benchmark_context(), pytest.raises(UnsupportedSuiteError):
        forbidden.require_openable()


def test_a_row_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        SUITES["mine"] = get_suite("hybrid")  # type: ignore[index]
    with pytest.raises(AttributeError):
        get_suite("hybrid").status = SuiteStatus.FORBIDDEN  # type: ignore[misc]
