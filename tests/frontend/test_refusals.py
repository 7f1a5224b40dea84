"""Whatever was turned away in a round is a line on its page, with its code and a plain sentence."""

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from controlplane.audit.services import record
from rounds.services.trainings import stop_training
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


def test_a_stopped_training_s_devices_are_stopped_and_neither_late_nor_refused(client: Client, operator: User) -> None:
    training = scene.make_training(scene.make_federation())
    current = scene.open_round(training)
    stop_training(training=training, actor="user:1", reason="the wrong hospitals")
    client.force_login(operator)
    page = client.get(reverse("round", args=[current.id])).content.decode()
    assert page.count("An operator stopped the training.") >= 4 and page.count("state-quiet") >= 5
    assert "Refused in this round" not in page and "notice-error" not in page
    assert ">late<" not in page and "late</span>" not in page
    page = client.get(reverse("training", args=[training.id])).content.decode()
    assert "No value was measured" in page and "No value has been measured yet" not in page


def test_an_update_of_a_round_that_failed_was_verified_and_counts_in_none(client: Client, operator: User) -> None:
    current = scene.open_round(scene.make_training(scene.make_federation()))
    scene.join_all(current)
    scene.count_update(current, "Cleveland")
    page = reverse("round", args=[current.id])
    client.force_login(operator)
    assert "The update was verified and counted." in client.get(page).content.decode()
    scene.move(current, "fail", failure_code="quorum_not_met", closed_at=timezone.now())
    said = client.get(page).content.decode()
    assert "so it counts in none" in said and "The update was verified and counted." not in said


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
