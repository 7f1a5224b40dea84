"""Four hospitals with real keys, real rows and the agent's own pipeline, driven step by step against the services.

No HTTP and no broker: a test says who does what and in which order, so that every failure can be made to happen.
"""

import secrets
from dataclasses import dataclass, field
from typing import Any

from devices.models import Device, Federation
from devices.services import found_federation, get_device
from devices.sites import create_site
from latticeward.agent.jobs import JOBS
from latticeward.agent.jobs.job import Job
from latticeward.agent.pipeline import prepare_submission
from latticeward.crypto.envelope import parse_envelope
from latticeward.messages import Assignment
from latticeward.updates.tensors import FloatVector, initial_vector
from rounds import ingress
from rounds.models import Round, Submission, Training
from rounds.services import aggregation, coordination, intake, publication, signing, trainings
from rounds.services.plans import plan_for
from rounds.storage import BlobWriter
from tests.devices.machine import Machine, enrolled


@dataclass
class Hospital:
    """One enrolled machine and the rows of its hospital."""

    machine: Machine
    job: Job
    site: str
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @property
    def device(self) -> Device:
        assert self.machine.device is not None
        return get_device(self.machine.device.id)

    def join(self, current: Round) -> None:
        coordination.join_round(round_id=current.id, device=self.device)

    def prepare(self, current: Round, base: FloatVector | None = None, **changes: Any) -> bytes:
        """The envelope that the real agent would send; ``changes`` replace fields of the assignment it believes."""
        assignment = Assignment.from_bytes(bytes(current.assignment))
        if changes:
            assignment = Assignment(
                **{name: changes.get(name, getattr(assignment, name)) for name in Assignment.__slots__}
            )
        plan = current.training.round_plan
        envelope, _, _ = prepare_submission(
            plan=plan,
            assignment=assignment,
            job=self.job,
            base_vector=initial_vector(plan.layout, plan.initial) if base is None else base,
            data=self.job.load_site(self.site),
            signing_key=self.machine.keys.signing,
            device_seed=self.seed,
            created_at=assignment.opened_at,
        )
        return envelope

    def submit(self, current: Round, envelope: bytes) -> Submission:
        """What the door does with the bytes once the request is authenticated."""
        digest = parse_envelope(envelope, limit_bytes=len(envelope)).signed_digest.hex()
        earlier = intake.require_submitter(round_id=current.id, device=self.device, digest=digest)
        if earlier is not None:
            return earlier
        return self.hand_in(current, envelope, digest)

    def hand_in(self, current: Round, envelope: bytes, digest: str) -> Submission:
        """The door's last step alone, for bytes and a digest that need not belong together."""
        with BlobWriter() as writer:
            writer.write(envelope)
            return ingress.accept(
                round_id=current.id, device=self.device, writer=writer, declared_digest=digest, via="test"
            )

    def contribute(self, current: Round, base: FloatVector | None = None) -> Submission:
        """Prepare, submit, and have it taken in."""
        submission = self.submit(current, self.prepare(current, base))
        intake.process_update(submission.id)
        submission.refresh_from_db()
        return submission


@dataclass
class Cohort:
    """The federation of the heart job."""

    federation: Federation
    hospitals: list[Hospital]

    @classmethod
    def enrol(cls) -> "Cohort":
        federation = found_federation(slug="heart", name="Heart federation")
        job = JOBS["heart"]
        hospitals = []
        for slug in job.sites:
            site = create_site(federation=federation, slug=slug, name=slug.title(), actor="user:1")
            hospitals.append(Hospital(machine=enrolled(site), job=job, site=slug))
        return cls(federation, hospitals)

    def train(self, **overrides: Any) -> Training:
        """A signed, running training of the heart job."""
        plan = plan_for({"job": "heart", "plan": overrides}, self.federation)
        training = trainings.open_training(federation=self.federation, plan=plan, actor="user:1")
        trainings.sign_training(training.id)
        training.refresh_from_db()
        return training

    def open_round(self, training: Training) -> Round:
        """The next round, recruiting."""
        opened = trainings.advance_training(training.id)
        assert opened is not None
        coordination.sign_round(opened.id)
        return self.look(opened)

    def collecting(self, training: Training) -> Round:
        """The next round, joined by everybody and collecting."""
        current = self.open_round(training)
        for hospital in self.hospitals:
            hospital.join(current)
        assert coordination.advance_round(current.id) == "begin_collecting"
        return self.look(current)

    def publish(self, current: Round) -> Round:
        """Close, aggregate and sign."""
        assert coordination.advance_round(current.id) == "begin_aggregating"
        assert aggregation.aggregate_round(current.id)
        signing.publish_round(current.id)
        return self.look(current)

    def whole_round(self, training: Training, base: FloatVector | None = None) -> Round:
        current = self.collecting(training)
        for hospital in self.hospitals:
            assert hospital.contribute(current, base).outcome == "accepted"
        return self.publish(current)

    @staticmethod
    def look(current: Round) -> Round:
        return Round.objects.select_related("training__federation", "model", "base_model").get(pk=current.pk)

    @staticmethod
    def weights(current: Round) -> FloatVector:
        assert current.model is not None
        return publication.open_model(current.model)
