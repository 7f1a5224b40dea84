"""What is refused before any view has seen it is a problem document under ``/api/`` as well."""

from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from controlplane.errors import PROBLEM_TYPE


def test_a_body_past_the_limit_is_too_large_and_not_a_page(client: Client, operator: User) -> None:
    client.force_login(operator)
    body = b" " * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
    answer = client.post("/api/v1/claims/bulk", body, content_type="application/json")
    assert (answer.status_code, answer.json()["type"], answer["Content-Type"]) == (
        413,
        "message_too_large",
        PROBLEM_TYPE,
    )


def test_a_host_that_is_not_ours_is_refused_in_the_same_form(client: Client, db: None) -> None:
    answer = client.get("/api/v1/me", headers={"Host": "elsewhere.example"})
    assert (answer.status_code, answer.json()["type"]) == (400, "protocol_error")
    assert "elsewhere" not in answer.content.decode()
    page = client.get("/sign-in/", headers={"Host": "elsewhere.example"})
    assert (page.status_code, page["Content-Type"]) == (400, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    "by_site",
    [r'{"cleveland": "a\u0000b"}', r'{"a\u0000b": 1}', r'{"cleveland": ["\ud800"]}', r'{"\udfff": [{"x": null}]}'],
)
def test_json_that_no_database_keeps_is_refused_wherever_it_stands(
    client: Client, operator: User, by_site: str
) -> None:
    client.force_login(operator)

    def report(given: str) -> Any:
        body = f'{{"metric": "auc", "pooled": 1, "central": 1, "single": {{}}, "by_site": {given}}}'
        address = "/api/v1/trainings/8d0c0f3e-5a31-4b43-9b0a-0c2f5f9a7d11/comparison"
        return client.put(address, body, content_type="application/json")

    assert (report(by_site).status_code, report(by_site).json()["type"]) == (400, "parse_error")
    assert report(r'{"z\u00fcrich": "\ud83c\udfe5"}').status_code == 404
