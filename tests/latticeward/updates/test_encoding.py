"""The ring's promises: exact, in any order, reversible, and never overflowing."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latticeward.errors import IncompatiblePlanError, LayoutMismatchError, NormExceededError
from latticeward.updates.clipping import ClippedUpdate, ModelUpdate, clip_update
from latticeward.updates.encoding import FixedPointCodec
from latticeward.updates.ring import accumulate, subtract

SIZE, METRICS = 9, 3


def codec(**changes: Any) -> FixedPointCodec:
    values: dict[str, Any] = {
        "clip_norm": 2.0,
        "weight_cap": 100.0,
        "cohort_bound": 8,
        "ring_bits": 32,
        "size": SIZE,
        "metric_size": METRICS,
    }
    return FixedPointCodec(**{**values, **changes})


def counts(*values: int) -> np.ndarray:
    return np.array(values or (0, 0, 0), np.uint32)


def clipped(vector: Any, *, weight: float = 100.0, clip_norm: float = 2.0) -> ClippedUpdate:
    return clip_update(ModelUpdate(vector=np.asarray(vector, np.float32), weight=weight), clip_norm=clip_norm)


def random_update(rng: np.random.Generator, *, clip_norm: float = 2.0) -> ClippedUpdate:
    scale = 10.0 ** rng.uniform(-4, 1)
    return clipped(rng.standard_normal(SIZE) * scale, weight=float(rng.uniform(0, 300)), clip_norm=clip_norm)


plans = st.fixed_dictionaries(
    {
        "clip_norm": st.floats(1e-3, 1e4),
        "weight_cap": st.floats(0.5, 1e6),
        "cohort_bound": st.integers(2, 4096),
        "ring_bits": st.sampled_from([32, 64]),
    }
)
seeds = st.integers(0, 2**32 - 1)


@given(plans, seeds)
def test_decoding_is_within_one_step(plan: dict[str, Any], seed: int) -> None:
    ring, rng = codec(**plan), np.random.default_rng(seed)
    update = random_update(rng, clip_norm=plan["clip_norm"])
    encoded = ring.encode(update, counts(1, 2, 3), rng)
    decoded = ring.decode_sum(encoded.vector)
    share = min(update.weight, plan["weight_cap"]) / plan["weight_cap"]
    # In ring steps: less than one of stochastic rounding, half a step of the weight, and float32's own.
    steps = np.abs(decoded.mean.astype(np.float64) - update.vector) * ring.scale * share
    slack = np.abs(update.vector) * ring.scale * share * 3e-7 + np.abs(update.vector) / plan["clip_norm"]
    if share * ring.weight_unit > 1.0:
        assert np.all(steps <= 1.0 + slack)
    assert math.isclose(decoded.weight_share_sum, share, abs_tol=1.0 / ring.weight_unit)
    assert decoded.metric_counts.tolist() == [1, 2, 3]


@given(plans)
def test_scale_and_bound_are_those_of_the_decision(plan: dict[str, Any]) -> None:
    ring = codec(**plan)
    largest = 2 ** (plan["ring_bits"] - 1) - 1
    assert ring.bound == largest // plan["cohort_bound"]
    assert ring.scale == math.floor(Fraction(largest) / plan["cohort_bound"] / Fraction(plan["clip_norm"]))
    assert ring.scale * Fraction(plan["clip_norm"]) * plan["cohort_bound"] <= largest


@given(plans, seeds, st.sampled_from([-1.0, 1.0]))
def test_a_full_cohort_of_maximal_updates_never_overflows(plan: dict[str, Any], seed: int, sign: float) -> None:
    plan = {**plan, "cohort_bound": min(plan["cohort_bound"], 40)}
    ring, rng = codec(**plan), np.random.default_rng(seed)
    vector = np.zeros(SIZE, np.float32)
    vector[4] = sign * np.nextafter(np.float32(plan["clip_norm"]), np.float32(0))
    largest = ClippedUpdate(vector=vector, weight=2 * plan["weight_cap"], factor=1.0, was_clipped=False)
    top = min(ring.bound, 2**32 - 1)
    total, exact = ring.empty_sum(), [0] * ring.length
    for _ in range(plan["cohort_bound"]):
        encoded = ring.encode(largest, counts(top, 0, 1), rng)
        ring.validate_ring(encoded.vector)
        accumulate(total, encoded.vector)
        signed = encoded.vector.view(f"i{plan['ring_bits'] // 8}").tolist()
        exact = [a + b for a, b in zip(exact, signed, strict=True)]
    assert total.view(f"i{plan['ring_bits'] // 8}").tolist() == exact
    decoded = ring.decode_sum(total)
    assert decoded.metric_counts.tolist() == [top * plan["cohort_bound"], 0, plan["cohort_bound"]]
    assert math.isclose(decoded.mean[4], vector[4], rel_tol=1e-6, abs_tol=2 / ring.scale)


@settings(max_examples=50)
@given(seeds, st.permutations(range(7)), st.integers(1, 6), st.sampled_from([32, 64]))
def test_any_order_and_grouping_gives_the_same_bits(seed: int, order: list[int], cut: int, bits: int) -> None:
    ring, rng = codec(ring_bits=bits), np.random.default_rng(seed)
    vectors = [ring.encode(random_update(rng), counts(i, 1, 2), rng).vector for i in range(7)]
    straight = ring.empty_sum()
    for vector in vectors:
        accumulate(straight, vector)
    left, right = ring.empty_sum(), ring.empty_sum()
    accumulate(left, *(vectors[i] for i in order[:cut]))
    accumulate(right, *(vectors[i] for i in order[cut:]))
    accumulate(left, right)
    assert np.array_equal(left, straight)


@given(seeds, st.sampled_from([np.uint32, np.uint64]), st.integers(1, 100_000))
@settings(max_examples=30)
def test_subtracting_undoes_adding_for_any_ring_elements(seed: int, dtype: type, length: int) -> None:
    rng = np.random.default_rng(seed)
    top = int(np.iinfo(dtype).max)
    elements: list[Any] = [rng.integers(0, top, length, dtype=dtype, endpoint=True) for _ in range(3)]
    partial, one, two = elements
    before = partial.copy()
    accumulate(partial, one, two)
    subtract(partial, one)
    subtract(partial, two)
    assert np.array_equal(partial, before)


def test_rounding_is_unbiased() -> None:
    ring = codec(size=200_000, metric_size=0, clip_norm=1.0)
    value = 0.4 / ring.scale
    update = ClippedUpdate(vector=np.full(200_000, value, np.float32), weight=100.0, factor=1.0, was_clipped=False)
    vector = ring.encode(update, np.zeros(0, np.uint32), np.random.default_rng(1)).vector[:-1]
    assert set(vector.tolist()) == {0, 1}
    assert abs(vector.mean() - 0.4) < 0.005


def test_a_zero_update_is_zero_and_no_weight_means_no_mean() -> None:
    ring, rng = codec(), np.random.default_rng(0)
    encoded = ring.encode(clipped(np.zeros(SIZE)), counts(), rng)
    assert not encoded.vector[:SIZE].any() and encoded.saturated == 0
    assert not ring.decode_sum(encoded.vector).mean.any()
    weightless = ring.encode(clipped(np.ones(SIZE), weight=0.0), counts(), rng)
    assert not weightless.vector.any()
    assert not ring.decode_sum(weightless.vector).mean.any()


def test_the_mean_is_weighted_by_capped_examples() -> None:
    ring, rng = codec(clip_norm=10.0), np.random.default_rng(0)
    total = ring.empty_sum()
    for value, weight in ((1.0, 50.0), (3.0, 700.0)):
        update = clipped(np.full(SIZE, value), weight=weight, clip_norm=10.0)
        accumulate(total, ring.encode(update, counts(), rng).vector)
    decoded = ring.decode_sum(total)
    np.testing.assert_allclose(decoded.mean, (50 * 1.0 + 100 * 3.0) / 150, rtol=1e-6)
    assert math.isclose(decoded.examples, 150.0, rel_tol=1e-6)


def test_saturation_is_counted() -> None:
    # With N·C no divisor of 2^31 - 1, a coordinate at C sits between floor and ceiling of the bound.
    ring = codec(clip_norm=1.0, cohort_bound=3, size=1, metric_size=0)
    assert ring.scale == ring.bound
    above = ClippedUpdate(vector=np.array([np.float32(1.0 + 5e-7)]), weight=100.0, factor=1.0, was_clipped=True)
    encoded = ring.encode(above, np.zeros(0, np.uint32), np.random.default_rng(0))
    assert encoded.saturated == 1 and int(encoded.vector[0]) == ring.bound


def test_encode_refuses_other_forms_and_larger_norms() -> None:
    ring, rng = codec(), np.random.default_rng(0)
    good = clipped(np.zeros(SIZE))
    with pytest.raises(LayoutMismatchError):
        ring.encode(clipped(np.zeros(SIZE + 1)), counts(), rng)
    with pytest.raises(LayoutMismatchError):
        ring.encode(good, np.zeros(3, np.int64), rng)
    with pytest.raises(LayoutMismatchError):
        ring.encode(good, np.zeros(2, np.uint32), rng)
    with pytest.raises(NormExceededError):
        ring.encode(good, counts(ring.bound + 1, 0, 0), rng)
    with pytest.raises(NormExceededError):
        ring.encode(clipped(np.full(SIZE, 3.0), clip_norm=50.0), counts(), rng)


@given(seeds, st.sampled_from([32, 64]))
def test_honest_contributions_are_valid_and_survive_the_wire(seed: int, bits: int) -> None:
    ring, rng = codec(ring_bits=bits), np.random.default_rng(seed)
    vector = ring.encode(random_update(rng), counts(5, 6, 7), rng).vector
    ring.validate_ring(vector)
    raw = ring.to_bytes(vector)
    assert len(raw) == ring.length_bytes == (SIZE + 1 + METRICS) * bits // 8
    assert np.array_equal(ring.from_bytes(raw), vector)


# A clip norm at which a full weight share ends well below the bound, so that one can be told from the other.
WIDE = codec(clip_norm=50.3)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, WIDE.bound + 1),
        (0, -WIDE.bound - 1),
        (0, WIDE.bound),
        (SIZE, -1),
        (SIZE, WIDE.bound),
        (SIZE, 0),
        (SIZE + 1, -1),
        (SIZE + 3, WIDE.bound + 1),
    ],
    ids=[
        "above",
        "below",
        "norm-beyond-share",
        "negative-weight",
        "weight-above-cap",
        "no-weight",
        "count",
        "counts",
    ],
)
def test_refuses_contributions_that_no_honest_device_makes(index: int, value: int) -> None:
    assert round(WIDE.weight_unit) < WIDE.bound
    update = clipped(np.full(SIZE, 0.1), weight=50.0, clip_norm=50.3)
    vector = WIDE.encode(update, counts(), np.random.default_rng(0)).vector
    WIDE.validate_ring(vector)
    vector[index] = value % 2**32
    with pytest.raises(NormExceededError):
        WIDE.validate_ring(vector)


def of_norm(squares: int) -> list[int]:
    """SIZE whole numbers of exactly this sum of squares."""
    coordinates = []
    for _ in range(SIZE):
        coordinates.append(math.isqrt(squares))
        squares -= coordinates[-1] ** 2
    assert squares == 0
    return coordinates


@settings(max_examples=60)
@given(st.integers(1, 2**40), st.sampled_from([32, 64]), st.sampled_from(["compiled", "numpy"]))
def test_the_norm_is_refused_one_beyond_its_limit_and_not_before(weight: int, bits: int, form: str) -> None:
    ring = codec(clip_norm=50.3, ring_bits=bits)
    weight = min(weight, ring.bound // 2)
    limit = math.floor(Fraction(weight * (1.0 + 1e-6) + math.sqrt(SIZE) + 1.0) ** 2)
    with pytest.MonkeyPatch.context() as patch:
        if form == "numpy":
            patch.setattr("latticeward.updates.ring._compiled", lambda: None)
        ring.validate_ring(np.array([*of_norm(limit), weight, 0, 0, 0], ring.dtype))
        with pytest.raises(NormExceededError):
            ring.validate_ring(np.array([*of_norm(limit + 1), weight, 0, 0, 0], ring.dtype))


def test_refuses_other_lengths_and_dtypes() -> None:
    ring = codec()
    with pytest.raises(LayoutMismatchError):
        ring.from_bytes(b"\0" * (ring.length_bytes - 1))
    for vector in (np.zeros(ring.length + 1, np.uint32), np.zeros(ring.length, np.uint64)):
        with pytest.raises(LayoutMismatchError):
            ring.validate_ring(vector)
        with pytest.raises(LayoutMismatchError):
            ring.decode_sum(vector)
        with pytest.raises(LayoutMismatchError):
            ring.to_bytes(vector)
        with pytest.raises(LayoutMismatchError):
            accumulate(ring.empty_sum(), vector)
        with pytest.raises(LayoutMismatchError):
            subtract(ring.empty_sum(), vector)
    with pytest.raises(LayoutMismatchError):
        accumulate(np.zeros(3, np.int32), np.zeros(3, np.int32))


def test_nothing_is_added_if_one_of_several_does_not_fit() -> None:
    partial = np.zeros(4, np.uint32)
    with pytest.raises(LayoutMismatchError):
        accumulate(partial, np.ones(4, np.uint32), np.ones(5, np.uint32))
    assert not partial.any()


def test_refuses_a_sum_of_negative_weight() -> None:
    total = codec().empty_sum()
    total[SIZE] = 2**32 - 1
    with pytest.raises(NormExceededError):
        codec().decode_sum(total)


@pytest.mark.parametrize(
    "change",
    [
        {"ring_bits": 16},
        {"cohort_bound": 1},
        {"size": 0},
        {"metric_size": -1},
        {"clip_norm": 0.0},
        {"clip_norm": math.nan},
        {"weight_cap": -1.0},
        {"weight_cap": math.inf},
        {"clip_norm": 1e10},
    ],
)
def test_refuses_parameters_that_promise_nothing(change: dict[str, Any]) -> None:
    with pytest.raises(IncompatiblePlanError):
        codec(**change)
