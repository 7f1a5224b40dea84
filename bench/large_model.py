"""A made-up job with a model of any size, for measurements: its plan, and sealed updates as devices would send them.

No training: the numbers are random and the length is what costs. Encoding, sealing and signing are the product's own.
"""

import secrets
import time
from typing import Final
from uuid import uuid4

import numpy as np

from latticeward.crypto.composite import CompositeSigningKey
from latticeward.crypto.envelope import EnvelopeHeader, Recipient, seal_envelope
from latticeward.crypto.kem import EncapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.opening import ROUND_EPOCH, ROUND_ROLE, codec_of
from latticeward.plan import RoundPlan
from latticeward.plan_parts import StageSeconds
from latticeward.protection import PROTECTIONS
from latticeward.updates.clipping import ModelUpdate, clip_update
from latticeward.updates.encoding import EncodedUpdate
from latticeward.updates.metrics import METRICS
from latticeward.updates.tensors import TensorLayout, TensorSpec

CLIP_NORM: Final = 4.0
_PATIENTS: Final = 100


def large_plan(*, parameters: int, devices: int, rounds: int = 1, federation_id: str = "") -> RoundPlan:
    """A plan of the suite ``hybrid`` for a cohort that takes part as a whole."""
    return RoundPlan(
        training_id=str(uuid4()),
        sensitivity="routine",
        federation_id=federation_id or str(uuid4()),
        title=f"{parameters:,} numbers, {devices} devices",
        job="heart",
        trainer={"epochs": 1, "batch_size": 512, "learning_rate": 1.0, "l2": 0.0, "proximal_mu": 0.0},
        layout=TensorLayout((TensorSpec("weight", (parameters,)),)),
        initial={"kind": "zeros"},
        rounds=rounds,
        suite="hybrid",
        server_optimiser={"name": "fedavg"},
        clip_norm=CLIP_NORM,
        weight_cap=float(_PATIENTS),
        cohort_bound=max(devices, 2),
        quorum=devices,
        k_hospitals=2,
        k_patients=5,
        metric="auc",
        metric_size=METRICS["auc"].size,
        evaluate_last=False,
        stage_seconds=StageSeconds(signing=120, recruiting=300, collecting=600, aggregating=120),
        created_at=int(time.time() * 1000),
    ).validate()


def encoded_update(plan: RoundPlan, seed: int) -> EncodedUpdate:
    """A clipped random update in the plan's ring, with a metric of a hundred patients."""
    rng = np.random.default_rng(seed)
    vector = rng.standard_normal(plan.layout.size, dtype=np.float32)
    counts = np.bincount(rng.integers(0, plan.metric_size, _PATIENTS), minlength=plan.metric_size).astype(np.uint32)
    clipped = clip_update(ModelUpdate(vector=vector, weight=float(_PATIENTS)), clip_norm=plan.clip_norm)
    return codec_of(plan).encode(clipped, counts, rng)


def sealed_update(
    plan: RoundPlan,
    encoded: EncodedUpdate,
    *,
    round_id: str,
    base_model_digest: bytes,
    recipient: EncapsulationKey,
    signing_key: CompositeSigningKey,
) -> bytes:
    """The envelope of one device's update, sealed to the round and signed."""
    plaintext = PROTECTIONS[plan.protection].protect(encoded, codec_of(plan))
    return seal_envelope(
        plaintext,
        header=EnvelopeHeader(
            suite=plan.suite,
            message_type="update",
            direction="to-server",
            federation_id=plan.federation_id,
            round_id=round_id,
            plan_digest=plan.digest,
            base_model_digest=base_model_digest,
            sender_key_id=signing_key.verify_key.key_id,
            plaintext_bytes=len(plaintext),
            body_bytes=0,
            created_at=int(time.time() * 1000),
            message_id=secrets.token_bytes(16),
        ),
        recipients=[Recipient(key=recipient, role=ROUND_ROLE, subject_id=round_id, epoch=ROUND_EPOCH)],
        signing_key=signing_key,
        purpose=Purpose.UPDATE,
    )
