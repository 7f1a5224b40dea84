"""Lists in pages: every row once, in the order that was asked for, whatever is added meanwhile."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from devices.models import Federation, Site
from tests.factories import make_device, make_federation, make_site

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in(client: Client, operator: User) -> Client:
    client.force_login(operator)
    return client


@pytest.fixture
def federation() -> Federation:
    found = make_federation()
    now = timezone.now()
    # The same moment for all: only the id tells the rows apart.
    Site.objects.bulk_create(
        Site(federation=found, slug=f"site-{number:02}", name=f"Site {number % 3}", created_at=now)
        for number in range(23)
    )
    return found


def pages(client: Client, path: str) -> list[list[Any]]:
    found = []
    following: str | None = path
    while following:
        answer = client.get(following)
        assert answer.status_code == 200, answer.content
        found.append(answer.json()["results"])
        following = answer.json()["next"]
        assert answer.get("Link") == (f'<{following}>; rel="next"' if following else None)
    return found


@pytest.mark.parametrize("ordering", ["name", "-name", "created_at", "-created_at", "slug", "-slug"])
def test_every_row_comes_once_in_the_order_asked_for(signed_in: Client, federation: Federation, ordering: str) -> None:
    found = pages(signed_in, f"/api/v1/sites?page_size=5&ordering={ordering}")
    assert [len(page) for page in found] == [5, 5, 5, 5, 3]
    rows = [row for page in found for row in page]
    assert len({row["id"] for row in rows}) == 23
    values = [row[ordering.lstrip("-")] for row in rows]
    assert values == sorted(values, reverse=ordering.startswith("-"))


def test_rows_that_are_added_move_no_page(signed_in: Client, federation: Federation) -> None:
    first = signed_in.get("/api/v1/sites?page_size=5&ordering=slug").json()
    make_site("aaa", federation)
    second = signed_in.get(first["next"]).json()
    assert second["results"][0]["slug"] == "site-05"


def test_a_page_keeps_its_filters(signed_in: Client) -> None:
    here, there = make_site("here"), make_site("there")
    for _ in range(3):
        make_device(site=here)
        make_device(site=there)
    rows = [row for page in pages(signed_in, "/api/v1/devices?site=here&page_size=2") for row in page]
    assert [row["site"] for row in rows] == ["here"] * 3
    assert [row["state"] for page in pages(signed_in, "/api/v1/devices?state=revoked") for row in page] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page_size=0", "page_size"),
        ("page_size=201", "page_size"),
        ("page_size=many", "page_size"),
        ("ordering=password", "ordering"),
        ("sate=active", "sate"),
        ("page_size=2&page_size=3", "page_size"),
    ],
)
def test_a_parameter_that_is_not_right_is_named(
    signed_in: Client, federation: Federation, query: str, field: str
) -> None:
    answer = signed_in.get(f"/api/v1/sites?{query}")
    assert (answer.status_code, answer.json()["type"]) == (400, "invalid_input")
    assert set(answer.json()["errors"]) == {field}


def test_a_cursor_is_ours_and_of_its_order(signed_in: Client, federation: Federation) -> None:
    following = signed_in.get("/api/v1/sites?page_size=5&ordering=slug").json()["next"]
    for address in ("/api/v1/sites?cursor=WyJzbHVnIl0", following.replace("ordering=slug", "ordering=name")):
        answer = signed_in.get(address)
        assert (answer.status_code, answer.json()["type"]) == (400, "malformed_message")


def test_a_cursor_is_of_its_list(signed_in: Client, federation: Federation) -> None:
    following = signed_in.get("/api/v1/sites?page_size=5&ordering=name").json()["next"]
    answer = signed_in.get(following.replace("/sites", "/device-classes"))
    assert (answer.status_code, answer.json()["type"]) == (400, "malformed_message")


@pytest.mark.parametrize("name", ["devices", "sites", "claims", "trainings", "rounds", "models"])
def test_a_longer_page_asks_no_more_questions(
    signed_in: Client, federation: Federation, name: str, django_assert_max_num_queries: Any
) -> None:
    for number in range(6):
        make_device(site=make_site(f"site-{number:02}", federation))
    with django_assert_max_num_queries(9):
        signed_in.get(f"/api/v1/{name}?page_size=200")
