"""Signing in by link and by password, and out."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import AuditEntry
from controlplane.sign_in import make_sign_in_link
from tests.frontend import scene

pytestmark = pytest.mark.django_db


def test_looking_at_a_link_does_not_spend_it_and_its_button_does(client: Client, operator: User) -> None:
    address = reverse("sign-in-link", args=[make_sign_in_link(operator)])
    for _ in range(2):
        assert "Sign in with this link" in client.get(address).content.decode()
        assert "_auth_user_id" not in client.session
    assert client.post(address)["Location"] == reverse("overview")
    assert client.session["_auth_user_id"] == str(operator.pk)
    again = Client().post(address)
    assert again.status_code == 403
    assert "This link does not sign in" in again.content.decode()


def test_a_made_up_link_gets_the_same_answer_as_a_used_one(client: Client, operator: User) -> None:
    used = reverse("sign-in-link", args=[make_sign_in_link(operator)])
    client.post(used)
    strange = reverse("sign-in-link", args=["x" * 43])
    answers = [Client().post(address) for address in (used, strange)]
    assert {answer.status_code for answer in answers} == {403}
    assert len({_without_nonce(answer.content.decode()) for answer in answers}) == 1


def test_password_sign_in_returns_to_the_page_asked_for(client: Client, operator: User) -> None:
    answer = client.post(
        reverse("sign-in") + "?next=/ledger/",
        {"username": "olive", "password": "correct horse battery staple", "next": "/ledger/"},
    )
    assert answer["Location"] == "/ledger/"


def test_next_does_not_lead_to_another_site(client: Client, operator: User) -> None:
    answer = client.post(
        reverse("sign-in"),
        {"username": "olive", "password": "correct horse battery staple", "next": "https://elsewhere.example/"},
    )
    assert answer["Location"] == reverse("overview")


def test_a_wrong_password_keeps_the_name_and_says_what_happened(client: Client, operator: User) -> None:
    text = client.post(reverse("sign-in"), {"username": "olive", "password": "wrong"}).content.decode()
    assert "do not belong together" in text and 'value="olive"' in text and "wrong" not in text


def test_signing_out_needs_a_post_and_ends_the_session(client: Client, operator: User) -> None:
    client.force_login(operator)
    assert client.get(reverse("sign-out")).status_code == 405
    assert client.post(reverse("sign-out"))["Location"] == reverse("sign-in")
    assert client.get(reverse("overview")).status_code == 302


def test_signing_in_and_out_stands_in_the_ledger(client: Client, operator: User) -> None:
    scene.make_federation(hospitals=())
    client.post(reverse("sign-in-link", args=[make_sign_in_link(operator)]))
    client.post(reverse("sign-out"))
    entries = AuditEntry.objects.order_by("feed_seq").values_list("event", "actor", "details")
    actor = f"user:{operator.pk}"
    assert list(entries) == [("user.signed_in", actor, {"by": "link"}), ("user.signed_out", actor, {})]


def _without_nonce(text: str) -> str:
    head, _, rest = text.partition('nonce="')
    return head + rest.partition('"')[2]
