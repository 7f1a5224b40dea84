"""What is learned together, as rows: trainings, rounds, participants, submissions, partial sums, model versions.

State columns are written by ``controlplane.transitions.apply_transition`` alone. Bytes that are signed are stored as
they were signed. Large bytes (envelopes, partial sums, model bodies) are sealed blobs, named here by their digest.
"""

import uuid
from functools import lru_cache

from django.db import models

from devices.models import Device, Federation
from latticeward.errors import PlanChangedError
from latticeward.lifecycle import (
    AliasMoveState,
    ModelExportState,
    ModelState,
    ParticipantState,
    RoundState,
    TrainingState,
)
from latticeward.plan import RoundPlan, plan_digest


class Training(models.Model):
    """A signed plan plus its series of rounds."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.PROTECT, related_name="trainings")
    title = models.TextField()
    job = models.TextField()
    state = models.TextField(default=TrainingState.DRAFT)
    state_due_at = models.DateTimeField(null=True)
    plan = models.BinaryField(help_text="canonical bytes of the plan")
    plan_digest = models.BinaryField(max_length=32)
    signed_plan = models.BinaryField(null=True)
    suite = models.TextField()
    quorum = models.PositiveIntegerField()
    metric = models.TextField()
    rounds_max = models.PositiveIntegerField()
    start_model = models.ForeignKey(
        "ModelVersion",
        null=True,
        on_delete=models.PROTECT,
        related_name="successors",
        help_text="the version of another training that its plan starts from",
    )
    comparison = models.JSONField(null=True, help_text="reference results, reported by an operator's tool")
    created_by = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)
    ended_by = models.TextField(blank=True, help_text="the stop rule, or the code of the failure, or operator")

    class Meta:
        ordering = ["-created_at"]

    @property
    def round_plan(self) -> RoundPlan:
        """The plan as a value.

        Raises:
            PlanChangedError: the row's bytes are not those whose digest was signed and sent to the hospitals.
        """
        plan = _plan_of(bytes(self.plan), bytes(self.plan_digest))
        if plan is None:
            raise PlanChangedError(f"the plan of training {self.id} was changed after it was made")
        return plan


@lru_cache(maxsize=64)
def _plan_of(raw: bytes, digest: bytes) -> RoundPlan | None:
    """The plan of these bytes; None if this is not their digest. Kept, since every step of a round asks for it."""
    return RoundPlan.from_bytes(raw) if plan_digest(raw) == digest else None


class ModelVersion(models.Model):
    """Published weights: a sealed body, the key to it in the vault's wrapping, and the signed manifest."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    training = models.ForeignKey(Training, on_delete=models.PROTECT, related_name="models")
    number = models.PositiveIntegerField(help_text="the number of the round that made it")
    weights_digest = models.BinaryField(max_length=32)
    base_model_digest = models.BinaryField(max_length=32)
    manifest = models.BinaryField(help_text="canonical bytes of the manifest")
    signed_manifest = models.BinaryField(null=True)
    header = models.BinaryField()
    body_blob = models.TextField(help_text="digest by which blob storage knows the sealed body")
    body_bytes = models.BigIntegerField()
    wrapped_content_key = models.BinaryField()
    optimiser_blob = models.TextField(blank=True, help_text="sealed state of the server optimiser")
    state = models.TextField(default=ModelState.AVAILABLE)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["training", "number"], name="one_model_a_round_number")]


class ModelStanza(models.Model):
    """The content key of one model version, sealed to one device."""

    model = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="stanzas")
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="+")
    key_id = models.TextField(help_text="the device's encapsulation key that it was sealed to")
    stanza = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model", "device"], name="one_stanza_a_device_and_model")]


class Round(models.Model):
    """One federated learning step, from draft to a terminal state."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    training = models.ForeignKey(Training, on_delete=models.PROTECT, related_name="rounds")
    number = models.PositiveIntegerField()
    kind = models.TextField(default="training", help_text="training, or evaluation (measures, makes no model)")
    state = models.TextField(default=RoundState.DRAFT)
    state_due_at = models.DateTimeField(null=True)
    quorum = models.PositiveIntegerField()
    base_model = models.ForeignKey(ModelVersion, null=True, on_delete=models.PROTECT, related_name="+")
    base_model_digest = models.BinaryField(max_length=32)
    model = models.OneToOneField(ModelVersion, null=True, on_delete=models.PROTECT, related_name="round")
    assignment = models.BinaryField(help_text="canonical bytes")
    signed_assignment = models.BinaryField(null=True)
    recipient_key = models.BinaryField(help_text="raw encapsulation key of this round")
    wrapped_decapsulation_seed = models.BinaryField(null=True)
    record = models.BinaryField(null=True, help_text="canonical bytes of the round record, once prepared")
    claim = models.UUIDField(null=True, help_text="of the worker that aggregates it")
    claimed_until = models.DateTimeField(null=True)
    signed_record = models.BinaryField(null=True)
    metric_name = models.TextField(blank=True)
    metric_value = models.FloatField(null=True, help_text="of the base model, on the hospitals' held-out parts")
    metric_support = models.JSONField(null=True, help_text="hospitals and patients behind the value")
    failure_code = models.TextField(blank=True)
    stage_seconds = models.JSONField(default=dict, help_text="measured: merge, seal, publish")
    created_at = models.DateTimeField(auto_now_add=True)
    opened_at = models.DateTimeField(null=True)
    recruiting_due_at = models.DateTimeField(null=True)
    collecting_due_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)
    published_at = models.DateTimeField(null=True)
    last_update_at = models.DateTimeField(null=True, help_text="arrival of the last accepted update")

    class Meta:
        ordering = ["training", "number"]
        constraints = [models.UniqueConstraint(fields=["training", "number"], name="one_round_a_number")]
        indexes = [models.Index(fields=["state"])]

    @property
    def feed(self) -> str:
        return f"round:{self.id}"


class Participant(models.Model):
    """One device in one round."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="participants")
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="+")
    state = models.TextField(default=ParticipantState.INVITED)
    code = models.TextField(blank=True, help_text="why the last submission was refused, or the device left out")
    refusals = models.PositiveSmallIntegerField(default=0)
    joined_at = models.DateTimeField(null=True)
    metric = models.JSONField(null=True, help_text="the hospital's own, only where the plan releases it and k allows")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["round", "device"], name="one_participant_a_device_and_round")]


class Submission(models.Model):
    """One envelope as it arrived; ``outcome`` is written once."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    participant = models.ForeignKey(Participant, on_delete=models.CASCADE, related_name="submissions")
    digest = models.TextField(help_text="hex digest of the signed part: what makes two submissions the same")
    blob = models.TextField(help_text="digest by which blob storage knows the envelope")
    size_bytes = models.BigIntegerField()
    via = models.TextField()
    receipt = models.BinaryField(help_text="the signed receipt, returned unchanged on a repeat")
    received_at = models.DateTimeField()
    claim = models.UUIDField(null=True, help_text="of the worker that has taken it up")
    claimed_until = models.DateTimeField(null=True)
    slot = models.PositiveSmallIntegerField(default=0, help_text="of the partial that the worker adds it to")
    outcome = models.TextField(blank=True, help_text="accepted, refused, dropped or excluded; empty while undecided")
    code = models.TextField(blank=True)
    stage_seconds = models.JSONField(default=dict, help_text="measured: verify, open, validate, accumulate")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["participant", "digest"], name="same_bytes_are_one_submission")]


class Upload(models.Model):
    """A submission that comes in chunks and is not whole yet: what was declared of it. Its bytes are ``chunks``'."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    participant = models.ForeignKey(Participant, on_delete=models.CASCADE, related_name="uploads")
    digest = models.TextField(help_text="hex submission digest, as declared")
    sha256 = models.TextField(help_text="hex digest of the whole envelope, as declared")
    size_bytes = models.BigIntegerField()
    opened_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["participant", "digest"], name="one_upload_a_submission")]


class Partial(models.Model):
    """A sealed partial sum of a round: exact integers, so any order and grouping gives the same bits."""

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="partials")
    slot = models.PositiveSmallIntegerField()
    version = models.PositiveIntegerField(default=0)
    blob = models.TextField()
    wrapped_key = models.BinaryField()
    member_digest = models.BinaryField(max_length=32, help_text="binds the blob to the submissions that it holds")
    commitment_salt = models.BinaryField(max_length=32)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["round", "slot"], name="one_partial_a_slot")]


class Contribution(models.Model):
    """Accepted means: in exactly one partial. This row is that sentence."""

    submission = models.OneToOneField(Submission, on_delete=models.CASCADE, related_name="contribution")
    partial = models.ForeignKey(Partial, on_delete=models.CASCADE, related_name="contributions")
    measures = models.BooleanField(
        default=True, help_text="whether test patients are behind it: it counts for the metric"
    )


class ModelAlias(models.Model):
    """A name by which people and tools speak of one version of a job's models, such as ``production``."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.PROTECT, related_name="aliases")
    job = models.TextField()
    name = models.SlugField(max_length=40)
    model = models.ForeignKey(ModelVersion, null=True, on_delete=models.PROTECT, related_name="aliases")
    moved_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["job", "name"]
        constraints = [models.UniqueConstraint(fields=["federation", "job", "name"], name="one_alias_a_name_and_job")]


class AliasMove(models.Model):
    """A proposal to point an alias at a version; the rows of an alias are its history."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    alias = models.ForeignKey(ModelAlias, on_delete=models.PROTECT, related_name="moves")
    state = models.TextField(default=AliasMoveState.PROPOSED)
    target = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    before = models.ForeignKey(ModelVersion, null=True, on_delete=models.PROTECT, related_name="+")
    is_rollback = models.BooleanField(help_text="the target is older than what the alias pointed at")
    reason = models.TextField()
    proposed_by = models.TextField()
    proposed_at = models.DateTimeField()
    due_at = models.DateTimeField()
    decided_by = models.TextField(blank=True)
    decided_at = models.DateTimeField(null=True)
    decision = models.TextField(blank=True, help_text="why it was declined or withdrawn")

    class Meta:
        ordering = ["-proposed_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["alias"], condition=models.Q(state=AliasMoveState.PROPOSED), name="one_open_move_an_alias"
            ),
            models.CheckConstraint(
                condition=~models.Q(state=AliasMoveState.CONFIRMED) | ~models.Q(decided_by=models.F("proposed_by")),
                name="a_move_takes_two_people",
            ),
        ]


class ModelExport(models.Model):
    """A version as a file, sealed to a key of its own that the web tier holds until one person has fetched it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    model = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="exports")
    format = models.TextField()
    licence = models.TextField(blank=True, help_text="the terms that the file names")
    reason = models.TextField()
    state = models.TextField(default=ModelExportState.REQUESTED)
    state_due_at = models.DateTimeField(null=True)
    requested_by = models.TextField()
    requested_at = models.DateTimeField()
    recipient_key = models.BinaryField(help_text="raw encapsulation key of this export")
    wrapped_seed = models.BinaryField(null=True, help_text="erased when the file is taken or expires")
    sealed_key = models.BinaryField(null=True, help_text="the file's key, sealed to the encapsulation key")
    blob = models.TextField(blank=True)
    file_bytes = models.BigIntegerField(null=True)
    file_digest = models.TextField(blank=True, help_text="SHA-256 of the plain file")
    failure_code = models.TextField(blank=True)


class ModelDifference(models.Model):
    """How one version's weights differ from another's: asked for by a person, worked out once by a worker."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    before = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    after = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    requested_by = models.TextField()
    requested_at = models.DateTimeField()
    computed_at = models.DateTimeField(null=True)
    result = models.JSONField(null=True, help_text="tensors and total, as rounds/services/differences.py writes them")
    failure_code = models.TextField(blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["before", "after"], name="one_difference_a_pair")]


class Reminder(models.Model):
    """A step that was overdue: how many messages the sweep has sent for it, and when the next one may follow."""

    step = models.TextField(help_text="a step of rounds/services/reminders.py")
    subject = models.UUIDField(help_text="of the row that waits")
    sent = models.PositiveIntegerField()
    next_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["step", "subject"], name="one_reminder_a_step_and_subject")]
