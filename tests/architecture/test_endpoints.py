"""What every address of the REST API must have, whoever wrote it: walked from the routing tables."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rest_framework.permissions import SAFE_METHODS

from controlplane.urls import urlpatterns
from controlplane.views import Endpoint, ListEndpoint
from tests.factories import make_federation

ROOT = Path(__file__).resolve().parents[2]
# Plain views of what is signed and public; a question by POST changes nothing.
PUBLIC = {"trust", "revocation_list", "ocsp", "ocsp_by_address"}


def views() -> Iterator[tuple[str, type[Any]]]:
    for entry in urlpatterns:
        path = str(entry.pattern)
        if path.startswith("api/"):
            view = getattr(entry.callback, "view_class", None) or getattr(entry.callback, "cls", None)
            if view is None:
                assert entry.callback.__name__ in PUBLIC, f"{path} is a plain function"
            elif view.__module__.split(".")[0] != "drf_spectacular":
                yield path, view


VIEWS = sorted(set(views()), key=lambda row: row[0])


def writes(view: type[Any]) -> set[str]:
    return {name for name in view.http_method_names if name.upper() not in SAFE_METHODS and hasattr(view, name)}


@pytest.mark.parametrize(("path", "view"), VIEWS)
def test_every_address_is_an_endpoint(path: str, view: type[Any]) -> None:
    assert issubclass(view, Endpoint)


@pytest.mark.parametrize(("path", "view"), [row for row in VIEWS if writes(row[1])])
def test_every_write_takes_an_idempotency_key_or_says_why_not(path: str, view: type[Any]) -> None:
    # Nothing between the view and the base may put its own hands on what makes a write happen once.
    assert view.initial is Endpoint.initial or view.repeats_safely
    assert view._write_once is Endpoint._write_once
    if view.repeats_safely:
        assert len(view.repeats_safely.split()) >= 4, "a reason is a sentence"
    if not view.authentication_classes:
        assert view.repeats_safely, "a key belongs to somebody, and here nobody is known"


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "view"), [row for row in VIEWS if issubclass(row[1], ListEndpoint)])
def test_every_list_orders_by_what_is_never_null(path: str, view: type[ListEndpoint]) -> None:
    query = view.query
    assert query.default_ordering.removeprefix("-") in query.orderings
    make_federation()
    model: Any = view().rows({}).model
    for field in query.orderings.values():
        found, *deeper = field.split("__")
        column = model._meta.get_field(found)
        assert not column.null, f"{path} orders by {field}"
        for name in deeper:
            column = column.related_model._meta.get_field(name)
            assert not column.null, f"{path} orders by {field}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/**/views.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_views_enqueue_after_the_commit(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hooked = {
        inner
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "transaction.on_commit"
        for inner in ast.walk(call)
    }
    early = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("delay", "apply_async") and node not in hooked
    ]
    assert not early
