"""One-time sign-in links: printed at the start of embedded mode, one use, ten minutes.

The token is 256 random bits; the database keeps its hash, so a copy of the database signs nobody in. Opening the page
does not spend the link (chat programs preview addresses); pressing its button does.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Final

from django.contrib.auth.models import Group, User
from django.utils import timezone

from controlplane.models import SignInLink
from controlplane.permissions import Role
from latticeward.errors import ClaimRefusedError

LIFETIME: Final = timedelta(minutes=10)


def first_operator() -> User:
    """The operator that embedded mode signs in; has no usable password."""
    for role in Role:
        Group.objects.get_or_create(name=role)
    user, created = User.objects.get_or_create(username="operator", defaults={"first_name": "Operator"})
    if created:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    user.groups.add(Group.objects.get(name=Role.OPERATOR))
    return user


def make_sign_in_link(user: User) -> str:
    """A fresh token for ``user``; the address is ``/sign-in/<token>/``."""
    token = secrets.token_urlsafe(32)
    SignInLink.objects.create(token_hash=_hash(token), user=user, expires_at=timezone.now() + LIFETIME)
    return token


def redeem_sign_in_link(token: str) -> User:
    """Spend a link.

    Raises:
        ClaimRefusedError: unknown, used or expired: one answer for all.
    """
    now = timezone.now()
    spent = SignInLink.objects.filter(token_hash=_hash(token), used_at__isnull=True, expires_at__gt=now)
    if spent.update(used_at=now) != 1:
        raise ClaimRefusedError("sign-in link unknown, used or expired")
    user = SignInLink.objects.select_related("user").get(token_hash=_hash(token)).user
    if not user.is_active:
        raise ClaimRefusedError("the person of this sign-in link is not active")
    return user


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
