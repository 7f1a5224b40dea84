"""Signing in and out: by a one-time link, or by name and password. Each is an entry of the ledger."""

from hashlib import sha256
from typing import Any

from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.addresses import client_address
from controlplane.audit.services import record
from controlplane.errors import headers_of
from controlplane.sign_in import redeem_sign_in_link
from controlplane.throttles import Limit, spend, spend_by_address
from devices.models import Federation
from frontend.forms import SignInForm
from latticeward.errors import ClaimRefusedError, ThrottledError

_BACKEND = "django.contrib.auth.backends.ModelBackend"


class SignIn(LoginView):
    """The plain form; ``next`` is followed within this site only."""

    template_name = "frontend/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            _count_attempt(request)
            # The name as typed, since an answer must not tell which names exist.
            spend(Limit.SIGN_IN, sha256(request.POST.get("username", "").strip().lower().encode()).hexdigest())
        except ThrottledError as error:
            context = self.get_context_data(form=self.get_form_class()(), throttled=error.retry_after_seconds)
            return self.render_to_response(context, status=429, headers=headers_of(error))
        return super().post(request, *args, **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        answer = super().form_valid(form)
        _record("user.signed_in", form.get_user(), by="password")
        return answer


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_variables("token")
def sign_in_by_link(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows one button, so that a preview of the address does not spend the link; POST spends it."""
    if request.method != "POST":
        return render(request, "frontend/sign_in_link.html")
    try:
        _count_attempt(request)
        user = redeem_sign_in_link(token)
    except ThrottledError as error:
        context = {"throttled": error.retry_after_seconds}
        answer = render(request, "frontend/sign_in_link.html", context, status=429)
        answer["Retry-After"] = str(error.retry_after_seconds)
        return answer
    except ClaimRefusedError:
        return render(request, "frontend/sign_in_link.html", {"refused": True}, status=403)
    login(request, user, backend=_BACKEND)
    _record("user.signed_in", user, by="link")
    return redirect("overview")


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session; open pages of it fall silent at their next heartbeat."""
    if isinstance(request.user, User):
        _record("user.signed_out", request.user)
    logout(request)
    return redirect("sign-in")


def _count_attempt(request: HttpRequest) -> None:
    forwarded = request.headers.get("X-Forwarded-For", "")
    spend_by_address(Limit.SIGN_IN, client_address(request.META.get("REMOTE_ADDR", ""), forwarded))


def _record(event: str, user: User, **details: str) -> None:
    federation = Federation.objects.order_by("created_at").first()
    if federation is None:  # nothing exists yet that a ledger could be about
        return
    with transaction.atomic():
        record(event, actor=f"user:{user.pk}", feed=federation.feed, subject=("user", user.pk), details=details)
