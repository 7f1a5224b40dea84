"""What is refused before any view has seen it is a problem document under ``/api/`` as well."""

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
