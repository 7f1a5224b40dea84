"""An in-memory server for the agent's loop: it speaks the Transport protocol and signs what a server would sign."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from latticeward import canonical
from latticeward.agent.backoff import Backoff
from latticeward.agent.config import AgentConfig
from latticeward.agent.floor import Floor
from latticeward.agent.identity import DeviceSecrets, Identity
from latticeward.agent.interruption import Interruption, StopRequested
from latticeward.agent.jobs import JOBS
from latticeward.agent.jobs.job import Job
from latticeward.agent.ledger_watch import LedgerWatch
from latticeward.agent.loop import AgentLoop
from latticeward.agent.rounds import RoundSteps
from latticeward.agent.state import AgentState, HeldCheckpoint
from latticeward.agent.trust_keeper import TrustKeeper
from latticeward.agent.work import LedgerProof, SubmissionOutcome, Work, WorkModel, WorkRound
from latticeward.crypto.envelope import EnvelopeHeader, Recipient, make_stanza, seal_body
from latticeward.crypto.keys import DecapsulationKey
from latticeward.crypto.signing import Purpose, sign_message
from latticeward.errors import InclusionProofError, PermanentTransportError, TransientTransportError
from latticeward.instants import to_unix_milliseconds
from latticeward.messages import Assignment, ModelManifest, RoundRecord, SubmissionReceipt, roster_digest
from latticeward.plan import RoundPlan
from latticeward.trust import TrustStore
from latticeward.updates.tensors import FloatVector, initial_vector, vector_to_bytes, weights_digest
from tests.latticeward.peers import FEDERATION_ID, NOW, SITE, Authority, authority, composite_key, device_keys

DEVICE_ID = "d0d0d0d0-0000-4000-8000-000000000001"
TRAINING_ID = "70000000-0000-4000-8000-000000000001"
# The other hospitals' devices, by id, with the names of their sites: they always deliver.
PEERS = {f"d0d0d0d0-0000-4000-8000-00000000000{number}": f"Hospital {number}" for number in (2, 3, 4)}
MINUTE_MS = 60_000
ROUND_KEY = DecapsulationKey.generate()


def uuid_of(kind: int, number: int) -> str:
    return f"{kind:08x}-0000-4000-8000-{number:012d}"


def heart_plan(**changes: Any) -> RoundPlan:
    job = JOBS["heart"]
    values: dict[str, Any] = {
        **job.default_plan,
        "training_id": TRAINING_ID,
        "federation_id": FEDERATION_ID,
        "title": job.title,
        "job": job.name,
        "layout": job.layout,
        "initial": job.initial,
        "suite": "hybrid",
        "metric": job.metric,
        "metric_size": 512,
        "created_at": to_unix_milliseconds(NOW),
    }
    return RoundPlan(**{**values, **changes})


def participant(device: str, site: str, outcome: str, digest: bytes | None) -> dict[str, Any]:
    """A row of a round record."""
    row = {"device_id": device, "site": site, "outcome": outcome, "submission_digest": digest}
    return {**row, "code": None, "metric": None}


@dataclass
class FakeContributor:
    """Makes submissions that are different each time, as real ones are, and counts them."""

    job: Job = field(default_factory=lambda: JOBS["heart"])
    made: int = 0

    def prepare(
        self, plan: RoundPlan, assignment: Assignment, base_vector: FloatVector, *, created_at: int
    ) -> tuple[bytes, bytes, dict[str, Any]]:
        self.made += 1
        envelope = f"envelope {assignment.number} attempt {self.made}".encode()
        return envelope, canonical.digest("test", envelope), {"clipped": False}


@dataclass
class FakeServer:
    """One training, its rounds, one device. Tests bend its parts between two calls of the loop.

    Attributes:
        rounds: as ``work`` shows them, by id.
        submitted: every envelope that came, with its round, in order.
        drop_receipts: how many receipts get lost after the submission was taken.
        calls: names of the methods that were called, in order.
    """

    authority: Authority = field(default_factory=authority)
    plan: RoundPlan = field(default_factory=heart_plan)
    rounds: dict[str, WorkRound] = field(default_factory=dict)
    assignments: dict[str, Assignment] = field(default_factory=dict)
    models: dict[str, tuple[ModelManifest, bytes, bytes, FloatVector]] = field(default_factory=dict)
    records: dict[str, RoundRecord] = field(default_factory=dict)
    receipts: dict[bytes, bytes] = field(default_factory=dict)
    submitted: list[tuple[str, bytes]] = field(default_factory=list)
    outcomes: dict[str, SubmissionOutcome] = field(default_factory=dict)
    entries: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    drop_receipts: int = 0
    unreachable: int = 0
    plan_key: Any = None
    now: datetime = NOW

    # --- what the authority does -------------------------------------------------------------------------------

    def open_round(self, number: int, *, base: str | None = None, kind: str = "training", **changes: Any) -> str:
        round_id = uuid_of(0xF0, number)
        base_vector = self.models[base][3] if base else initial_vector(self.plan.layout, self.plan.initial)
        values: dict[str, Any] = {
            "round_id": round_id,
            "training_id": TRAINING_ID,
            "federation_id": FEDERATION_ID,
            "number": number,
            "kind": kind,
            "plan_digest": self.plan.digest,
            "base_model": base,
            "base_model_digest": weights_digest(base_vector),
            "recipient_algorithm": str(ROUND_KEY.encapsulation_key.algorithm),
            "recipient_key": ROUND_KEY.encapsulation_key.raw,
            "roster_digest": roster_digest([DEVICE_ID, *PEERS]),
            "opened_at": to_unix_milliseconds(self.now),
            "recruiting_due_at": to_unix_milliseconds(self.now) + MINUTE_MS,
            "collecting_due_at": to_unix_milliseconds(self.now) + 2 * MINUTE_MS,
        }
        self.assignments[round_id] = Assignment(**{**values, **changes})
        self.rounds[round_id] = WorkRound(
            round_id=round_id,
            training_id=TRAINING_ID,
            number=number,
            kind=kind,
            state="recruiting",
            participant="invited",
            base_model=base,
            code=None,
        )
        return round_id

    def see(self, round_id: str, **changes: Any) -> None:
        self.rounds[round_id] = replace(self.rounds[round_id], **changes)

    def make_model(
        self,
        number: int,
        vector: FloatVector,
        *,
        sealed_to: DecapsulationKey | None = None,
        training_id: str = TRAINING_ID,
        plan: RoundPlan | None = None,
    ) -> str:
        """A published version; of another training, if that and its plan are named."""
        plan = plan or self.plan
        model_id = uuid_of(0xA0, number)
        round_id = uuid_of(0xF0, number)
        plaintext = vector_to_bytes(vector)
        header = EnvelopeHeader(
            suite=plan.suite,
            message_type="model",
            direction="to-device",
            federation_id=FEDERATION_ID,
            round_id=round_id,
            plan_digest=plan.digest,
            base_model_digest=bytes(32),
            sender_key_id=self.authority.purpose_keys[Purpose.MODEL_MANIFEST].verify_key.key_id,
            plaintext_bytes=len(plaintext),
            body_bytes=0,
            created_at=to_unix_milliseconds(self.now),
            message_id=number.to_bytes(16, "big"),
        )
        sealed = seal_body(plaintext, header=header)
        manifest = ModelManifest(
            model_id=model_id,
            training_id=training_id,
            round_id=round_id,
            number=number,
            plan_digest=plan.digest,
            base_model_digest=bytes(32),
            weights_digest=weights_digest(vector),
            header=sealed.header_bytes,
            body_digest=sealed.body_digest,
            body_bytes=len(sealed.body),
            created_at=to_unix_milliseconds(self.now),
        )
        key = (sealed_to or device_keys().decapsulation).encapsulation_key
        stanza = make_stanza(
            content_key=sealed.content_key,
            header_bytes=sealed.header_bytes,
            recipient=Recipient(key=key, role="device", subject_id=DEVICE_ID, epoch=1),
        )
        self.models[model_id] = (manifest, stanza, sealed.body, vector)
        return model_id

    def publish(self, round_id: str, *, outcome: str = "accepted", digest: bytes | None = None) -> None:
        """Publish a round whose model is the number of the round in every coordinate."""
        assignment = self.assignments[round_id]
        model_id, weights = None, None
        if assignment.kind == "training":
            vector = np.full(self.plan.layout.size, assignment.number, dtype=np.float32)
            model_id, weights = self.make_model(assignment.number, vector), weights_digest(vector)
        if digest is None and outcome == "accepted":
            digest = canonical.digest("test", [raw for where, raw in self.submitted if where == round_id][-1])
        names = ("round_id", "training_id", "federation_id", "number", "kind", "plan_digest", "base_model_digest")
        self.records[round_id] = RoundRecord(
            **{name: getattr(assignment, name) for name in names},
            weights_digest=weights,
            model_id=model_id,
            suite=self.plan.suite,
            protection="sealed",
            aggregator="mean",
            participants=(
                participant(DEVICE_ID, SITE, outcome, digest),
                *(participant(device, site, "accepted", bytes(32)) for device, site in PEERS.items()),
            ),
            accepted=len(PEERS) + (outcome == "accepted"),
            quorum=3,
            partial_commitments=(),
            metric=None,
            noise_multiplier=0.0,
            epsilon_spent=None,
            delta=None,
            ledger=None,
            opened_at=assignment.opened_at,
            closed_at=assignment.opened_at + 1,
        )
        self.see(round_id, state="published", participant=outcome)

    # --- the Transport protocol --------------------------------------------------------------------------------

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.unreachable:
            self.unreachable -= 1
            raise TransientTransportError("the server cannot be reached")

    def trust(self) -> bytes:
        self._call("trust")
        return self.authority.bundle()

    def work(self, *, after: str, wait_seconds: int) -> Work:
        self._call("work")
        models: tuple[WorkModel, ...] = ()
        return Work(token=str(len(self.calls)), server_time=self.now, rounds=tuple(self.rounds.values()), models=models)

    def assignment(self, round_id: str) -> tuple[bytes, bytes]:
        self._call("assignment")
        key = self.plan_key or self.authority.purpose_keys[Purpose.PLAN]
        return (
            sign_message(self.plan.to_bytes(), purpose=Purpose.PLAN, key=key),
            sign_message(self.assignments[round_id].to_bytes(), purpose=Purpose.PLAN, key=key),
        )

    def join(self, round_id: str) -> None:
        self._call("join")
        self.see(round_id, participant="joined")

    def submit(self, round_id: str, envelope: bytes, *, submission_digest: bytes) -> bytes:
        self._call("submit")
        self.submitted.append((round_id, envelope))
        if submission_digest not in self.receipts:
            submission_id = uuid_of(0x50, len(self.receipts) + 1)
            receipt = SubmissionReceipt(
                submission_id=submission_id,
                device_id=DEVICE_ID,
                round_id=round_id,
                plan_digest=self.plan.digest,
                submission_digest=submission_digest,
                size_bytes=len(envelope),
                via="http",
                received_at=to_unix_milliseconds(self.now),
                ledger_due_at=to_unix_milliseconds(self.now) + MINUTE_MS,
            )
            self.receipts[submission_digest] = sign_message(
                receipt.to_bytes(), purpose=Purpose.SUBMISSION_RECEIPT, key=self.authority.receipt_key
            )
            details = {"submission": submission_id, "digest": submission_digest.hex()}
            self.entries[submission_id] = entry_of(details)
            self.outcomes[submission_id] = SubmissionOutcome(state="accepted", code=None)
        self.see(round_id, participant="submitted")
        if self.drop_receipts:
            self.drop_receipts -= 1
            raise TransientTransportError("the connection broke")
        return self.receipts[submission_digest]

    def submission(self, submission_id: str, *, wait_seconds: int) -> SubmissionOutcome:
        self._call("submission")
        return self.outcomes[submission_id]

    def proof(self, submission_id: str, *, since: int) -> LedgerProof | None:
        self._call("proof")
        entry = self.entries.get(submission_id)
        return None if entry is None else LedgerProof(entry=entry, index=7, checkpoint="good", path=())

    def round_record(self, round_id: str) -> bytes:
        self._call("record")
        key = self.authority.purpose_keys[Purpose.ROUND_RECORD]
        return sign_message(self.records[round_id].to_bytes(), purpose=Purpose.ROUND_RECORD, key=key)

    def manifest(self, model_id: str) -> tuple[bytes, bytes]:
        self._call("manifest")
        if model_id not in self.models:
            raise PermanentTransportError("no such model", server_code="not_found")
        manifest, stanza, _, _ = self.models[model_id]
        key = self.authority.purpose_keys[Purpose.MODEL_MANIFEST]
        return sign_message(manifest.to_bytes(), purpose=Purpose.MODEL_MANIFEST, key=key), stanza

    def model_body(self, model_id: str, *, limit_bytes: int) -> bytes:
        self._call("body")
        return self.models[model_id][2]


def entry_of(details: dict[str, str], *, event: str = "update.received") -> bytes:
    return canonical.encode({"type": "audit-entry", "v": 1, "event": event, "details": details})


def check_proof(proof: LedgerProof, trust: TrustStore, *, held: HeldCheckpoint | None) -> HeldCheckpoint:
    if proof.checkpoint != "good":
        raise InclusionProofError("the path does not lead to the root")
    return HeldCheckpoint(size=(held.size if held else 0) + 1, root="00" * 32)


class NoRenewals:
    """A machine whose keys are young."""

    def resume(self) -> bool:
        return False

    def step(self, work: Work) -> bool:
        return False


class NoPause(Interruption):
    """Remembers the pauses instead of taking them."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) > 20:
            raise StopRequested


@dataclass
class Life:
    """One life of an agent in a home; a second one in the same home is a restart."""

    home: Path
    server: FakeServer
    floor: Floor = field(default_factory=Floor)
    contributor: Any = field(default_factory=FakeContributor)
    interruption: NoPause = field(default_factory=NoPause)

    def __post_init__(self) -> None:
        import random

        config = AgentConfig(home=self.home, job="heart", floor=self.floor, poll_seconds=0)
        self.state = AgentState.load(self.home)
        identity = identity_of(self.server.authority)
        clock = self.clock
        trust = TrustKeeper(home=self.home, identity=identity, state=self.state, transport=self.server, clock=clock)
        steps = RoundSteps(
            config=config,
            identity=identity,
            state=self.state,
            transport=self.server,
            contributor=self.contributor,
            trust=trust.current,
            clock=clock,
        )
        self.loop = AgentLoop(
            config=config,
            transport=self.server,
            state=self.state,
            steps=steps,
            trust=trust,
            watch=LedgerWatch(state=self.state, transport=self.server, trust=trust, verify=check_proof, clock=clock),
            renewals=NoRenewals(),
            backoff=Backoff(random.Random(1)),
            interruption=self.interruption,
            clock=clock,
        )

    def clock(self) -> datetime:
        return self.server.now

    def once(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.run_once()

    def restarted(self) -> "Life":
        return Life(self.home, self.server, self.floor, FakeContributor())


def identity_of(issuer: Authority) -> Identity:
    return Identity(
        device_id=DEVICE_ID,
        federation_id=FEDERATION_ID,
        site=SITE,
        server="http://127.0.0.1:8750",
        anchor=issuer.anchor.fingerprint,
        epoch=1,
        secrets=DeviceSecrets(keys=device_keys(), local_seed=bytes(32)),
        certificate_chain=(b"leaf", b"issuing"),
        statement=b"statement",
    )


def stranger() -> Any:
    return composite_key("stranger")
