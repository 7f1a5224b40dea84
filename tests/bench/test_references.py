"""The figures that federation is compared with, and what the ring costs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.federation import run_federation
from bench.references import evaluate_vector, exact_auc, reference_results
from latticeward.errors import LayoutMismatchError, NotFoundError


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), min_size=1, max_size=40))
def test_exact_auc_counts_pairs_and_halves_ties(pairs: list[tuple[int, int]]) -> None:
    scores, labels = np.array([s / 8 for s, _ in pairs]), np.array([y for _, y in pairs])
    compared = [(p > n) + 0.5 * (p == n) for p, n in itertools.product(scores[labels == 1], scores[labels == 0])]
    auc = exact_auc(scores, labels)
    assert auc == (pytest.approx(sum(compared) / len(compared)) if compared else None)


def test_exact_auc_refuses_other_shapes() -> None:
    with pytest.raises(LayoutMismatchError):
        exact_auc(np.zeros(3), np.zeros(2))


def test_unknown_jobs_are_refused() -> None:
    with pytest.raises(NotFoundError):
        evaluate_vector("astrology", np.zeros(1, np.float32))


def test_heart_through_the_ring_is_heart_in_floats() -> None:
    ring = run_federation("heart", rounds=15, through_ring=True)
    plain = run_federation("heart", rounds=15, through_ring=False)
    result = evaluate_vector("heart", ring.vectors[-1])
    assert result["pooled"] >= 0.88
    assert abs(result["pooled"] - evaluate_vector("heart", plain.vectors[-1])["pooled"]) < 0.01
    assert ring.clipped == 0 and ring.saturated == 0
    # The binned figure is of the base model, so the last one belongs to the last but one vector.
    assert ring.measured[-1] == pytest.approx(evaluate_vector("heart", ring.vectors[-2])["pooled"], abs=0.005)
    assert {site: value["small_sample"] for site, value in result["by_site"].items()} == {
        "cleveland": False,
        "hungary": False,
        "switzerland": True,
        "va-long-beach": False,
    }


def test_heart_references() -> None:
    references = reference_results("heart")
    federated = evaluate_vector("heart", run_federation("heart", rounds=15, through_ring=True).vectors[-1])
    assert set(references["single"]) == set(federated["by_site"])
    assert abs(references["central"] - federated["pooled"]) < 0.02
    assert max(references["single"].values()) < federated["pooled"]


@pytest.mark.torch
@pytest.mark.slow
def test_thyroid_through_the_ring() -> None:
    pytest.importorskip("torch")
    ring = run_federation("thyroid", rounds=20, through_ring=True)
    plain = run_federation("thyroid", rounds=20, through_ring=False)
    pooled = evaluate_vector("thyroid", ring.vectors[-1])["pooled"]
    assert pooled >= 0.93
    assert abs(pooled - evaluate_vector("thyroid", plain.vectors[-1])["pooled"]) < 0.01
    assert ring.clipped == 0
