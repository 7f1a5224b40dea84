"""Connections to PostgreSQL: lent by a pool, so that many requests on many threads share few."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from controlplane.asgi import application
from controlplane.audit.models import AuditEntry
from controlplane.postgresql.base import MOST_VALUES
from controlplane.prepared import insert_rows
from keys.models import Authority

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


async def get(path: str) -> bytes:
    sent: list[dict[str, Any]] = []
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in asked:
            return message
        return await asyncio.Future()  # the client stays and says nothing more

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"testserver")]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers, "scheme": "http"}
    await application({**scope, "raw_path": path.encode(), "http_version": "1.1"}, receive, send)
    return b"".join(message.get("body", b"") for message in sent)


def test_requests_on_many_threads_keep_to_the_pool() -> None:
    async def scene() -> list[bytes]:
        return await asyncio.gather(*(get("/api/v1/trust") for _ in range(60)))

    most = settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"]
    # All have asked the database, in which there is no authority yet; none found the pool empty.
    assert all(b'"custody_failed"' in answer for answer in asyncio.run(scene()))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        assert cursor.fetchone()[0] <= most


@pytest.mark.parametrize("write", [insert_rows, AuditEntry.objects.bulk_create], ids=["ours", "Django's"])
def test_more_values_than_a_statement_may_have_are_written_in_several(write: Callable[[list[AuditEntry]], Any]) -> None:
    told: dict[str, Any] = {"event": "user.signed_in", "actor": "user:1", "subject_kind": "user", "subject_id": "1"}
    now = timezone.now()
    entries = [AuditEntry(**told, feed="f", feed_seq=number, recorded_at=now) for number in range(8000)]
    assert len(entries) * len(AuditEntry._meta.concrete_fields) > MOST_VALUES
    write(entries)
    assert AuditEntry.objects.count() == len(entries)


def test_what_is_asked_again_and_again_is_planned_once() -> None:
    for _ in range(10):
        assert not Authority.objects.filter(profile="none").exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%%keys_authority%%'")
        (prepared,) = cursor.fetchone()
    assert "$1" in prepared
    assert "none" not in prepared
