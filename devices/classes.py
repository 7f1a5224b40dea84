"""Device classes: what kinds of machines a federation has, and what it asks of each.

A class steers enrolment (``enrolment.py`` asks it for floor, default suite and approval), the lifetime of certificates
and the rotation of keys. Its slug stands in claim codes and transcripts and is never changed; nothing is deleted,
because devices and the ledger refer to it.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from devices.changes import save_changed
from devices.models import Battery, DeviceClass, Federation
from latticeward.crypto.issuing import DEVICE_LIFETIME
from latticeward.crypto.suites import MAKEABLE, get_suite
from latticeward.errors import InvalidValueError, NotFoundError, UnknownDeviceClassError, UnsupportedSuiteError

# A statement that nobody can take back early should not outlive a yearly review.
CERTIFICATE_DAYS_LIMIT: Final = 366
ROTATION_DAYS_LIMIT: Final = 3_650
ROTATION_USES_LIMIT: Final = 2**48
_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTerms:
    """What a class says, apart from its slug.

    Attributes:
        name: for people, 1 to 100 characters.
        description: at most 200 characters.
        battery: what its machines live on, a value of ``Battery``.
        suite_floor: id of the weakest suite that a device of the class may use.
        default_suite: id of the suite that is chosen when federation and device accept it; not below the floor.
        auto_approve: whether its devices need no person who compares fingerprints, unless the claim says otherwise.
        certificate_days: lifetime of certificate and key statement, 1 to 366.
        rotate_after_days, rotate_after_uses: age in days and number of signatures after which the keys are due for
            rotation; None for never by that rule.
    """

    name: str
    description: str = ""
    battery: str = Battery.MAINS.value
    suite_floor: str = "hybrid"
    default_suite: str = "hybrid"
    auto_approve: bool = False
    certificate_days: int = DEVICE_LIFETIME.days
    rotate_after_days: int | None = None
    rotate_after_uses: int | None = None


# What every federation begins with. None approves by itself: that is for a person to decide.
SEEDS: Final[dict[str, ClassTerms]] = {
    "workstation": ClassTerms(name="Workstation", description="A computer of a department or a laboratory"),
    "edge-server": ClassTerms(name="Edge server", description="A server in the hospital's own computer room"),
    "gateway": ClassTerms(name="Gateway", description="Speaks for machines that cannot", rotate_after_days=365),
    "wearable-hub": ClassTerms(
        name="Wearable hub",
        description="Collects what wearables measure; often without AES instructions",
        battery=Battery.RECHARGEABLE.value,
        suite_floor="constrained",
        default_suite="constrained",
        rotate_after_days=180,
    ),
    "imaging": ClassTerms(name="Imaging", description="Beside a scanner or an archive of images"),
}


def get_class(*, federation: Federation, slug: str) -> DeviceClass:
    """The class of this slug.

    Raises:
        UnknownDeviceClassError: the federation has none of this slug; the text names those that it has.
    """
    found = DeviceClass.objects.filter(federation=federation, slug=slug).first()
    if found is None:
        known = ", ".join(federation.device_classes.order_by("slug").values_list("slug", flat=True)) or "none"
        raise UnknownDeviceClassError(f"There is no device class {slug[:63]!r}. There are: {known}.")
    return found


def class_of_id(class_id: UUID) -> DeviceClass:
    """A class with its federation.

    Raises:
        NotFoundError: there is none of this id.
    """
    found = DeviceClass.objects.select_related("federation").filter(pk=class_id).first()
    if found is None:
        raise NotFoundError(f"there is no device class {class_id}")
    return found


def create_class(*, federation: Federation, slug: str, terms: ClassTerms, actor: str) -> DeviceClass:
    """Add a class, or return the one that has this slug and says the same.

    Raises:
        InvalidValueError: the slug is not one, it says something else already, or a term is out of its bounds.
        UnsupportedSuiteError: a suite that is unknown or makes nothing new.
    """
    if _SLUG.fullmatch(slug) is None:
        raise InvalidValueError("The slug of a device class holds lower-case letters, digits and hyphens.")
    validate_terms(terms)
    with transaction.atomic():
        made, is_new = DeviceClass.objects.get_or_create(
            federation=federation, slug=slug, defaults={**asdict(terms), "created_at": timezone.now()}
        )
        if is_new:
            record(
                "device_class.created",
                actor=actor,
                feed=federation.feed,
                subject=("device_class", made.id),
                details={"device_class": slug, **asdict(terms)},
            )
    if not is_new and terms_of(made) != terms:
        raise InvalidValueError(f"There is a device class {slug!r} already. Change that one.")
    return made


def change_class(*, class_id: UUID, changes: dict[str, Any], actor: str) -> DeviceClass:
    """Change what a class says; what was decided under the old terms stays decided.

    Args:
        changes: some of the attributes of ``ClassTerms`` with their new values.

    Raises:
        NotFoundError: no such class.
        InvalidValueError, UnsupportedSuiteError: as when it is made.
    """
    with transaction.atomic():
        DeviceClass.objects.select_for_update().filter(pk=class_id).first()  # two changes come one after the other
        found = class_of_id(class_id)
        before = asdict(terms_of(found))
        terms = ClassTerms(**{**before, **changes})
        validate_terms(terms)
        if changed := save_changed(found, before=before, after=asdict(terms)):
            record(
                "device_class.changed",
                actor=actor,
                feed=found.federation.feed,
                subject=("device_class", found.id),
                details={
                    "device_class": found.slug,
                    "from": {name: before[name] for name in changed},
                    "to": changed,
                },
            )
    return found


def seed_classes(*, federation: Federation, actor: str) -> None:
    """Give a new federation the classes of ``SEEDS``; those that it has are left as they are."""
    present = set(federation.device_classes.values_list("slug", flat=True))
    for slug, terms in SEEDS.items():
        if slug not in present:
            create_class(federation=federation, slug=slug, terms=terms, actor=actor)


def terms_of(row: DeviceClass) -> ClassTerms:
    """What a class says now."""
    return ClassTerms(**{name: getattr(row, name) for name in ClassTerms.__dataclass_fields__})


def validate_terms(terms: ClassTerms) -> None:
    """Refuse terms that contradict themselves or are out of their bounds.

    Raises:
        InvalidValueError: the text says which and why.
        UnsupportedSuiteError: a suite that is unknown or makes nothing new.
    """
    if not 1 <= len(terms.name.strip()) <= 100 or len(terms.description) > 200:
        raise InvalidValueError("A device class has a name of 1 to 100 characters and a description of at most 200.")
    if terms.battery not in Battery.values:
        raise InvalidValueError(f"The battery is one of {', '.join(Battery.values)}.")
    floor, default = get_suite(terms.suite_floor), get_suite(terms.default_suite)
    for suite in (floor, default):
        if suite.status not in MAKEABLE:
            raise UnsupportedSuiteError(f"the suite {suite.id} is {suite.status} and is no term of a device class")
    if default.strength < floor.strength:
        raise InvalidValueError(f"The default suite {default.id} is weaker than the floor {floor.id}.")
    if not 1 <= terms.certificate_days <= CERTIFICATE_DAYS_LIMIT:
        raise InvalidValueError(f"A certificate lives for 1 to {CERTIFICATE_DAYS_LIMIT} days.")
    if terms.rotate_after_days is not None and not 1 <= terms.rotate_after_days <= ROTATION_DAYS_LIMIT:
        raise InvalidValueError(f"Keys rotate after 1 to {ROTATION_DAYS_LIMIT} days, or never for their age.")
    if terms.rotate_after_uses is not None and not 1 <= terms.rotate_after_uses <= ROTATION_USES_LIMIT:
        raise InvalidValueError("Keys rotate after 1 to 2^48 uses, or never for their number.")
