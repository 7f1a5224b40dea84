"""Who may open a page: signed in first, then one of the page's roles."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final
from urllib.parse import quote

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render, resolve_url

from controlplane.errors import problem_of
from controlplane.permissions import Role, roles_of
from latticeward.errors import PlanChangedError

View = Callable[..., HttpResponseBase]
EVERY_ROLE: Final = tuple(Role)
# Those who may see key material and the inside of devices.
KEY_READERS: Final = (Role.OPERATOR, Role.COMPLIANCE)


def for_roles(*allowed: Role) -> Callable[[View], View]:
    """Let a view answer only people with one of these roles.

    Anonymous: to the sign-in page and back here (a fragment asks the whole page to go there, or the form would appear
    inside it). Wrong role: 403. Answers are never stored by browsers or proxies.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return _to_sign_in(request)
            if not roles_of(request.user) & set(allowed):
                raise PermissionDenied
            try:
                response = view(request, *args, **kwargs)
            except PlanChangedError as error:
                response = _plan_changed(request, error)
            response.headers["Cache-Control"] = "private, no-store"
            return response

        return guarded

    return decorate


def require_operator(request: HttpRequest) -> None:
    """Let only operators go on, on a page that others may read.

    Raises:
        PermissionDenied: anybody else.
    """
    if Role.OPERATOR not in roles_of(request.user):
        raise PermissionDenied


def actor_of(request: HttpRequest) -> str:
    """The signed-in person as the ledger names them."""
    return f"user:{request.user.pk}"


def _plan_changed(request: HttpRequest, error: PlanChangedError) -> HttpResponse:
    """The page that stands in for every one that would have to speak by a plan that nobody signed."""
    status, problem = problem_of(error)
    return render(request, "frontend/plan_changed.html", {"problem": problem}, status=status)


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    target = f"{resolve_url('sign-in')}?next={quote(request.path)}"
    if request.headers.get("HX-Request") == "true":
        return HttpResponse(status=401, headers={"HX-Redirect": target})
    return HttpResponse(status=302, headers={"Location": target})
