"""From an envelope's bytes to the validated ring vector inside it: verify, open, validate, in that order.

What workers do with every update, and what a measurement or an auditor's recomputation does too, so that all of them
believe the same things for the same reasons. Nothing is copied on the way: the body is hashed and decrypted where the
bytes lie, and the vector is a view of the plaintext.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from latticeward.crypto.composite import CompositeVerifyKey
from latticeward.crypto.envelope import open_envelope, parse_envelope, verify_envelope
from latticeward.crypto.kem import DecapsulationKey
from latticeward.crypto.signing import Purpose
from latticeward.errors import EmptyUpdateError, NormExceededError, WrongContextError
from latticeward.plan import RoundPlan
from latticeward.protection import PROTECTIONS
from latticeward.updates.encoding import FixedPointCodec
from latticeward.updates.metrics import METRICS
from latticeward.updates.ring import RingVector

# As whom a round's key opens: the same words on both sides.
ROUND_ROLE: Final = "round"
ROUND_EPOCH: Final = 1
# More than any hospital measures a model on; those of the largest cohort still add up to less than 2^53.
MOST_EXAMPLES: Final = 2**32


@dataclass(frozen=True, slots=True)
class OpenedContribution:
    """A validated ring vector, and what each step took in seconds."""

    vector: RingVector
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


@dataclass(frozen=True, kw_only=True)
class RoundOpening:
    """What all updates of one round are held against and opened with; made once for a whole batch.

    Attributes:
        plan: of the round's training; ``plan_digest`` is its digest, 32 bytes.
        base_model_digest: 32 bytes, the model that every update must start from.
        decapsulation_key: the round's own.
    """

    round_id: str
    plan: RoundPlan
    plan_digest: bytes
    base_model_digest: bytes
    decapsulation_key: DecapsulationKey = field(repr=False)

    @cached_property
    def codec(self) -> FixedPointCodec:
        """The round's ring."""
        return codec_of(self.plan)

    def open(self, raw: bytes | memoryview, key_for: Callable[[bytes], CompositeVerifyKey]) -> OpenedContribution:
        """Believe an envelope, or refuse it.

        1. The header names this federation, round, plan, base model, direction and suite, and the device's key.
        2. The composite signature over header and body verifies under that key.
        3. The envelope opens with the round's key.
        4. Length, ring and range of the vector are the plan's, somebody is behind it, and its counts can be.

        Args:
            raw: the whole envelope; it must stay as it is until the call returns.
            key_for: the verify key of the device that it is said to come from, by the key id that the header names;
                another key than that one is refused here.

        Raises:
            ProtocolError, VerificationError, DecryptionError, ContributionError
        """
        started = time.perf_counter()
        parsed = parse_envelope(raw, limit_bytes=len(raw))
        verify_key = key_for(parsed.header.sender_key_id)

        # 1
        expected = {
            "suite": self.plan.suite,
            "message_type": "update",
            "direction": "to-server",
            "federation_id": self.plan.federation_id,
            "round_id": self.round_id,
            "plan_digest": self.plan_digest,
            "base_model_digest": self.base_model_digest,
            "sender_key_id": verify_key.key_id,
        }
        for name, value in expected.items():
            if getattr(parsed.header, name) != value:
                raise WrongContextError(f"an update for round {self.round_id}: the header's {name} is not this round's")

        # 2
        verified = verify_envelope(parsed, purpose=Purpose.UPDATE, verify_key=verify_key)
        verified_at = time.perf_counter()

        # 3
        opened = open_envelope(
            verified,
            role=ROUND_ROLE,
            subject_id=self.round_id,
            epoch=ROUND_EPOCH,
            decapsulation_key=self.decapsulation_key,
        )
        opened_at = time.perf_counter()

        # 4
        vector = PROTECTIONS[self.plan.protection].read_contribution(opened.plaintext, self.codec)
        self._require_possible(vector)
        return OpenedContribution(
            vector,
            {
                "verify": verified_at - started,
                "open": opened_at - verified_at,
                "validate": time.perf_counter() - opened_at,
            },
        )

    def _require_possible(self, vector: RingVector) -> None:
        if not vector[self.codec.size]:
            raise EmptyUpdateError("an update of no weight is of nobody, and a hospital behind it would count for k")
        # Sums of what contradicts itself, or of more than numbers in messages hold, would end the round for everybody.
        if METRICS[self.plan.metric].examples(vector[-self.plan.metric_size :]) > MOST_EXAMPLES:
            raise NormExceededError(f"a metric of more than {MOST_EXAMPLES} examples")
