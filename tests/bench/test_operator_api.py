"""The driver's way into the control plane: a one-time link, a session, CSRF tokens, problems as sentences."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer

from bench.operator_api import OperatorApi
from bench.processes import DemoError
from controlplane.sign_in import make_sign_in_link

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api(live_server: LiveServer, settings: Any) -> OperatorApi:
    settings.CSRF_TRUSTED_ORIGINS = [live_server.url]
    return OperatorApi(live_server.url)


def link(live_server: LiveServer, user: User) -> str:
    return f"{live_server.url}/sign-in/{make_sign_in_link(user)}/"


def test_a_link_signs_in_and_writes_carry_the_csrf_token(
    api: OperatorApi, live_server: LiveServer, operator: User
) -> None:
    api.sign_in(link(live_server, operator))
    assert api.get("/api/v1/trainings") == {"results": [], "next": None}
    with pytest.raises(DemoError, match="answered 400"):  # and not 403: the token was there
        api.post("/api/v1/trainings", {"job": "no such job"})


def test_a_link_works_once(api: OperatorApi, live_server: LiveServer, operator: User) -> None:
    address = link(live_server, operator)
    api.sign_in(address)
    with pytest.raises(DemoError, match="answered 403"):
        OperatorApi(live_server.url).sign_in(address)


def test_without_a_session_nothing_is_told(api: OperatorApi) -> None:
    with pytest.raises(DemoError, match=r"answered 40[13]"):
        api.get("/api/v1/trainings")


def test_a_server_that_is_away_is_one_sentence() -> None:
    with pytest.raises(DemoError, match="does not answer"):
        OperatorApi("http://127.0.0.1:9").get("/api/v1/trainings")
