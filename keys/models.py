"""What the authority knows of keys: its own and everybody's public ones, their certificates and their end.

Subjects are opaque ids: this app does not know devices, so that binding, rotating and revoking are the same for a
device and for the server's own keys. Secrets stand here wrapped by the vault only, never in the clear.
"""

import hashlib
import uuid

from django.db import models
from django.db.models import Q

from latticeward.lifecycle import KEY


class Owner(models.TextChoices):
    """Whose key it is."""

    AUTHORITY = "authority"
    DEVICE = "device"


def lattice_digest(raw: bytes) -> str | None:
    """What stands in ``Key.lattice_digest`` for an ML-KEM public key; None for no key at all."""
    return hashlib.sha256(raw).hexdigest() if raw else None


class Authority(models.Model):
    """For whom this installation speaks; one row, whose lock serialises the signing of trust statements."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    federation_id = models.UUIDField(unique=True)
    federation = models.SlugField(max_length=40, help_text="as it stands in certificates")
    profile = models.TextField(help_text="a name of latticeward.crypto.certificate.PROFILES")
    trust_sequence = models.BigIntegerField(default=0)
    created_at = models.DateTimeField()

    @property
    def feed(self) -> str:
        return f"federation:{self.federation_id}"


class Key(models.Model):
    """One key: the public part for ever, the wrapped secret while the server itself must use it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.TextField(choices=Owner.choices)
    subject_id = models.TextField(help_text="id of the device, or of the federation for the authority's own")
    purpose = models.TextField(help_text="a role of the vault's table or of a device's four keys, or encipherment")
    algorithm = models.TextField()
    key_id = models.CharField(max_length=64, unique=True, help_text="hex SHA-256 of algorithm id and raw public key")
    public_key = models.BinaryField()
    lattice_digest = models.CharField(
        max_length=64,
        unique=True,
        null=True,
        blank=True,
        help_text="hex SHA-256 of the ML-KEM key in it: no two keys share one",
    )
    wrapped_secret = models.BinaryField(null=True)
    epoch = models.PositiveIntegerField(default=1)
    state = models.TextField(default=KEY.initial)
    created_at = models.DateTimeField()
    not_before_at = models.DateTimeField(null=True)
    not_after_at = models.DateTimeField(null=True)
    suspended_at = models.DateTimeField(null=True, help_text="since when, while its subject is suspended")
    superseded_at = models.DateTimeField(null=True)
    overlap_until = models.DateTimeField(null=True)
    uses = models.BigIntegerField(default=0, help_text="signed, verified or sealed to; counted in batches")
    last_used_at = models.DateTimeField(null=True, help_text="to within a batch")
    ending_told_at = models.DateTimeField(null=True, help_text="when people were told that it ends")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["subject_id", "purpose"], condition=Q(state="active"), name="one_active_key_a_purpose"
            )
        ]
        indexes = [models.Index(fields=["subject_id", "purpose", "state"])]

    def __str__(self) -> str:
        return f"{self.purpose} key {self.key_id[:12]} of {self.owner} {self.subject_id}"


def in_lock_order(rows: "models.QuerySet[Key]") -> "models.QuerySet[Key]":
    """The rows as whoever changes several in one transaction reads them first: locked until its end, by primary key.

    All lock keys in this one order, so that no two transactions wait for each other's; and no harder than an update
    does, so that a row that comes to refer to a key need not wait.
    """
    return rows.select_for_update(no_key=True).order_by("pk")


class Certificate(models.Model):
    """One X.509 certificate that the authority signed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key = models.ForeignKey(Key, on_delete=models.PROTECT, related_name="certificates")
    issuer = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="issued")
    serial = models.CharField(max_length=40, unique=True, help_text="lower-case hexadecimal")
    der = models.BinaryField()
    fingerprint = models.CharField(max_length=64, unique=True, help_text="hex SHA-256 of the DER")
    not_before_at = models.DateTimeField()
    not_after_at = models.DateTimeField()
    created_at = models.DateTimeField()


class Reason(models.TextChoices):
    """RFC 5280 reasons that this authority gives."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key_compromise"
    AFFILIATION_CHANGED = "affiliation_changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation_of_operation"
    PRIVILEGE_WITHDRAWN = "privilege_withdrawn"


class Revocation(models.Model):
    """Trust taken away from one key, and from every certificate of it, for good."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key = models.OneToOneField(Key, on_delete=models.PROTECT, related_name="revocation")
    reason = models.TextField(choices=Reason.choices)
    actor = models.TextField()
    revoked_at = models.DateTimeField()
    invalid_from = models.DateTimeField(null=True, help_text="for a compromise: nothing signed from then on counts")


class RevocationList(models.Model):
    """A signed X.509 revocation list of one issuing authority, as handed out.

    Numbers rise over all issuers together, which makes them rise for each, as RFC 5280 asks.
    """

    number = models.BigIntegerField(primary_key=True)
    issuer = models.ForeignKey(Certificate, on_delete=models.PROTECT, related_name="revocation_lists")
    basis = models.TextField(help_text="what was counted when it was made; another count calls for another list")
    der = models.BinaryField()
    issued_at = models.DateTimeField()
    next_at = models.DateTimeField()


class StatusAnswer(models.Model):
    """A signed OCSP answer about one certificate, made ahead of the question."""

    certificate = models.ForeignKey(Certificate, on_delete=models.CASCADE, related_name="status_answers")
    digest_name = models.TextField(help_text="the digest that the client asks with")
    der = models.BinaryField()
    told = models.TextField(blank=True, help_text="empty for good, else the reason, or certificate_hold")
    made_at = models.DateTimeField()
    renew_at = models.DateTimeField()
    next_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["certificate", "digest_name"], name="one_answer_a_certificate_and_digest")
        ]
        indexes = [models.Index(fields=["renew_at"])]


class StatementKind(models.TextChoices):
    """What a statement speaks about."""

    TRUST = "trust"
    DEVICE = "device"
    SERVER = "server"


class Statement(models.Model):
    """A signed statement of the authority, as handed out; its bytes never change."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.TextField(choices=StatementKind.choices)
    subject_id = models.TextField()
    number = models.BigIntegerField(help_text="trust: sequence; device: epoch; server: running number")
    digest = models.CharField(max_length=64, help_text="hex digest of the payload")
    signed = models.BinaryField()
    certificate = models.ForeignKey(Certificate, on_delete=models.PROTECT, null=True)
    key = models.ForeignKey(Key, on_delete=models.PROTECT, null=True, help_text="server: the key it certifies")
    not_before_at = models.DateTimeField()
    not_after_at = models.DateTimeField()
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "subject_id", "number"], name="one_statement_a_number")]
