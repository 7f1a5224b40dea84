"""Hospitals: where they are in time, and who answers there.

A site's slug stands in certificates and never changes. A contact is a person's data: it can be changed and emptied, so
it never goes into the ledger, which can not; entries say which of its fields were touched.
"""

import re
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final
from uuid import UUID
from zoneinfo import available_timezones

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from devices.changes import save_changed
from devices.models import Federation, Site
from latticeward.errors import InvalidValueError, NotFoundError

_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PHONE: Final = re.compile(r"\+?[0-9][0-9 ()/.-]{2,38}")
_PUBLIC: Final = ("name", "time_zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """What is kept of a hospital, apart from its slug.

    Attributes:
        name: for people, 1 to 200 characters.
        time_zone: IANA name, for example ``Europe/Berlin``.
        contact_name, contact_email, contact_phone: who answers there; each may be empty.
    """

    name: str
    time_zone: str = "UTC"
    contact_name: str = ""
    contact_email: str = ""
    contact_phone: str = ""


def create_site(*, federation: Federation, slug: str, actor: str, **facts: str) -> Site:
    """Add a hospital, or return the one that has this slug already, as it is.

    Args:
        facts: the attributes of ``SiteFacts``; ``name`` is needed.

    Raises:
        InvalidValueError: the slug is not a DNS label, or a fact cannot be, or another hospital has the name.
    """
    if _SLUG.fullmatch(slug) is None:
        raise InvalidValueError("The slug of a hospital holds lower-case letters, digits and hyphens.")
    given = SiteFacts(**facts)
    validate_facts(given)
    with transaction.atomic():
        _require_own_name(federation, slug, given.name)
        site, is_new = Site.objects.get_or_create(
            federation=federation, slug=slug, defaults={**asdict(given), "created_at": timezone.now()}
        )
        if is_new:
            record(
                "site.created",
                actor=actor,
                feed=federation.feed,
                subject=("site", site.id),
                details={"slug": slug, "site": given.name, "time_zone": given.time_zone},
            )
    return site


def change_site(*, site_id: UUID, changes: dict[str, Any], actor: str) -> Site:
    """Change what is kept of a hospital.

    Args:
        changes: some of the attributes of ``SiteFacts`` with their new values.

    Raises:
        NotFoundError: no such hospital.
        InvalidValueError: a fact cannot be.
    """
    with transaction.atomic():
        Site.objects.select_for_update().filter(pk=site_id).first()  # so that two changes come one after the other
        site = get_site(site_id)
        before = asdict(facts_of(site))
        facts = SiteFacts(**{**before, **changes})
        validate_facts(facts)
        if facts.name != before["name"]:
            _require_own_name(site.federation, site.slug, facts.name)
        if changed := save_changed(site, before=before, after=asdict(facts)):
            record(
                "site.changed",
                actor=actor,
                feed=site.federation.feed,
                subject=("site", site.id),
                details={
                    "site": site.name,
                    "changed": sorted(changed),
                    "from": {name: before[name] for name in _PUBLIC if name in changed},
                    "to": {name: changed[name] for name in _PUBLIC if name in changed},
                },
            )
    return site


def _require_own_name(federation: Federation, slug: str, name: str) -> None:
    # A round record knows hospitals by their names: two of one name would be one, and agents would refuse the record.
    Federation.objects.select_for_update(no_key=True).get(pk=federation.pk)
    namesakes = Site.objects.filter(federation=federation, name__iexact=name).exclude(slug=slug)
    if namesakes.exists():
        raise InvalidValueError("Another hospital has this name. Add its place, so that round records tell them apart.")


def get_site(site_id: UUID) -> Site:
    """A hospital with its federation.

    Raises:
        NotFoundError: there is none of this id.
    """
    site = Site.objects.select_related("federation").filter(pk=site_id).first()
    if site is None:
        raise NotFoundError(f"there is no hospital {site_id}")
    return site


def facts_of(site: Site) -> SiteFacts:
    """What is kept of a hospital now."""
    return SiteFacts(**{name: getattr(site, name) for name in SiteFacts.__dataclass_fields__})


@cache
def time_zones() -> frozenset[str]:
    """The IANA names that this machine knows; read once, from some hundred files."""
    return frozenset(available_timezones())


def validate_facts(facts: SiteFacts) -> None:
    """Refuse what cannot be true of a hospital.

    Raises:
        InvalidValueError: the text says which and why.
    """
    if not 1 <= len(facts.name.strip()) <= 200:
        raise InvalidValueError("A hospital has a name of 1 to 200 characters.")
    if facts.time_zone not in time_zones():
        raise InvalidValueError(f"There is no time zone {facts.time_zone[:64]!r}. Name one as in Europe/Berlin.")
    if len(facts.contact_name) > 100:
        raise InvalidValueError("The name of a contact has at most 100 characters.")
    if facts.contact_email:
        try:
            validate_email(facts.contact_email)
        except ValidationError as exc:
            raise InvalidValueError("The e-mail address of the contact is none.") from exc
        if len(facts.contact_email) > 254:
            raise InvalidValueError("The e-mail address of the contact is too long.")
    if facts.contact_phone and _PHONE.fullmatch(facts.contact_phone) is None:
        raise InvalidValueError("A telephone number has 3 to 40 digits, blanks and the signs + ( ) / . -")
