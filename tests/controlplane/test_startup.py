"""A process that lacks a key refuses to start, whichever way it is started, and says what to do."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.asgi import application
from controlplane.celery import refuse_unsound_worker
from controlplane.startup import require_sound_process
from keys import vault

SENTENCE = r"^the key file \S+web\.kek is missing: restore it from its backup, or run init_authority on a new system$"


@pytest.fixture(autouse=True)
def without_a_key(settings: Any, tmp_path: Path) -> Iterator[None]:
    settings.VAULT_DIR, settings.VAULT_PROVIDER = tmp_path, "file"
    vault.forget_keks()
    vault.initialise()
    (tmp_path / "web.kek").unlink()
    vault.forget_keks()
    require_sound_process.cache_clear()
    yield
    require_sound_process.cache_clear()
    vault.forget_keks()


@pytest.mark.django_db
def test_a_worker_without_its_key_ends_with_one_sentence() -> None:
    with pytest.raises(SystemExit, match=SENTENCE):
        refuse_unsound_worker()


@pytest.mark.django_db(transaction=True)
def test_a_web_process_without_its_key_does_not_come_up() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(application({"type": "lifespan"}, receive, send))
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "web.kek is missing: restore it" in sent[0]["message"]


def test_no_key_is_made_in_place_of_a_lost_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        refuse_unsound_worker()
    assert not (tmp_path / "web.kek").exists()
