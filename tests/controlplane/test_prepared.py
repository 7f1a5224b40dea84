"""Statements that are compiled once: as the ORM's own, with other values, in any thread."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from controlplane.audit.models import AuditEntry
from controlplane.prepared import PreparedSelect, PreparedUpdate, insert_rows
from devices.models import Federation, Site

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 21, 9, 30, 15, 250, tzinfo=UTC)


def federation(slug: str = "heart", *, created_at: datetime = NOW) -> Federation:
    return Federation(slug=slug, name=slug.title(), created_at=created_at)


def test_a_query_gives_the_rows_of_the_values_that_it_is_called_with() -> None:
    known = [federation("heart"), federation("lung", created_at=NOW + timedelta(hours=1))]
    Federation.objects.bulk_create(known)
    by_slug = PreparedSelect(lambda slug: Federation.objects.filter(slug=slug), str)
    assert by_slug.first("heart") == known[0] and by_slug.first("lung") == known[1]
    assert by_slug.first("kidney") is None
    by_id = PreparedSelect(lambda pk, after: Federation.objects.filter(pk=pk, created_at__gt=after), UUID, datetime)
    assert by_id(known[1].id, NOW) == [known[1]] and by_id(known[0].id, NOW) == []


def test_rows_come_with_those_that_they_belong_to_and_read_the_rest_when_asked(
    django_assert_num_queries: Any,
) -> None:
    heart = federation()
    heart.save()
    Site.objects.create(federation=heart, slug="north", name="North", created_at=NOW)
    sites = PreparedSelect(
        lambda slug: Site.objects.select_related("federation").only("slug", "federation__slug").filter(slug=slug), str
    )
    with django_assert_num_queries(1):
        site = sites.first("north")
        assert site is not None and site.federation.slug == "heart"
    assert site.federation.created_at == NOW


def test_columns_come_as_the_orm_gives_them() -> None:
    heart = federation()
    heart.save()
    columns = PreparedSelect(lambda slug: Federation.objects.filter(slug=slug).values_list("id", "created_at"), str)
    assert columns("heart") == [(heart.id, NOW)]


def test_an_update_changes_the_rows_that_it_names_and_says_how_many() -> None:
    heart, lung = federation("heart"), federation("lung")
    Federation.objects.bulk_create([heart, lung])
    rename = PreparedUpdate(lambda pk, name: (Federation.objects.filter(pk=pk, name="Lung"), {"name": name}), UUID, str)
    assert (rename(heart.id, "x"), rename(lung.id, "Lungs"), rename(lung.id, "y")) == (0, 1, 0)
    assert set(Federation.objects.values_list("name", flat=True)) == {"Heart", "Lungs"}


def test_a_value_that_the_statement_does_not_use_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="uses each of its values"):
        PreparedSelect(lambda slug, other: Federation.objects.filter(slug=slug), str, str)("heart", "lung")


def test_inserted_rows_read_as_those_of_the_orm() -> None:
    entries = [
        AuditEntry(
            event="federation.created",
            actor="system",
            subject_kind="federation",
            subject_id="1",
            details={"text": "é", "list": [1, None], "yes": True},
            feed="federation:1",
            feed_seq=number,
            recorded_at=NOW,
            leaf_hash=b"\x00\xff" if number == 2 else None,
        )
        for number in (1, 2)
    ]
    insert_rows(entries)
    for entry in entries:
        read = AuditEntry.objects.get(pk=entry.pk)
        for field in AuditEntry._meta.concrete_fields:
            found = getattr(read, field.attname)
            assert (bytes(found) if isinstance(found, memoryview) else found) == getattr(entry, field.attname)


def test_a_row_that_contradicts_another_is_refused_and_nothing_is_written() -> None:
    insert_rows([federation("heart")])
    with pytest.raises(IntegrityError), transaction.atomic():
        insert_rows([federation("lung"), federation("heart")])
    assert [row.slug for row in Federation.objects.all()] == ["heart"]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_statement_is_of_no_thread() -> None:
    insert_rows([federation("heart")])
    select = PreparedSelect(lambda pk, slug: Federation.objects.exclude(pk=pk).filter(slug=slug), UUID, str)

    def ask(_: int) -> str:
        try:
            found = select.first(uuid4(), "heart")
            return found.slug if found else ""
        finally:
            connection.close()

    for _ in range(2):
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(ask, range(2))) == ["heart", "heart"]
