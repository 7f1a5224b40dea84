"""A process that lacks a key refuses to start, whichever way it is started, and says what to do."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from controlplane import startup
from controlplane.asgi import application
from controlplane.celery import refuse_unsound_worker
from controlplane.startup import require_sound_process
from devices import suites
from devices.models import Federation
from keys import vault
from latticeward.crypto import selftest_answers
from latticeward.crypto.selftest import run_selftest
from tests.devices.conftest import federation, nothing_remembered

__all__ = ["federation", "nothing_remembered"]

SENTENCE = r"^the key file \S+web\.kek is missing: restore it from its backup, or run init_authority on a new system$"


@pytest.fixture(autouse=True)
def fresh_process(settings: Any, tmp_path: Path) -> Iterator[None]:
    settings.VAULT_DIR, settings.VAULT_PROVIDER = tmp_path, "file"
    vault.forget_keks()
    vault.initialise()
    require_sound_process.cache_clear()
    yield
    require_sound_process.cache_clear()
    vault.forget_keks()


@pytest.fixture
def without_a_key(tmp_path: Path) -> None:
    (tmp_path / "web.kek").unlink()
    vault.forget_keks()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The suites that were tested at the start."""
    seen: list[str] = []

    def tested(suites: list[str]) -> list[str]:
        seen.extend(suites)
        return run_selftest(suites)

    monkeypatch.setattr(startup, "run_selftest", tested)
    return seen


@pytest.mark.django_db
@pytest.mark.usefixtures("without_a_key")
def test_a_worker_without_its_key_ends_with_one_sentence() -> None:
    with pytest.raises(SystemExit, match=SENTENCE):
        refuse_unsound_worker()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("without_a_key")
def test_a_web_process_without_its_key_does_not_come_up() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(application({"type": "lifespan"}, receive, send))
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "web.kek is missing: restore it" in sent[0]["message"]


@pytest.mark.usefixtures("without_a_key")
def test_no_key_is_made_in_place_of_a_lost_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        refuse_unsound_worker()
    assert not (tmp_path / "web.kek").exists()


@pytest.mark.django_db
def test_every_start_tests_the_suites_that_were_accepted_while_running(
    federation: Federation, checked: list[str]
) -> None:
    suites.accept_suite(federation=federation, suite="high", actor="user:1")
    require_sound_process()
    assert checked == ["hybrid", "high"]


@pytest.mark.django_db
def test_a_start_ends_with_one_sentence_when_a_primitive_of_such_a_suite_is_wrong(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites.accept_suite(federation=federation, suite="high", actor="user:1")
    answers = {**selftest_answers.SEALED, "mlkem1024-p384": selftest_answers.SEALED["mlkem768-x25519"]}
    monkeypatch.setattr(selftest_answers, "SEALED", answers)
    with pytest.raises(SystemExit, match=r"^The primitive KEM mlkem1024-p384 gives a wrong answer"):
        refuse_unsound_worker()
    suites.SuitePolicy.objects.all().delete()
    require_sound_process()


@pytest.mark.django_db(transaction=True)
def test_a_worker_without_its_database_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(startup, "accepted_suites", gone)
    with pytest.raises(SystemExit, match=r"^The database does not say which suites are accepted.*connection refused$"):
        refuse_unsound_worker()
