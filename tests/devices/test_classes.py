"""Device classes: what they may say, who is held to it, and how the words of older rows became rows."""

from dataclasses import replace
from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices import claims, classes
from devices.classes import SEEDS, ClassTerms
from devices.models import DeviceClass, Federation, Site
from latticeward.errors import InvalidValueError, NotFoundError, UnknownDeviceClassError, UnsupportedSuiteError

TERMS = ClassTerms(name="Ultrasound")


def test_a_new_federation_has_the_first_classes_and_the_ledger_says_so(federation: Federation) -> None:
    assert {row.slug: classes.terms_of(row) for row in federation.device_classes.all()} == SEEDS
    assert AuditEntry.objects.filter(event="device_class.created").count() == len(SEEDS)
    classes.seed_classes(federation=federation, actor="system")
    assert federation.device_classes.count() == len(SEEDS)


def test_no_first_class_approves_by_itself(federation: Federation) -> None:
    assert not any(terms.auto_approve for terms in SEEDS.values())


def test_the_first_classes_of_older_installations_are_those_of_new_ones() -> None:
    migration = import_module("devices.migrations.0003_seed_device_classes")
    rows = {slug: {"suite_floor": "hybrid", "default_suite": "hybrid", **row} for slug, row in migration.SEEDS.items()}
    assert {slug: ClassTerms(**row) for slug, row in rows.items()} == SEEDS


def test_a_class_is_made_once_and_not_with_other_words(federation: Federation) -> None:
    made = classes.create_class(federation=federation, slug="ultrasound", terms=TERMS, actor="user:1")
    assert classes.create_class(federation=federation, slug="ultrasound", terms=TERMS, actor="user:1") == made
    with pytest.raises(InvalidValueError):
        classes.create_class(
            federation=federation, slug="ultrasound", terms=replace(TERMS, auto_approve=True), actor="user:1"
        )
    assert classes.get_class(federation=federation, slug="ultrasound").auto_approve is False


def test_a_change_is_in_the_ledger_with_what_it_was(federation: Federation) -> None:
    row = classes.get_class(federation=federation, slug="gateway")
    changes = {"certificate_days": 30, "rotate_after_uses": 1000, "name": "Gateway"}
    classes.change_class(class_id=row.id, changes=changes, actor="user:1")
    entry = AuditEntry.objects.get(event="device_class.changed")
    assert entry.details["from"] == {"certificate_days": 90, "rotate_after_uses": None}
    assert entry.details["to"] == {"certificate_days": 30, "rotate_after_uses": 1000}
    classes.change_class(class_id=row.id, changes=changes, actor="user:1")
    assert AuditEntry.objects.filter(event="device_class.changed").count() == 1


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"name": " "}, InvalidValueError),
        ({"battery": "nuclear"}, InvalidValueError),
        ({"suite_floor": "high", "default_suite": "hybrid"}, InvalidValueError),
        ({"suite_floor": "classical", "default_suite": "hybrid"}, UnsupportedSuiteError),
        ({"default_suite": "rot13"}, UnsupportedSuiteError),
        ({"certificate_days": 0}, InvalidValueError),
        ({"certificate_days": 367}, InvalidValueError),
        ({"rotate_after_days": 0}, InvalidValueError),
        ({"rotate_after_uses": 2**48 + 1}, InvalidValueError),
    ],
)
def test_terms_that_cannot_be_are_refused_and_nothing_changes(
    federation: Federation, changes: dict[str, Any], refusal: type[Exception]
) -> None:
    row = classes.get_class(federation=federation, slug="gateway")
    with pytest.raises(refusal):
        classes.change_class(class_id=row.id, changes=changes, actor="user:1")
    with pytest.raises(refusal):
        classes.create_class(federation=federation, slug="x", terms=replace(TERMS, **changes), actor="user:1")
    assert classes.terms_of(DeviceClass.objects.get(pk=row.pk)) == SEEDS["gateway"]
    assert federation.device_classes.count() == len(SEEDS)


@pytest.mark.parametrize("slug", ["", "Work station", "-x", "a" * 64])
def test_a_slug_is_a_label(federation: Federation, slug: str) -> None:
    with pytest.raises(InvalidValueError):
        classes.create_class(federation=federation, slug=slug, terms=TERMS, actor="user:1")


def test_unknown_classes_are_named_with_those_that_there_are(site: Site) -> None:
    with pytest.raises(UnknownDeviceClassError, match=r"'toaster'.*edge-server, gateway"):
        claims.create_claim(site=site, device_class="toaster", actor="user:1")
    with pytest.raises(NotFoundError):
        classes.change_class(class_id=uuid4(), changes={}, actor="user:1")


def test_a_class_of_another_federation_is_unknown(site: Site) -> None:
    other = Federation.objects.create(slug="lungs", name="Lungs", created_at=timezone.now())
    classes.create_class(federation=other, slug="spirometer", terms=TERMS, actor="user:1")
    with pytest.raises(UnknownDeviceClassError):
        claims.create_claim(site=site, device_class="spirometer", actor="user:1")
    assert apps.get_model("devices", "Claim").objects.count() == 0
