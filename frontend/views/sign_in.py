"""Signing in and out: by a one-time link, or by name and password."""

from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.sign_in import redeem_sign_in_link
from frontend.forms import SignInForm
from latticeward.errors import ClaimRefusedError

_BACKEND = "django.contrib.auth.backends.ModelBackend"


class SignIn(LoginView):
    """The plain form; ``next`` is followed within this site only."""

    template_name = "frontend/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_variables("token")
def sign_in_by_link(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows one button, so that a preview of the address does not spend the link; POST spends it."""
    if request.method != "POST":
        return render(request, "frontend/sign_in_link.html")
    try:
        user: User = redeem_sign_in_link(token)
    except ClaimRefusedError:
        return render(request, "frontend/sign_in_link.html", {"refused": True}, status=403)
    login(request, user, backend=_BACKEND)
    return redirect("overview")


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session; open pages of it fall silent at their next heartbeat."""
    logout(request)
    return redirect("sign-in")
