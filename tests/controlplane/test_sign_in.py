"""A sign-in link works once, for ten minutes."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from controlplane.management.commands.serve import sign_in_links
from controlplane.models import SignInLink
from controlplane.permissions import Role, roles_of
from controlplane.sign_in import first_operator, make_sign_in_link, redeem_sign_in_link
from latticeward.errors import ClaimRefusedError

pytestmark = pytest.mark.django_db


def test_the_first_operator_has_the_role_and_no_password() -> None:
    user = first_operator()
    assert roles_of(user) == {Role.OPERATOR}
    assert not user.has_usable_password()
    assert first_operator().pk == user.pk


def test_a_link_signs_in_once(operator: User) -> None:
    token = make_sign_in_link(operator)
    assert redeem_sign_in_link(token) == operator
    with pytest.raises(ClaimRefusedError):
        redeem_sign_in_link(token)


def test_a_link_ends(operator: User) -> None:
    token = make_sign_in_link(operator)
    SignInLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(ClaimRefusedError):
        redeem_sign_in_link(token)


def test_an_unknown_link_is_refused_like_a_used_one() -> None:
    with pytest.raises(ClaimRefusedError, match="unknown, used or expired"):
        redeem_sign_in_link("no such token")


def test_the_link_of_a_disabled_person_is_refused(operator: User) -> None:
    token = make_sign_in_link(operator)
    User.objects.filter(pk=operator.pk).update(is_active=False)
    with pytest.raises(ClaimRefusedError):
        redeem_sign_in_link(token)


def test_the_database_does_not_hold_the_token(operator: User) -> None:
    token = make_sign_in_link(operator)
    assert not SignInLink.objects.filter(token_hash=token).exists()


@pytest.mark.parametrize("production", [False, True])
def test_only_where_things_are_tried_out_a_start_makes_an_operator(db: None, settings: Any, production: bool) -> None:
    settings.PRODUCTION = production
    links = sign_in_links("http://127.0.0.1:8750")
    assert bool(links) is not production
    assert User.objects.exists() is not production
    assert SignInLink.objects.count() == (0 if production else 2)
