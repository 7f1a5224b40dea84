"""Statements that are compiled once: as the ORM's own, with other values, in any thread."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connection, connections, transaction
from django.db.models import Count
from django.test.utils import CaptureQueriesContext

from controlplane.audit.models import AuditEntry
from controlplane.prepared import PreparedSelect, PreparedUpdate, insert_rows, update_rows
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


def test_a_list_asks_for_the_values_of_this_call_however_many(django_assert_num_queries: Any) -> None:
    known = {slug: federation(slug) for slug in ("brain", "heart", "kidney", "lung")}
    Federation.objects.bulk_create(known.values())
    select = PreparedSelect(
        lambda ids, name: (
            Federation.objects.filter(pk__in=ids).exclude(name=name).order_by("-slug").values_list("id", "slug")
        ),
        list[UUID],
        str,
    )

    def slugs(*asked: str, but: str = "") -> list[str]:
        return [slug for _, slug in select({known[slug].id for slug in asked}, but)]

    for _ in range(2):  # compiled now, and kept
        assert slugs("brain") == ["brain"] and slugs("lung") == ["lung"]
        assert slugs("brain", "heart", "lung") == ["lung", "heart", "brain"]
        assert slugs("brain", "heart", "lung", but="Heart") == ["lung", "brain"]
    assert select([uuid4()], "") == []
    with django_assert_num_queries(0):
        assert select([], "") == []


def test_what_is_kept_is_of_one_database_and_number_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def named(slugs: list[str]) -> Any:
        written.append(len(slugs))
        return Federation.objects.filter(slug__in=slugs)

    select = PreparedSelect(named, list[str])
    for asked in (["a"], ["b"], ["a", "b"], ["c"], ["c", "d"]):
        select(asked)
    assert written == [1, 2]
    monkeypatch.setattr(connections[DEFAULT_DB_ALIAS], "vendor", "another")
    select(["a"])
    assert written == [1, 2, 1]


def test_rows_that_are_found_by_a_list_are_those_of_the_orm() -> None:
    known = [federation("heart"), federation("lung")]
    Federation.objects.bulk_create(known)
    select = PreparedSelect(lambda slugs: Federation.objects.filter(slug__in=slugs).order_by("slug"), list[str])
    assert select(("lung", "heart")) == known
    assert [row.created_at for row in select(["lung"])] == [NOW]


def test_an_update_changes_the_rows_that_it_names_and_says_how_many() -> None:
    heart, lung = federation("heart"), federation("lung")
    Federation.objects.bulk_create([heart, lung])
    rename = PreparedUpdate(lambda pk, name: (Federation.objects.filter(pk=pk, name="Lung"), {"name": name}), UUID, str)
    assert (rename(heart.id, "x"), rename(lung.id, "Lungs"), rename(lung.id, "y")) == (0, 1, 0)
    assert set(Federation.objects.values_list("name", flat=True)) == {"Heart", "Lungs"}
    close = PreparedUpdate(lambda ids, name: (Federation.objects.filter(pk__in=ids), {"name": name}), list[UUID], str)
    assert close([heart.id, lung.id], "Closed") == 2
    assert set(Federation.objects.values_list("name", flat=True)) == {"Closed"}


def test_rows_are_changed_that_are_still_as_expected() -> None:
    heart, lung, brain = federation("heart"), federation("lung"), federation("brain")
    Federation.objects.bulk_create([heart, lung, brain])
    later = NOW + timedelta(hours=1)
    assert update_rows(Federation, [heart.id, lung.id], {"name": "é", "created_at": later}, slug="lung") == 1
    assert dict(Federation.objects.filter(created_at=later).values_list("id", "name")) == {lung.id: "é"}
    assert update_rows(Federation, {heart.id, brain.id}, {"name": "Both"}) == 2
    assert set(Federation.objects.values_list("name", flat=True)) == {"é", "Both"}


def test_columns_are_written_as_the_orm_writes_them() -> None:
    insert_rows([federation("heart"), federation("lung")])
    heart, lung = Federation.objects.order_by("slug")
    site = Site.objects.create(federation=heart, slug="north", name="North", created_at=NOW)
    assert update_rows(Site, [site.id], {"federation": lung}, federation=heart) == 1
    assert Site.objects.get().federation == lung
    entry = AuditEntry(event="federation.created", actor="system", subject_kind="federation", subject_id="1")
    entry.details, entry.feed, entry.feed_seq, entry.recorded_at, entry.leaf_hash = {}, "f", 1, NOW, b"\x01"
    insert_rows([entry])
    columns = {"details": {"text": "é", "none": None}, "leaf_hash": None, "leaf_index": 7}
    assert update_rows(AuditEntry, [entry.id], columns) == 1
    read = AuditEntry.objects.get()
    assert (read.details, read.leaf_hash, read.leaf_index) == tuple(columns.values())


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


def test_rows_go_in_as_many_statements_as_the_database_needs(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    columns = len(Federation._meta.concrete_fields)
    monkeypatch.setattr(connection.ops, "bulk_batch_size", lambda fields, rows: 2 * columns // len(fields))
    rows = [federation(slug) for slug in ("brain", "heart", "kidney", "liver", "lung")]
    with django_assert_num_queries(3):
        insert_rows(rows)
    assert [row.slug for row in Federation.objects.order_by("slug")] == [row.slug for row in rows]


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


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_rows_that_need_no_conversion_come_as_the_orm_makes_them(django_assert_num_queries: Any) -> None:
    insert_rows([heart := federation("heart")])
    insert_rows([Site(federation=heart, slug=slug, name=slug.title(), created_at=NOW) for slug in ("north", "south")])
    query = Site.objects.select_related("federation").only("slug", "federation__slug").order_by("slug")
    with django_assert_num_queries(1):
        rows = PreparedSelect(lambda slug: query.filter(federation__slug=slug), str)("heart")
        assert [(row.slug, row.federation.slug) for row in rows] == [("north", "heart"), ("south", "heart")]
    for row, other in zip(rows, query, strict=True):
        assert row == other and row.get_deferred_fields() == other.get_deferred_fields()
        assert row._state.db == other._state.db and not row._state.adding
    counted = PreparedSelect(lambda slug: Federation.objects.annotate(many=Count("sites")).filter(slug=slug), str)
    assert [row.many for row in counted("heart")] == [2]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_postgresql_takes_a_list_whole_so_that_one_statement_does_for_all_lengths() -> None:
    known = {slug: federation(slug) for slug in ("brain", "heart", "kidney")}
    insert_rows(list(known.values()))
    select = PreparedSelect(
        lambda name, ids, slugs: (
            Federation.objects.exclude(slug__in=slugs).filter(pk__in=ids).exclude(name=name).values_list("slug")
        ),
        str,
        list[UUID],
        list[str],
    )
    ids = [row.id for row in known.values()]
    with CaptureQueriesContext(connection) as asked:
        assert set(select("", ids, {"heart"})) == {("brain",), ("kidney",)}
        assert select("", {known["heart"].id}, ["brain", "lung"]) == [("heart",)]
        assert select("Brain", ids[:2], ["heart"]) == []
    assert len(select._compiled) == 1 and all(" IN (" not in query["sql"] for query in asked)
    sole = PreparedSelect(lambda slugs: Federation.objects.filter(slug__in=[*slugs, "heart"]), list[str])
    with pytest.raises(RuntimeError, match="by itself"):
        sole(["brain"])
