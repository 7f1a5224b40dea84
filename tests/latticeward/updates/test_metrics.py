"""Merged histograms say what the pooled scores would say."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticeward.errors import LayoutMismatchError, NonFiniteUpdateError
from latticeward.updates.metrics import METRICS, accuracy_counts, binned_auc, score_histogram


def _pairwise(scores: np.ndarray, labels: np.ndarray) -> float:
    positives, negatives = scores[labels == 1], scores[labels == 0]
    wins = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in itertools.product(positives, negatives))
    return wins / (len(positives) * len(negatives))


rows = st.lists(st.tuples(st.integers(0, 256), st.integers(0, 1)), min_size=2, max_size=60).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


@given(rows)
def test_binned_auc_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    bins, labels = np.array(pairs).T
    scores = bins / 256
    held = np.minimum(bins, 255)
    assert math.isclose(binned_auc(score_histogram(scores, labels)) or 0.0, _pairwise(held, labels), abs_tol=1e-12)


@given(rows, rows)
def test_histograms_of_two_hospitals_add_up(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    def histogram(pairs: list[tuple[int, int]]) -> np.ndarray:
        bins, labels = np.array(pairs).T
        return score_histogram(bins / 256, labels)

    assert np.array_equal(histogram(one) + histogram(two), histogram(one + two))


def test_histogram_lays_out_negatives_then_positives() -> None:
    counts = score_histogram(np.array([0.0, 0.5, 1.0, 1.0]), np.array([0, 0, 1, 0]), bins=4)
    assert counts.dtype == np.uint32
    assert counts.tolist() == [1, 0, 1, 1, 0, 0, 0, 1]


def test_auc_is_undefined_without_both_classes() -> None:
    assert binned_auc(np.zeros(512, np.int64)) is None
    assert binned_auc(score_histogram(np.array([0.1, 0.9]), np.array([1, 1]))) is None


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.1])
def test_refuses_scores_that_are_no_probability(score: float) -> None:
    with pytest.raises(NonFiniteUpdateError):
        score_histogram(np.array([0.5, score]), np.array([0, 1]))


def test_refuses_labels_and_shapes_that_do_not_fit() -> None:
    with pytest.raises(LayoutMismatchError):
        score_histogram(np.array([0.5, 0.5]), np.array([0, 2]))
    with pytest.raises(LayoutMismatchError):
        score_histogram(np.array([0.5, 0.5]), np.array([0]))
    with pytest.raises(LayoutMismatchError):
        binned_auc(np.zeros(3, np.int64))
    with pytest.raises(LayoutMismatchError):
        accuracy_counts(np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(NonFiniteUpdateError):
        accuracy_counts(np.array([[0.0, math.nan]]), np.zeros(1))


def test_accuracy_of_one_or_many_classes() -> None:
    assert accuracy_counts(np.array([0.2, 0.5, 0.7]), np.array([0, 1, 0])).tolist() == [2, 3]
    assert accuracy_counts(np.array([[0, 2, 1], [3, 0, 0]]), np.array([1, 2])).tolist() == [1, 2]


def test_summaries_carry_what_a_k_minimum_needs() -> None:
    auc = METRICS["auc"].summarise(score_histogram(np.array([0.1, 0.9, 0.8]), np.array([0, 1, 1])))
    assert (auc.value, auc.examples, auc.smallest_class) == (1.0, 3, 1)
    accuracy = METRICS["accuracy"].summarise(np.array([3, 4]))
    assert (accuracy.value, accuracy.examples, accuracy.smallest_class) == (0.75, 4, 4)
    assert METRICS["accuracy"].examples(np.array([3, 4])) == 4
    assert METRICS["accuracy"].summarise(np.array([0, 0])).value is None
    for counts in (np.array([5, 4]), np.array([1, 2, 3])):
        for read in (METRICS["accuracy"].summarise, METRICS["accuracy"].examples):
            with pytest.raises(LayoutMismatchError):
                read(counts)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_measured_counts_have_the_declared_size(name: str) -> None:
    metric = METRICS[name]
    counts = metric.measure(np.array([0.25, 0.75]), np.array([0, 1]))
    assert metric.name == name and counts.dtype == np.uint32 and counts.shape == (metric.size,)


def test_the_area_under_counts_of_any_size_is_exact() -> None:
    even = np.full(512, 2**31 - 1, dtype=np.int64)
    assert binned_auc(even) == 0.5
    apart = np.zeros(512, dtype=np.int64)
    apart[0] = apart[511] = 2**62
    summary = METRICS["auc"].summarise(apart)
    assert METRICS["auc"].examples(apart) == METRICS["auc"].examples(apart.astype(np.uint64)) == 2**63
    assert (summary.value, summary.examples, summary.smallest_class) == (1.0, 2**63, 2**62)
