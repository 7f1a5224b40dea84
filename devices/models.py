"""Who may take part: the federation, its hospitals, their machines, and how a machine becomes one of them."""

import uuid

from django.db import models

from latticeward.lifecycle import (
    DEVICE,
    ENCIPHERMENT,
    RENEWAL,
    ROTATING_DEVICE,
    ROTATION,
    SUITE,
    EnciphermentState,
    RenewalState,
    RotatingDeviceState,
)


class Federation(models.Model):
    """The group of hospitals that learn together."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(max_length=40, unique=True)
    name = models.TextField()
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name

    @property
    def feed(self) -> str:
        """The numbered stream of live events of this federation."""
        return feed_of(self.id)


def feed_of(federation_id: uuid.UUID) -> str:
    """The name of a federation's stream of live events."""
    return f"federation:{federation_id}"


class Site(models.Model):
    """One hospital."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.PROTECT, related_name="sites")
    # A DNS label of the certificates' names, hence the bound of 63 characters.
    slug = models.SlugField(max_length=63)
    name = models.TextField()
    time_zone = models.CharField(max_length=64, default="UTC", help_text="IANA name; its times are shown in it")
    contact_name = models.CharField(max_length=100, default="")
    contact_email = models.CharField(max_length=254, default="")
    contact_phone = models.CharField(max_length=40, default="")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["federation", "slug"], name="one_site_a_slug")]

    def __str__(self) -> str:
        return self.name

    @property
    def feed(self) -> str:
        """The numbered stream of live events of its federation."""
        return feed_of(self.federation_id)


class Battery(models.TextChoices):
    """What a machine lives on; the less there is, the less it should be asked."""

    MAINS = "mains", "on the mains"
    RECHARGEABLE = "rechargeable", "charged every day"
    WEARABLE = "wearable", "worn, charged when it can be"


class DeviceClass(models.Model):
    """A kind of machine and what the federation asks of it: floor, approval, lifetimes, rotation."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.PROTECT, related_name="device_classes")
    # On the wire and in claim codes; never changed once devices may know it.
    slug = models.SlugField(max_length=63)
    name = models.CharField(max_length=100)
    description = models.CharField(max_length=200, default="")
    battery = models.CharField(max_length=16, choices=Battery.choices, default=Battery.MAINS)
    suite_floor = models.CharField(max_length=40, help_text="the weakest suite that a device of this class may use")
    default_suite = models.CharField(max_length=40, help_text="chosen when the federation and the device accept it")
    auto_approve = models.BooleanField(default=False, help_text="unless the claim says otherwise")
    certificate_days = models.PositiveSmallIntegerField(default=90)
    rotate_after_days = models.PositiveSmallIntegerField(null=True, help_text="null: never for its age")
    rotate_after_uses = models.PositiveBigIntegerField(null=True, help_text="signatures; null: never for their number")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["federation", "slug"], name="one_device_class_a_slug")]

    def __str__(self) -> str:
        return self.name


class Device(models.Model):
    """The enrolled machine at a hospital; its keys stand in ``keys`` under this id."""

    id = models.UUIDField(primary_key=True, editable=False)
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="devices")
    name = models.CharField(max_length=64, help_text="what the hospital calls it; shown, never trusted")
    device_class = models.ForeignKey(DeviceClass, on_delete=models.PROTECT, related_name="devices")
    state = models.TextField(default=DEVICE.initial)
    suite = models.TextField(help_text="chosen at enrolment")
    key_epoch = models.PositiveIntegerField(default=1)
    requested_at = models.DateTimeField()
    activated_at = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True)
    renewal_reason = models.TextField(
        default="", help_text="why the server asks for new keys now; empty if it does not"
    )
    renewal_suite = models.TextField(default="", help_text="the suite that the new keys are to be made for")

    class Meta:
        indexes = [models.Index(fields=["state"])]

    def __str__(self) -> str:
        return f"{self.name} of {self.site_id}"


class Claim(models.Model):
    """A claim code, without its secret: the right to enrol one machine of one class at one hospital, once."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    lookup_id = models.CharField(max_length=10, unique=True, help_text="hex, 5 bytes; names the claim, opens nothing")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="claims")
    device_class = models.ForeignKey(DeviceClass, on_delete=models.PROTECT, related_name="claims")
    auto_approve = models.BooleanField(null=True, default=None, help_text="null: as the class says when it is used")
    bound_fingerprint = models.CharField(
        max_length=39, default="", help_text="of the one signing key that may use it; empty for any"
    )
    wrapped_key = models.BinaryField(null=True, help_text="the derived MAC key; erased when the claim is consumed")
    created_by = models.TextField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    reserved_for = models.CharField(max_length=64, default="", help_text="hex SHA-256 of the one T1 that may finish")
    reserved_until = models.DateTimeField(null=True)
    consumed_at = models.DateTimeField(null=True)


class Enrolment(models.Model):
    """One begun enrolment: the transcript, our answer to it, and the challenge until it is met."""

    id = models.UUIDField(primary_key=True, editable=False)
    claim = models.ForeignKey(Claim, on_delete=models.PROTECT, related_name="enrolments")
    device_id = models.UUIDField(unique=True, help_text="the id that the device gets if it finishes")
    transcript = models.BinaryField()
    transcript_digest = models.CharField(max_length=64)
    answer = models.BinaryField()
    answer_mac = models.BinaryField()
    suite = models.TextField()
    wrapped_challenge = models.BinaryField(null=True, help_text="erased when the enrolment is finished or expired")
    proofs_digest = models.CharField(max_length=64, default="", help_text="of the proofs that finished it")
    begun_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)


class Renewal(models.Model):
    """One device's change to its next epoch: the transcript, our answer, and the challenge until it is met.

    A parent epoch has one living renewal: a second one is what a copied key looks like (``devices/renewal.py``).
    """

    id = models.UUIDField(primary_key=True, editable=False)
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="renewals")
    state = models.TextField(default=RENEWAL.initial)
    parent_epoch = models.PositiveIntegerField()
    transcript = models.BinaryField()
    transcript_digest = models.CharField(max_length=64)
    answer = models.BinaryField()
    suite = models.TextField()
    wrapped_challenge = models.BinaryField(null=True, help_text="erased when it is met or expired")
    proofs_digest = models.CharField(max_length=64, default="", help_text="of the proofs that finished it")
    code = models.TextField(default="", help_text="why it ended without new keys")
    begun_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    proven_at = models.DateTimeField(null=True)
    issued_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["device", "parent_epoch"],
                condition=models.Q(state__in=[RenewalState.BEGUN, RenewalState.PROVEN, RenewalState.ISSUED]),
                name="one_living_renewal_a_parent",
            )
        ]
        indexes = [models.Index(fields=["state", "proven_at"])]


class Encipherment(models.Model):
    """One device's request for an encipherment certificate: the request, our answer, the challenge until it is met."""

    id = models.UUIDField(primary_key=True, editable=False)
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="encipherments")
    state = models.TextField(default=ENCIPHERMENT.initial)
    epoch = models.PositiveIntegerField(help_text="of the device's keys that asked")
    request = models.BinaryField()
    request_digest = models.CharField(max_length=64)
    key_id = models.CharField(max_length=64, help_text="hex, of the key that the certificate is for")
    answer = models.BinaryField()
    wrapped_challenge = models.BinaryField(null=True, help_text="erased when it is met or expired")
    proof_digest = models.CharField(max_length=64, default="", help_text="of the proof that finished it")
    code = models.TextField(default="", help_text="why it ended without a certificate")
    begun_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    proven_at = models.DateTimeField(null=True)
    issued_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["device"],
                condition=models.Q(state__in=[EnciphermentState.BEGUN, EnciphermentState.PROVEN]),
                name="one_living_encipherment_a_device",
            )
        ]
        indexes = [models.Index(fields=["state", "proven_at"])]


class Scope(models.TextChoices):
    """Which devices a rotation takes."""

    FLEET = "fleet", "the whole fleet"
    SITE = "site", "one hospital"
    DEVICE_CLASS = "device_class", "one device class"
    SUITE = "suite", "one suite"
    DUE = "due", "those that are due"


class Rotation(models.Model):
    """A job that has many devices renew their keys before their time; its devices are rows of their own."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.PROTECT, related_name="rotations")
    state = models.TextField(default=ROTATION.initial)
    cause = models.TextField(help_text="rotation or retirement")
    scope = models.TextField(choices=Scope.choices)
    scope_value = models.CharField(max_length=63, default="", help_text="slug of the site or class, or the suite")
    why = models.CharField(max_length=200, default="")
    at_once = models.PositiveIntegerField(help_text="devices that are asked and have not answered yet, at most")
    total = models.PositiveIntegerField()
    created_by = models.TextField()
    created_at = models.DateTimeField()
    due_at = models.DateTimeField(null=True, help_text="of a retirement: the date")
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["state"])]


class RotatingDevice(models.Model):
    """One device in one rotation."""

    rotation = models.ForeignKey(Rotation, on_delete=models.CASCADE, related_name="rows")
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="rotating")
    state = models.TextField(default=ROTATING_DEVICE.initial)
    from_epoch = models.PositiveIntegerField()
    suite = models.CharField(max_length=40, help_text="that the new keys are to be made for")
    asked_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rotation", "device"], name="one_row_a_device_and_rotation"),
            models.UniqueConstraint(
                fields=["device"],
                condition=models.Q(state__in=[RotatingDeviceState.WAITING, RotatingDeviceState.ASKED]),
                name="one_rotation_of_a_device_at_a_time",
            ),
        ]
        indexes = [models.Index(fields=["rotation", "state"])]


class SuitePolicy(models.Model):
    """What the federation says of one suite; without a row the settings say it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.PROTECT, related_name="suite_policies")
    suite = models.CharField(max_length=40)
    state = models.TextField(default=SUITE.initial)
    retire_at = models.DateTimeField(null=True, help_text="from then on it makes nothing new")
    changed_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["federation", "suite"], name="one_policy_a_suite")]


class SpentNonce(models.Model):
    """The nonce of a request that was made ahead of this server's clock; see ``nonces.py``."""

    name = models.CharField(primary_key=True, max_length=200)
    ends_at = models.DateTimeField(db_index=True)
