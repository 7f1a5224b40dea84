"""How good a model is, as exact integers that can be summed under protection like the update itself.

A device never sends its AUC. It sends how many healthy and how many ill patients of its test part fell into
each of 256 score bins, as extra coordinates of the protected vector; only sums over hospitals are opened, and
the AUC of the merged histogram is called *binned*. The k-minimum under which such a value is not shown is the
caller's to apply; ``MetricSummary`` carries the counts for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from latticeward.errors import LayoutMismatchError, NonFiniteUpdateError
from latticeward.updates.encoding import CountVector

HISTOGRAM_BINS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSummary:
    """The value of merged counts, with what a k-minimum needs.

    Attributes:
        value: in [0, 1], or None where the counts do not define it.
        examples: patients behind it.
        smallest_class: patients of the rarer class (for accuracy, which has none, all of them).
    """

    value: float | None
    examples: int
    smallest_class: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One way to measure a model.

    Attributes:
        name: as in the plan.
        title: as shown to people.
        size: m, the counts that travel.
        measure: (scores, labels) -> uint32 counts, shape (m,).
        examples: counts, shape (m,) -> patients behind them; refuses counts that contradict themselves.
        summarise: merged counts, shape (m,) -> ``MetricSummary``.
    """

    name: str
    title: str
    size: int
    measure: Callable[[NDArray[Any], NDArray[Any]], CountVector]
    examples: Callable[[NDArray[Any]], int]
    summarise: Callable[[NDArray[Any]], MetricSummary]


def score_histogram(scores: NDArray[Any], labels: NDArray[Any], bins: int = HISTOGRAM_BINS) -> CountVector:
    """Count the scores of each class by equal bins of [0, 1].

    Args:
        scores: float, shape (n,), each in [0, 1].
        labels: shape (n,), each 0 or 1.
        bins: bins a class.

    Returns:
        uint32, shape (2·bins,): the negatives' counts, then the positives'.

    Raises:
        LayoutMismatchError: the shapes differ, or a label is neither 0 nor 1.
        NonFiniteUpdateError: a score is NaN or outside [0, 1].
    """
    if scores.ndim != 1 or scores.shape != labels.shape or not np.isin(labels, (0, 1)).all():
        raise LayoutMismatchError("scores need as many labels, each 0 or 1")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise NonFiniteUpdateError("a score is not a number between 0 and 1")
    # The last bin is closed on both sides, so that a score of exactly 1 has a place.
    index = np.minimum((scores.astype(np.float64) * bins).astype(np.int64), bins - 1)
    return np.bincount(index + bins * labels.astype(np.int64), minlength=2 * bins).astype(np.uint32)


def binned_auc(histogram: NDArray[Any]) -> float | None:
    """The area under the ROC curve of a (merged) histogram; scores of one bin count as ties, by half.

    Args:
        histogram: integers, shape (2·bins,), as ``score_histogram`` lays them out.

    Returns:
        In [0, 1], or None if either class is empty.

    Raises:
        LayoutMismatchError: an odd or empty length.
    """
    if histogram.ndim != 1 or histogram.size == 0 or histogram.size % 2:
        raise LayoutMismatchError("a score histogram has as many bins for each of two classes")
    # Python's integers: a device may claim counts up to the ring's bound, and their products do not fit 64 bits.
    negatives, positives = histogram.astype(object).reshape(2, -1)
    pairs = int(negatives.sum()) * int(positives.sum())
    if pairs == 0:
        return None
    below = np.cumsum(negatives) - negatives
    return int((positives * (2 * below + negatives)).sum()) / (2 * pairs)


def accuracy_counts(scores: NDArray[Any], labels: NDArray[Any]) -> CountVector:
    """Count right answers: the largest of several class scores, or a single score against one half.

    Args:
        scores: float, shape (n, classes) or (n,).
        labels: class numbers, shape (n,).

    Returns:
        uint32, shape (2,): [correct, total].

    Raises:
        LayoutMismatchError: not as many labels as scores.
        NonFiniteUpdateError: a score is not finite.
    """
    if scores.ndim not in (1, 2) or labels.shape != scores.shape[:1]:
        raise LayoutMismatchError("scores need as many labels")
    if not np.isfinite(scores).all():
        raise NonFiniteUpdateError("a score is not finite")
    answers = scores.argmax(axis=1) if scores.ndim == 2 else scores >= 0.5
    return np.array([np.count_nonzero(answers == labels), labels.size], dtype=np.uint32)


def _histogram_examples(counts: NDArray[Any]) -> int:
    return sum(counts.tolist())  # Python's integers, as in ``binned_auc``


def _accuracy_examples(counts: NDArray[Any]) -> int:
    if counts.shape != (2,):
        raise LayoutMismatchError("an accuracy has two counts")
    correct, total = counts.tolist()
    if not 0 <= correct <= total:
        raise LayoutMismatchError("more right answers than answers")
    return int(total)


def _summarise_histogram(counts: NDArray[Any]) -> MetricSummary:
    value = binned_auc(counts)
    classes = counts.astype(object).reshape(2, -1).sum(axis=1)
    return MetricSummary(value=value, examples=int(classes.sum()), smallest_class=int(classes.min()))


def _summarise_accuracy(counts: NDArray[Any]) -> MetricSummary:
    total = _accuracy_examples(counts)
    value = int(counts[0]) / total if total else None
    return MetricSummary(value=value, examples=total, smallest_class=total)


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric(
                name="auc",
                title="AUC (binned)",
                size=2 * HISTOGRAM_BINS,
                measure=score_histogram,
                examples=_histogram_examples,
                summarise=_summarise_histogram,
            ),
            Metric(
                name="accuracy",
                title="Accuracy",
                size=2,
                measure=accuracy_counts,
                examples=_accuracy_examples,
                summarise=_summarise_accuracy,
            ),
        )
    }
)
