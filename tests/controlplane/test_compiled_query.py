"""Queries whose SQL is made once: the same rows as Django's own, and never those of other values."""

from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from controlplane.compiled_query import CompiledQuery
from devices.models import Site
from devices.services import found_federation
from devices.sites import create_site

pytestmark = pytest.mark.django_db


def sites() -> CompiledQuery:
    return CompiledQuery(
        lambda: Site.objects.exclude(name="Hidden").order_by("-slug").values_list("id", "slug", "created_at"),
        lookup="pk",
        field=Site._meta.get_field("id"),
    )


@pytest.fixture
def made() -> list[Site]:
    federation = found_federation(slug="mesh", name="Mesh")
    named = {"a": "Aspen", "b": "Birch", "c": "Hidden", "d": "Denver"}
    return [create_site(federation=federation, slug=slug, name=name, actor="x") for slug, name in named.items()]


def test_rows_have_the_types_of_the_models_and_the_order_of_the_query_set(made: list[Site]) -> None:
    ask = sites()
    expected = [(site.id, site.slug, site.created_at) for site in (made[1], made[0])]
    for _ in range(2):  # made now, and kept
        assert ask([made[0].id, made[1].id, made[2].id]) == expected


def test_what_is_kept_is_the_sql_and_not_the_values(made: list[Site]) -> None:
    ask = sites()
    assert [slug for _, slug, _ in ask([made[0].id])] == ["a"]
    assert [slug for _, slug, _ in ask([made[3].id])] == ["d"]
    assert ask([made[2].id]) == [] == ask([uuid4()])
    assert [slug for _, slug, _ in ask([site.id for site in made])] == ["d", "b", "a"]


def test_no_values_are_no_question(made: list[Site]) -> None:
    with CaptureQueriesContext(connection) as asked:
        assert sites()([]) == []
    assert len(asked) == 0
