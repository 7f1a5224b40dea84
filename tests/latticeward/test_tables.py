"""The tables of jobs, protections and aggregators: every line fits the others."""

import numpy as np
import pytest

from latticeward.aggregation import AGGREGATORS
from latticeward.errors import LayoutMismatchError, NormExceededError
from latticeward.jobs import JOB_SPECS
from latticeward.optimisers import check_settings
from latticeward.protection import PROTECTIONS, View
from latticeward.updates.clipping import ModelUpdate, clip_update
from latticeward.updates.encoding import FixedPointCodec
from latticeward.updates.metrics import METRICS
from latticeward.updates.ring import accumulate
from latticeward.updates.tensors import initial_vector

CODEC = FixedPointCodec(clip_norm=1.0, weight_cap=10.0, cohort_bound=4, ring_bits=32, size=5, metric_size=2)


def _encoded(value: float, weight: float) -> object:
    update = clip_update(ModelUpdate(vector=np.full(5, value, np.float32), weight=weight), clip_norm=1.0)
    return CODEC.encode(update, np.array([1, 2], np.uint32), np.random.default_rng(0))


def test_a_protected_contribution_comes_out_as_it_went_in() -> None:
    for name, protection in PROTECTIONS.items():
        assert protection.name == name and protection.reveals
        encoded = _encoded(0.1, 5.0)
        vector = protection.read_contribution(protection.protect(encoded, CODEC), CODEC)  # type: ignore[arg-type]
        total = CODEC.empty_sum()
        accumulate(total, vector)
        np.testing.assert_allclose(CODEC.decode_sum(total).mean, 0.1, atol=1e-6)


def test_sealed_validates_what_it_reads() -> None:
    sealed = PROTECTIONS["sealed"]
    with pytest.raises(LayoutMismatchError):
        sealed.read_contribution(b"\0" * (CODEC.length_bytes + 4), CODEC)
    with pytest.raises(NormExceededError):
        sealed.read_contribution(b"\xff\xff\xff\x7f" * CODEC.length, CODEC)


def test_the_mean_needs_no_more_than_the_sum() -> None:
    mean = AGGREGATORS["mean"]
    assert mean.needs is View.SUM
    total = CODEC.empty_sum()
    for value, weight in ((0.1, 2.0), (0.3, 6.0)):
        accumulate(total, _encoded(value, weight).vector)  # type: ignore[attr-defined]
    decoded = mean.aggregate_sum(total, CODEC)
    np.testing.assert_allclose(decoded.mean, 0.25, atol=1e-6)
    assert decoded.metric_counts.tolist() == [2, 4]


@pytest.mark.parametrize("name", sorted(JOB_SPECS))
def test_every_job_proposes_a_plan_that_holds(name: str) -> None:
    spec = JOB_SPECS[name]
    plan = spec.default_plan
    check_settings(plan["server_optimiser"])
    assert initial_vector(spec.layout, spec.initial).shape == (spec.layout.size,)
    codec = FixedPointCodec(
        clip_norm=plan["clip_norm"],
        weight_cap=plan["weight_cap"],
        cohort_bound=plan["cohort_bound"],
        ring_bits=plan["ring_bits"],
        size=spec.layout.size,
        metric_size=METRICS[spec.metric].size,
    )
    assert 1 / codec.scale < 1e-5 * plan["clip_norm"]
    assert len(spec.sites) <= plan["cohort_bound"]
