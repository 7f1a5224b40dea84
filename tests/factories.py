"""Rows that tests need, with only what matters given."""

from uuid import uuid4

from django.utils import timezone

from devices.classes import seed_classes
from devices.models import Device, DeviceClass, Federation, Site


def make_federation(slug: str = "northern") -> Federation:
    return Federation.objects.get_or_create(
        slug=slug, defaults={"name": slug.capitalize(), "created_at": timezone.now()}
    )[0]


def make_site(slug: str = "cleveland", federation: Federation | None = None) -> Site:
    owner = federation or make_federation()
    return Site.objects.get_or_create(
        federation=owner, slug=slug, defaults={"name": slug.capitalize(), "created_at": timezone.now()}
    )[0]


def make_class(slug: str = "workstation", federation: Federation | None = None) -> DeviceClass:
    """One of the classes that every federation begins with."""
    owner = federation or make_federation()
    seed_classes(federation=owner, actor="system")
    return DeviceClass.objects.get(federation=owner, slug=slug)


def make_device(state: str = "active", site: Site | None = None, suite: str = "hybrid") -> Device:
    """A device row without keys: enough for tables and states, not for cryptography."""
    owner = site or make_site()
    return Device.objects.create(
        id=uuid4(),
        site=owner,
        name="agent",
        device_class=make_class(federation=owner.federation),
        state=state,
        suite=suite,
        requested_at=timezone.now(),
    )
