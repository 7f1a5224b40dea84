"""Whatever was turned away in a round is a line on its page, with its code and a plain sentence."""

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import reverse

from controlplane.audit.services import record
from tests.frontend import scene

pytestmark = pytest.mark.django_db


def test_refusals_at_the_door_and_by_the_worker_are_lines_of_the_round_page(client: Client, operator: User) -> None:
    training = scene.make_training(scene.make_federation())
    current = scene.open_round(training)
    with transaction.atomic():
        for event, site, code in (
            ("submission.refused", "Hungary", "message_too_large"),
            ("update.refused", "Cleveland", "invalid_signature"),
            ("participant.dropped", "Switzerland", "late"),
        ):
            details = {"site": site, "code": code}
            record(event, actor="system", feed=current.feed, subject=("participant", "x"), details=details)
    client.force_login(operator)
    page = client.get(reverse("round", args=[current.id])).content.decode()
    for shown in (
        "A submission was refused at the door",
        "The message is larger than the limit",
        "<code>invalid_signature</code>",
        "A signature does not verify.",
        "No update arrived in time.",
    ):
        assert shown in page, shown


def test_a_round_without_refusals_has_no_empty_list_of_them(client: Client, operator: User) -> None:
    current = scene.open_round(scene.make_training(scene.make_federation()))
    client.force_login(operator)
    assert "Refused in this round" not in client.get(reverse("round", args=[current.id])).content.decode()


def test_the_round_page_shows_what_the_training_was_worth(client: Client, operator: User) -> None:
    training = scene.make_training(scene.make_federation())
    current = scene.run_round(training, 0.886)
    type(training).objects.filter(pk=training.pk).update(comparison=scene.COMPARISON)
    client.force_login(operator)
    page = client.get(reverse("round", args=[current.id])).content.decode()
    assert "Compared with training alone" in page
    assert "Small sample" in page
