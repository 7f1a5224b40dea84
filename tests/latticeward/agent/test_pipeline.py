"""One round at the hospital, opened again as the intake worker would."""

import secrets
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from latticeward.agent.jobs import JOBS
from latticeward.agent.pipeline import prepare_submission, round_rng
from latticeward.agent.trainers import TRAINERS
from latticeward.agent.trainers.trainer import TrainerSettings
from latticeward.crypto.envelope import open_envelope, parse_envelope, verify_envelope
from latticeward.crypto.keys import CompositeSigningKey, DecapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.errors import EmptyUpdateError, IncompatiblePlanError, WrongContextError
from latticeward.messages import Assignment
from latticeward.opening import ROUND_EPOCH, ROUND_ROLE
from latticeward.plan import RoundPlan
from latticeward.protection import PROTECTIONS
from latticeward.updates.encoding import FixedPointCodec
from latticeward.updates.metrics import METRICS
from latticeward.updates.tensors import initial_vector, weights_digest

JOB = JOBS["heart"]
DATA = JOB.load_site("cleveland")
BASE = initial_vector(JOB.layout, JOB.initial)
SEED = b"\x07" * 32
ROUND_KEY = DecapsulationKey.generate()
DEVICE_KEY = CompositeSigningKey.generate()


def _plan(**changes: Any) -> RoundPlan:
    values: dict[str, Any] = {
        **JOB.default_plan,
        "training_id": "11111111-1111-4111-8111-111111111111",
        "federation_id": "22222222-2222-4222-8222-222222222222",
        "title": JOB.title,
        "job": JOB.name,
        "layout": JOB.layout,
        "initial": JOB.initial,
        "suite": "hybrid",
        "metric": JOB.metric,
        "metric_size": METRICS[JOB.metric].size,
        "created_at": 1_790_000_000_000,
    }
    return RoundPlan(**{**values, **changes}).validate()


def _assignment(plan: RoundPlan, **changes: Any) -> Assignment:
    values: dict[str, Any] = {
        "round_id": "33333333-3333-4333-8333-333333333333",
        "training_id": plan.training_id,
        "federation_id": plan.federation_id,
        "number": 1,
        "kind": "training",
        "plan_digest": plan.digest,
        "base_model": None,
        "base_model_digest": weights_digest(BASE),
        "recipient_algorithm": ROUND_KEY.encapsulation_key.algorithm,
        "recipient_key": ROUND_KEY.encapsulation_key.raw,
        "roster_digest": bytes(32),
        "opened_at": 0,
        "recruiting_due_at": 1,
        "collecting_due_at": 2,
    }
    return Assignment(**{**values, **changes})


def _prepare(plan: RoundPlan, assignment: Assignment, **changes: Any) -> tuple[bytes, bytes, dict[str, Any]]:
    values: dict[str, Any] = {
        "plan": plan,
        "assignment": assignment,
        "job": JOB,
        "base_vector": BASE,
        "data": DATA,
        "signing_key": DEVICE_KEY,
        "device_seed": SEED,
        "created_at": 1_790_000_000_000,
    }
    return prepare_submission(**{**values, **changes})


def _codec(plan: RoundPlan) -> FixedPointCodec:
    return FixedPointCodec(
        clip_norm=plan.clip_norm,
        weight_cap=plan.weight_cap,
        cohort_bound=plan.cohort_bound,
        ring_bits=plan.ring_bits,
        size=plan.layout.size,
        metric_size=plan.metric_size,
    )


def _open(raw: bytes, plan: RoundPlan, assignment: Assignment) -> Any:
    parsed = parse_envelope(raw, limit_bytes=len(raw))
    verified = verify_envelope(parsed, purpose=Purpose.UPDATE, verify_key=DEVICE_KEY.verify_key)
    opened = open_envelope(
        verified,
        role=ROUND_ROLE,
        subject_id=assignment.round_id,
        epoch=ROUND_EPOCH,
        decapsulation_key=ROUND_KEY,
    )
    return PROTECTIONS[plan.protection].read_contribution(opened.plaintext, _codec(plan))


def test_the_worker_finds_what_the_hospital_put_in() -> None:
    plan = _plan()
    assignment = _assignment(plan)
    raw, digest, report = _prepare(plan, assignment)
    parsed = parse_envelope(raw, limit_bytes=len(raw))
    assert digest == parsed.signed_digest
    assert (parsed.header.round_id, parsed.header.plan_digest) == (assignment.round_id, plan.digest)
    assert parsed.header.sender_key_id == DEVICE_KEY.verify_key.key_id

    decoded = _codec(plan).decode_sum(_open(raw, plan, assignment))
    trainer = TRAINERS[JOB.trainer](JOB.layout)
    settings = TrainerSettings.from_plan(plan.trainer)
    expected, _ = trainer.train(BASE, DATA, settings, round_rng(SEED, assignment, "train"))
    np.testing.assert_allclose(decoded.mean, expected, atol=1e-5)
    assert decoded.examples == pytest.approx(DATA.num_examples, rel=1e-6)
    summary = METRICS["auc"].summarise(decoded.metric_counts)
    assert (summary.value, summary.examples) == (0.5, DATA.test_y.size)

    assert report["num_examples"] == DATA.num_examples and report["envelope_bytes"] == len(raw)
    assert (report["clipped"], report["clip_factor"], report["saturated"]) == (False, 1.0, 0)
    assert set(report["seconds"]) == {"train", "measure", "encode", "seal"}


def test_rounds_from_the_same_model_give_the_same_numbers_and_another_device_gives_others() -> None:
    plan = _plan()
    one, other = _assignment(plan), _assignment(plan, round_id="44444444-4444-4444-8444-444444444444")
    first = _open(_prepare(plan, one)[0], plan, one)
    assert np.array_equal(first, _open(_prepare(plan, one)[0], plan, one))
    assert np.array_equal(first, _open(_prepare(plan, other)[0], plan, other))
    stranger = _prepare(plan, one, device_seed=secrets.token_bytes(32))[0]
    assert not np.array_equal(first, _open(stranger, plan, one))


def test_an_equal_weight_is_a_whole_share_whatever_the_number_of_patients() -> None:
    shares = {}
    for rule in ("examples", "equal"):
        plan = _plan(weight_rule=rule)
        assignment = _assignment(plan)
        raw, _, _ = _prepare(plan, assignment)
        shares[rule] = _codec(plan).decode_sum(_open(raw, plan, assignment)).weight_share_sum
    assert shares["equal"] == pytest.approx(1.0, abs=1e-6)
    assert shares["examples"] == pytest.approx(DATA.num_examples / plan.weight_cap, abs=1e-6)


def test_the_base_model_s_metric_on_the_own_test_part_is_told_to_this_hospital() -> None:
    plan = _plan()
    trainer = TRAINERS[JOB.trainer](JOB.layout)
    update, _ = trainer.train(BASE, DATA, TrainerSettings.from_plan(plan.trainer), np.random.default_rng(0))
    assignment = _assignment(plan, base_model_digest=weights_digest(update))
    _, _, report = _prepare(plan, assignment, base_vector=update)
    counts = METRICS["auc"].measure(trainer.scores(update, DATA.test_x), DATA.test_y)
    assert report["metric"] == METRICS["auc"].summarise(counts).value > 0.7


def test_an_evaluation_round_trains_nothing() -> None:
    plan = _plan()
    assignment = _assignment(plan, kind="evaluation")
    decoded = _codec(plan).decode_sum(_open(_prepare(plan, assignment)[0], plan, assignment))
    assert not decoded.mean.any()
    assert decoded.examples == pytest.approx(DATA.num_examples, rel=1e-6)
    assert int(decoded.metric_counts.sum()) == DATA.test_y.size


def test_a_tight_clip_norm_is_kept_and_reported() -> None:
    plan = _plan(clip_norm=0.01)
    assignment = _assignment(plan)
    raw, _, report = _prepare(plan, assignment)
    assert report["clipped"] and 0 < report["clip_factor"] < 1
    assert np.linalg.norm(_codec(plan).decode_sum(_open(raw, plan, assignment)).mean) <= 0.01 * (1 + 1e-4)


def test_refuses_what_does_not_belong_together() -> None:
    plan = _plan()
    assignment = _assignment(plan)
    with pytest.raises(WrongContextError):
        _prepare(_plan(clip_norm=5.0), assignment)
    with pytest.raises(WrongContextError):
        _prepare(plan, assignment, base_vector=BASE + np.float32(1e-6))
    with pytest.raises(IncompatiblePlanError):
        _prepare(plan, assignment, job=JOBS["thyroid"])
    with pytest.raises(IncompatiblePlanError):
        _prepare(plan, _assignment(plan, kind="rehearsal"))
    shrunk = replace(plan, metric_size=4)
    with pytest.raises(IncompatiblePlanError):
        _prepare(shrunk, _assignment(shrunk))
    unknown = replace(plan, protection="hope")
    with pytest.raises(IncompatiblePlanError):
        _prepare(unknown, _assignment(unknown))


@pytest.mark.parametrize("rule", ["examples", "equal"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_hospital_without_rows_sends_nothing(rule: str, part: str) -> None:
    plan = _plan(weight_rule=rule)
    none = {f"{part}_x": getattr(DATA, f"{part}_x")[:0], f"{part}_y": getattr(DATA, f"{part}_y")[:0]}
    with pytest.raises(EmptyUpdateError):
        prepare_submission(
            plan=plan,
            assignment=_assignment(plan),
            job=JOB,
            base_vector=BASE,
            data=replace(DATA, **none),
            signing_key=DEVICE_KEY,
            device_seed=SEED,
            created_at=1,
        )
