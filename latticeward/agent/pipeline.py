"""What happens at the hospital in one round, top to bottom: from patients' rows to a sealed, signed envelope.

Nothing here talks to a server or decides whether to take part: the caller hands in a verified plan and
assignment that its own floor has accepted, and keeps the returned bytes before it sends them. Randomness of
training and rounding comes from the device's seed and the round, so preparing the same round twice gives the
same numbers.
"""

import hmac
import secrets
import time
from typing import Any

import numpy as np

from latticeward import canonical
from latticeward.agent.jobs.job import Job, SiteData
from latticeward.agent.trainers import TRAINERS
from latticeward.agent.trainers.trainer import Trainer, TrainerSettings
from latticeward.crypto.envelope import EnvelopeHeader, Recipient, parse_envelope, seal_envelope
from latticeward.crypto.keys import CompositeSigningKey, EncapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.errors import EmptyUpdateError, IncompatiblePlanError, WrongContextError
from latticeward.messages import Assignment
from latticeward.opening import ROUND_EPOCH, ROUND_ROLE, codec_of
from latticeward.plan import RoundPlan
from latticeward.protection import PROTECTIONS
from latticeward.updates.clipping import ModelUpdate, clip_update
from latticeward.updates.metrics import METRICS
from latticeward.updates.tensors import FloatVector, weights_digest

# The role and epoch under which a round's own key opens updates; the subject is the round's id.


def prepare_submission(
    *,
    plan: RoundPlan,
    assignment: Assignment,
    job: Job,
    base_vector: FloatVector,
    data: SiteData,
    signing_key: CompositeSigningKey,
    device_seed: bytes,
    created_at: int,
) -> tuple[bytes, bytes, dict[str, Any]]:
    """Train, clip, encode, protect, seal and sign one round's contribution.

    The metric that travels along is that of the *base* model on the site's test part. In a round of the kind
    ``evaluation`` nothing is trained: the update is zero and only the metric and the weight count.

    Args:
        plan, assignment: verified by the caller, and accepted by its floor.
        job: the plan's job as this machine knows it.
        base_vector: float32, shape (d,), the weights whose digest the assignment names.
        signing_key: the device's composite identity key.
        device_seed: 32 secret bytes that never leave the device.
        created_at: unix milliseconds.

    Returns:
        The envelope's bytes, the submission digest (32 bytes), and a report for this hospital's own eyes:
        ``num_examples``, ``metric`` (of the base model on the own test part, or None), ``clipped``,
        ``clip_factor``, ``saturated``, ``envelope_bytes`` and ``seconds`` by stage.

    Raises:
        WrongContextError: the assignment is of another plan, or the base model is not the one that it names.
        IncompatiblePlanError: the plan does not fit this machine's job.
        NonFiniteUpdateError: training diverged.
        EmptyUpdateError: the hospital has no rows.
        ContributionError: the data or the model do not fit the layout.
        MalformedMessageError: the round's encapsulation key is not one.
    """
    check_fits(plan, assignment, job, base_vector)
    trainer = TRAINERS[job.trainer](plan.layout)
    metric = METRICS[plan.metric]
    codec = codec_of(plan)
    # Checked here too: under equal weights nobody else could tell, and a metric without patients weighs nothing.
    if data.num_examples == 0 or data.test_y.size == 0:
        raise EmptyUpdateError("this hospital has no examples to learn from, or none to measure on")
    marks = [time.perf_counter()]

    update = train_update(trainer, plan, assignment, base_vector, data, round_rng(device_seed, assignment, "train"))
    marks.append(time.perf_counter())

    counts = metric.measure(trainer.scores(base_vector, data.test_x), data.test_y)
    marks.append(time.perf_counter())

    clipped = clip_update(update, clip_norm=plan.clip_norm)
    encoded = codec.encode(clipped, counts, round_rng(device_seed, assignment, "round"))
    marks.append(time.perf_counter())

    plaintext = PROTECTIONS[plan.protection].protect(encoded, codec)
    envelope = seal_envelope(
        plaintext,
        header=EnvelopeHeader(
            suite=plan.suite,
            message_type="update",
            direction="to-server",
            federation_id=plan.federation_id,
            round_id=assignment.round_id,
            plan_digest=assignment.plan_digest,
            base_model_digest=assignment.base_model_digest,
            sender_key_id=signing_key.verify_key.key_id,
            plaintext_bytes=len(plaintext),
            body_bytes=0,
            created_at=created_at,
            message_id=secrets.token_bytes(16),
        ),
        recipients=[
            Recipient(
                key=EncapsulationKey.from_raw(assignment.recipient_key, assignment.recipient_algorithm),
                role=ROUND_ROLE,
                subject_id=assignment.round_id,
                epoch=ROUND_EPOCH,
            )
        ],
        signing_key=signing_key,
        purpose=Purpose.UPDATE,
    )
    marks.append(time.perf_counter())

    digest = parse_envelope(envelope, limit_bytes=len(envelope)).signed_digest
    stages = ("train", "measure", "encode", "seal")
    return (
        envelope,
        digest,
        {
            "num_examples": data.num_examples,
            "metric": metric.summarise(counts).value,
            "clipped": clipped.was_clipped,
            "clip_factor": clipped.factor,
            "saturated": encoded.saturated,
            "envelope_bytes": len(envelope),
            "seconds": {stage: end - begin for stage, begin, end in zip(stages, marks[:-1], marks[1:], strict=True)},
        },
    )


def check_fits(plan: RoundPlan, assignment: Assignment, job: Job, base_vector: FloatVector) -> None:
    """Refuse to work on what does not belong together.

    Raises:
        WrongContextError: the assignment is of another plan, or the base model is not the one that it names.
        IncompatiblePlanError: the plan does not fit this machine's job.
    """
    # 1. The assignment is a round of this plan. 2. The base is the model that every other participant starts
    # from: a device with a base of its own would be singled out by its update. 3. The plan's job is ours,
    # unaltered.
    if not hmac.compare_digest(plan.digest, assignment.plan_digest):
        raise WrongContextError(f"round {assignment.round_id} is not a round of this plan")
    if not hmac.compare_digest(weights_digest(base_vector), assignment.base_model_digest):
        raise WrongContextError(f"round {assignment.round_id} starts from another model")
    if (plan.job, plan.layout, plan.metric) != (job.name, job.layout, job.metric):
        raise IncompatiblePlanError(f"the plan's job {plan.job!r} is not the one that this machine knows")
    if plan.metric_size != METRICS[job.metric].size:
        raise IncompatiblePlanError(f"the metric {plan.metric!r} has {METRICS[job.metric].size} counts")
    if plan.protection not in PROTECTIONS:
        raise IncompatiblePlanError(f"the protection {plan.protection!r} is not known here")


def train_update(
    trainer: Trainer,
    plan: RoundPlan,
    assignment: Assignment,
    base_vector: FloatVector,
    data: SiteData,
    rng: np.random.Generator,
) -> ModelUpdate:
    """The only step that sees the training part. Zero in an evaluation round.

    Raises:
        IncompatiblePlanError: the plan's trainer settings are not this trainer's, or the round is of an
            unknown kind.
        LayoutMismatchError: model or rows do not fit the layout.
    """
    settings = TrainerSettings.from_plan(plan.trainer)
    match assignment.kind:
        case "training":
            vector, examples = trainer.train(base_vector, data, settings, rng)
        case "evaluation":
            vector, examples = np.zeros_like(base_vector), data.num_examples
        case kind:
            raise IncompatiblePlanError(f"a round of the kind {kind!r} is not known here")
    # An equal weight is the cap's: its share is then one whole, whatever number of patients a hospital has.
    weight = plan.weight_cap if plan.weight_rule == "equal" else float(examples)
    return ModelUpdate(vector=vector, weight=weight)


def round_rng(device_seed: bytes, assignment: Assignment, use: str) -> np.random.Generator:
    """A generator of its own for each device, plan, base model and use; foretold by nobody without the seed.

    The round's id is left out on purpose: when a round fails and another starts from the same model, this device
    gives the same numbers again, and a server cannot average several draws of one update
    (docs/adr/0024-same-base-same-numbers.md).

    Args:
        device_seed: 32 secret bytes.
        use: ``train`` or ``round``.
    """
    context = canonical.digest(
        "latticeward/round-rng/v1",
        use.encode(),
        assignment.plan_digest,
        assignment.base_model_digest,
    )
    return np.random.Generator(np.random.PCG64(int.from_bytes(hmac.digest(device_seed, context, "sha256"), "big")))
