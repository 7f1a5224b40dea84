"""From a stored submission to the ring vector inside it: verify, open, validate, in that order.

Used when an update is taken in, when it is taken out again, and when an auditor recomputes a round; so all three
believe the same things for the same reasons.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from devices.selectors import registered_signing_key
from keys import vault
from latticeward.crypto.envelope import ParsedEnvelope, open_envelope, parse_envelope, verify_envelope
from latticeward.crypto.keys import CompositeVerifyKey, DecapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.crypto.suites import get_suite
from latticeward.errors import KeyUsageError, WrongContextError
from latticeward.plan import RoundPlan
from latticeward.protection import PROTECTIONS
from latticeward.updates.encoding import FixedPointCodec
from rounds.models import Round, Submission
from rounds.storage import read_blob

ROUND_ROLE = "round"


@dataclass(frozen=True, slots=True)
class OpenedContribution:
    """A validated ring vector, and what each step took in seconds."""

    vector: npt.NDArray[np.unsignedinteger[Any]]
    seconds: dict[str, float] = field(default_factory=dict)


def codec_of(plan: RoundPlan) -> FixedPointCodec:
    """The fixed-point ring of a plan's rounds."""
    return FixedPointCodec(
        clip_norm=plan.clip_norm,
        weight_cap=plan.weight_cap,
        cohort_bound=plan.cohort_bound,
        ring_bits=plan.ring_bits,
        size=plan.layout.size,
        metric_size=plan.metric_size,
    )


def decapsulation_key(current: Round) -> DecapsulationKey:
    """The round's own decapsulation key, for intake and aggregation workers.

    Raises:
        KeyUsageError: it was destroyed after the recomputation window.
    """
    if current.wrapped_decapsulation_seed is None:
        raise KeyUsageError(f"the key of round {current.id} was destroyed")
    seed = vault.unwrap(
        bytes(current.wrapped_decapsulation_seed), purpose="round-decapsulation", row_id=str(current.id)
    )
    return DecapsulationKey.from_seed(seed, get_suite(current.training.suite).kem)


def open_submission(submission: Submission, verify_key: CompositeVerifyKey) -> OpenedContribution:
    """Verify, open and validate an envelope that has just come.

    Args:
        verify_key: what verifies messages that the submission's device signs now (``devices.selectors``).

    1. The header names this federation, round, plan, base model, direction and suite, and the device's signing key.
    2. The composite signature over header and body verifies under that key.
    3. The envelope opens with the round's key.
    4. Length, ring and range of the vector are the plan's.

    Raises:
        ProtocolError, VerificationError, DecryptionError, ContributionError
    """
    return _open(submission, verify_key)


def reopen_submission(submission: Submission) -> OpenedContribution:
    """The same for a submission that was accepted earlier, whatever has become of its device's keys since.

    Taking a contribution out again, and recomputing a round, must read what was counted; they never count anything.
    """
    key_id = _parse(submission).header.sender_key_id
    return _open(submission, registered_signing_key(submission.participant.device, key_id))


def _parse(submission: Submission) -> ParsedEnvelope:
    return parse_envelope(read_blob(submission.blob), limit_bytes=submission.size_bytes)


def _open(submission: Submission, verify_key: CompositeVerifyKey) -> OpenedContribution:
    current = submission.participant.round
    plan = current.training.round_plan
    started = time.perf_counter()
    parsed = _parse(submission)

    # 1
    expected = {
        "suite": plan.suite,
        "message_type": "update",
        "direction": "to-server",
        "federation_id": plan.federation_id,
        "round_id": str(current.id),
        "plan_digest": bytes(current.training.plan_digest),
        "base_model_digest": bytes(current.base_model_digest),
        "sender_key_id": verify_key.key_id,
    }
    for name, value in expected.items():
        if getattr(parsed.header, name) != value:
            raise WrongContextError(f"submission {submission.id}: the header's {name} is not this round's")

    # 2
    verified = verify_envelope(parsed, purpose=Purpose.UPDATE, verify_key=verify_key)
    verified_at = time.perf_counter()

    # 3
    opened = open_envelope(
        verified,
        role=ROUND_ROLE,
        subject_id=str(current.id),
        epoch=1,
        decapsulation_key=decapsulation_key(current),
    )
    opened_at = time.perf_counter()

    # 4
    vector = PROTECTIONS[plan.protection].read_contribution(opened.plaintext, codec_of(plan))
    return OpenedContribution(
        vector,
        {
            "verify": verified_at - started,
            "open": opened_at - verified_at,
            "validate": time.perf_counter() - opened_at,
        },
    )
