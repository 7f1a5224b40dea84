"""One device's part in a round, step by step: each method is a step of ``decisions.py`` and leaves the disk consistent.

Domain errors pass through; ``loop.py`` decides which of them end a round, a wait or the agent.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from latticeward.agent.config import AgentConfig
from latticeward.agent.identity import Identity
from latticeward.agent.jobs.job import Job
from latticeward.agent.models import keep_model, load_newest, open_model, require_size
from latticeward.agent.state import AgentState, HeldModel, RoundMemory, Stage
from latticeward.agent.transports import Transport
from latticeward.agent.verification import (
    TRAINING_KIND,
    VerifiedAssignment,
    verify_assignment,
    verify_manifest,
    verify_receipt,
    verify_record,
)
from latticeward.agent.work import WorkRound
from latticeward.crypto.envelope import EnvelopeHeader
from latticeward.crypto.stanza import parse_stanza
from latticeward.errors import ReplayError, WrongContextError
from latticeward.instants import to_unix_milliseconds
from latticeward.messages import Assignment
from latticeward.plan import RoundPlan
from latticeward.starts import NamedVersion
from latticeward.trust import TrustStore
from latticeward.updates.tensors import FloatVector, initial_vector, weights_digest

logger = logging.getLogger(__name__)


class Contributor(Protocol):
    """What turns a verified round and its base model into a submission; ``contribution.py`` has the real one."""

    job: Job

    def prepare(
        self, plan: RoundPlan, assignment: Assignment, base_vector: FloatVector, *, created_at: int
    ) -> tuple[bytes, bytes, dict[str, Any]]:
        """The envelope, its submission digest (32 bytes), and a report for the log."""


class RoundSteps:
    """The steps, with what they need to keep at hand.

    Args:
        trust: gives the trust store judged at the present.
        clock: aware UTC now.
    """

    def __init__(
        self,
        *,
        config: AgentConfig,
        identity: Identity,
        state: AgentState,
        transport: Transport,
        contributor: Contributor,
        trust: Callable[[], TrustStore],
        clock: Callable[[], datetime],
    ) -> None:
        self._config = config
        self._identity = identity
        self._state = state
        self._transport = transport
        self._contributor = contributor
        self._trust = trust
        self._clock = clock

    def take(self, seen: WorkRound) -> None:
        """Believe the assignment, join, train while others join, and write the submission's bytes.

        Raises:
            ReplayError: this device has contributed to the same base model under another plan.
        """
        verified = self._verified_assignment(seen)
        plan, assignment = verified.plan, verified.assignment
        self._config.floor.require(plan)
        digest, plan_digest = assignment.base_model_digest.hex(), assignment.plan_digest.hex()
        # Under one plan a base model always gets the same numbers (pipeline.round_rng), so a round that failed may be
        # repeated; another plan would get others. A start that follows from the plan holds nobody's data and is free to
        # all plans; and in what measures nothing is drawn.
        gives_again = self._state.contributed.get(digest, plan_digest) != plan_digest
        if assignment.base_model and assignment.kind == TRAINING_KIND and gives_again:
            raise ReplayError(f"round {seen.round_id}: this device gave to the same base model under another plan")
        base = self._base_vector(verified)
        self._state.highest_round[plan.training_id] = assignment.number
        memory = self._state.put(
            RoundMemory(
                round_id=assignment.round_id,
                training_id=plan.training_id,
                number=assignment.number,
                kind=assignment.kind,
                base_model_digest=digest,
                stage=Stage.ACCEPTED,
            )
        )
        self._transport.join(seen.round_id)
        logger.info("round %s joined: number %d, %s", seen.round_id, assignment.number, assignment.kind)

        started = time.perf_counter()
        envelope, submission_digest, report = self._contributor.prepare(
            plan, assignment, base, created_at=to_unix_milliseconds(self._clock())
        )
        self._state.keep(seen.round_id, "submission.bin", envelope)
        self._state.put(
            replace(
                memory,
                stage=Stage.PREPARED,
                submission_digest=submission_digest.hex(),
                own_metric=report.get("metric"),
            )
        )
        logger.info(
            "round %s prepared: %d bytes in %.2f s%s",
            seen.round_id,
            len(envelope),
            time.perf_counter() - started,
            ", clipped" if report.get("clipped") else "",
        )

    def send(self, memory: RoundMemory) -> None:
        """Hand over the written bytes, and keep the receipt.

        Raises:
            LedgerError: the receipt is for something else.
        """
        envelope = self._state.recall(memory.round_id, "submission.bin")
        digest = bytes.fromhex(memory.submission_digest)
        # Remembered before the first byte leaves: from here on no other plan may see this base model's update. That of
        # an evaluation round is zero under every plan (docs/adr/0033-a-training-starts-from-a-version.md).
        if memory.kind == TRAINING_KIND:
            self._state.contributed[memory.base_model_digest] = self._assignment(memory.round_id).plan_digest.hex()
            self._state.save()
        raw = self._transport.submit(memory.round_id, envelope, submission_digest=digest)
        receipt = verify_receipt(
            raw,
            trust=self._trust(),
            assignment=self._assignment(memory.round_id),
            device_id=self._identity.device_id,
            submission_digest=digest,
            size_bytes=len(envelope),
        )
        self._state.keep(memory.round_id, "receipt.cbor", raw)
        self._state.unproven[receipt.submission_id] = memory.round_id
        self._state.put(replace(memory, stage=Stage.SENT, submission_id=receipt.submission_id))
        logger.info("round %s submitted: submission %s", memory.round_id, receipt.submission_id)

    def leave(self, memory: RoundMemory, seen: WorkRound) -> None:
        """The round goes on or has ended without us: read why, and keep it."""
        outcome, code = seen.participant, seen.code or ""
        if memory.submission_id:
            found = self._transport.submission(memory.submission_id, wait_seconds=0)
            outcome, code = found.state, found.code or code
        self._state.put(replace(memory, stage=Stage.SETTLED, outcome=outcome, code=code))
        logger.warning(
            "round %s ended for this device: round %s, submission %s%s",
            memory.round_id,
            seen.state,
            outcome,
            f", {code}" if code else "",
        )

    def settle(self, memory: RoundMemory, seen: WorkRound) -> None:
        """Read the round record and the new model.

        Raises:
            LedgerError: the record does not tell what happened.
        """
        assignment = self._assignment(memory.round_id)
        if memory.submission_id:
            found = self._transport.submission(memory.submission_id, wait_seconds=0)
            memory = self._state.put(replace(memory, outcome=found.state, code=found.code or ""))
        raw = self._transport.round_record(memory.round_id)
        record = verify_record(
            raw,
            trust=self._trust(),
            plan=self._plan(memory.round_id),
            assignment=assignment,
            device_id=self._identity.device_id,
            submission_digest=bytes.fromhex(memory.submission_digest) or None,
            k_hospitals=self._config.floor.k_hospitals,
        )
        self._state.keep(memory.round_id, "record.cbor", raw)
        if record.model_id is not None and record.weights_digest is not None:
            plan = self._plan(memory.round_id)
            named = NamedVersion(
                model_id=record.model_id, training_id=plan.training_id, weights_digest=record.weights_digest
            )
            if not self._holds(named):
                self._fetch_model(named, plan)
        self._state.put(replace(memory, stage=Stage.SETTLED))
        logger.info("round %s settled: number %d, %s", memory.round_id, memory.number, memory.outcome or "no update")

    def refuse(self, seen: WorkRound, code: str) -> None:
        """Remember that this device does not take part (any more), and why."""
        memory = self._state.rounds.get(seen.round_id) or RoundMemory(
            round_id=seen.round_id,
            training_id=seen.training_id,
            number=seen.number,
            kind=seen.kind,
            base_model_digest="",
            stage=Stage.REFUSED,
        )
        self._state.put(replace(memory, stage=Stage.REFUSED, code=code))

    def _verified_assignment(self, seen: WorkRound) -> VerifiedAssignment:
        plan_raw, assignment_raw = self._transport.assignment(seen.round_id)
        verified = verify_assignment(
            plan_raw,
            assignment_raw,
            trust=self._trust(),
            round_id=seen.round_id,
            highest_number=self._state.highest_round.get(seen.training_id, 0),
            job=self._contributor.job,
        )
        if verified.plan.training_id != seen.training_id:
            raise WrongContextError(f"round {seen.round_id} is of another training than the server says")
        self._state.keep(seen.round_id, "plan.cbor", verified.plan.to_bytes())
        self._state.keep(seen.round_id, "assignment.cbor", verified.assignment.to_bytes())
        return verified

    def _base_vector(self, verified: VerifiedAssignment) -> FloatVector:
        """The model that the round begins with: what the plan starts from, or a version of this training.

        Raises:
            IncompatiblePlanError: the round has no base model, and the plan's start is one.
            WrongContextError: the base model is neither, or has other weights than plan and assignment say.
            ReplayError: of its training a newer version was seen.
        """
        plan, assignment = verified.plan, verified.assignment
        if assignment.base_model is None:
            vector = initial_vector(plan.layout, plan.initial)
        else:
            named = NamedVersion(
                model_id=assignment.base_model,
                training_id=plan.training_id,
                weights_digest=assignment.base_model_digest,
            )
            if plan.start is not None and plan.start.model_id == assignment.base_model:
                named = plan.start
            vector = load_newest(self._config.home) if self._holds(named) else self._fetch_model(named, plan)
        if weights_digest(vector) != assignment.base_model_digest:
            raise WrongContextError(f"round {assignment.round_id} starts from a model that does not follow")
        return vector

    def _holds(self, named: NamedVersion) -> bool:
        held = self._state.model
        wanted = (named.model_id, named.training_id, named.weights_digest.hex())
        return held is not None and wanted == (held.model_id, held.training_id, held.weights_digest)

    def _fetch_model(self, named: NamedVersion, plan: RoundPlan) -> FloatVector:
        manifest_raw, stanza = self._transport.manifest(named.model_id)
        manifest = verify_manifest(
            manifest_raw,
            trust=self._trust(),
            named=named,
            plan=plan,
            least_number=self._state.highest_model.get(named.training_id, 0),
        )
        require_size(manifest, limit_bytes=self._config.model_limit_bytes)
        key_id = parse_stanza(stanza, header=EnvelopeHeader.from_bytes(manifest.header)).key_id
        epoch, decapsulation_key = self._identity.opener(key_id)
        vector = open_model(
            manifest,
            stanza=stanza,
            body=self._transport.model_body(named.model_id, limit_bytes=manifest.body_bytes),
            size=plan.layout.size,
            device_id=self._identity.device_id,
            epoch=epoch,
            federation_id=self._identity.federation_id,
            decapsulation_key=decapsulation_key,
        )
        keep_model(self._config.home, vector, manifest, earlier_kept=self._config.keep_models)
        self._state.highest_model[manifest.training_id] = manifest.number
        self._state.model = HeldModel(
            model_id=manifest.model_id,
            training_id=manifest.training_id,
            number=manifest.number,
            weights_digest=manifest.weights_digest.hex(),
        )
        self._state.save()
        logger.info("model %s held: number %d", manifest.model_id, manifest.number)
        return vector

    def _plan(self, round_id: str) -> RoundPlan:
        return RoundPlan.from_bytes(self._state.recall(round_id, "plan.cbor"))

    def _assignment(self, round_id: str) -> Assignment:
        return Assignment.from_bytes(self._state.recall(round_id, "assignment.cbor"))
