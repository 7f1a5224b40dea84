"""What a device sent after its keys were compromised is marked: in the ledger, on its row and rounds, in the API."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices import services
from keys.models import Reason
from rounds.models import Submission
from rounds.services.doubt import doubtful_submissions, mark_doubtful
from tests.rounds.cohort import Cohort


def test_what_was_sent_from_the_date_on_is_marked_once_and_what_came_before_is_not(cohort: Cohort) -> None:
    training = cohort.train()
    first = cohort.whole_round(training)
    second = cohort.whole_round(training, cohort.weights(first))
    thief = cohort.hospitals[0].device
    sent = list(Submission.objects.filter(participant__device=thief).order_by("received_at"))
    since = sent[1].received_at
    services.revoke_device(device_id=thief.id, actor="user:2", reason=Reason.KEY_COMPROMISE, invalid_from=since)
    assert mark_doubtful() == 1
    assert mark_doubtful() == 0
    assert [row.pk for row in doubtful_submissions(thief.id, since)] == [sent[1].pk]
    entry = AuditEntry.objects.get(event="device.doubted")
    assert entry.subject_id == str(thief.id)
    assert entry.details["submissions"] == entry.details["counted"] == 1
    assert entry.details["rounds"] == [str(second.id)]
    assert cohort.look(second).state == "published"  # nothing is taken back


@pytest.mark.parametrize("reason", [Reason.SUPERSEDED, Reason.CESSATION_OF_OPERATION])
def test_another_reason_marks_nothing(cohort: Cohort, reason: Reason) -> None:
    cohort.whole_round(cohort.train())
    services.revoke_device(device_id=cohort.hospitals[0].device.id, actor="user:2", reason=reason)
    assert mark_doubtful() == 0
    assert not AuditEntry.objects.filter(event="device.doubted").exists()


def test_the_mark_is_on_the_device_the_round_and_in_the_api(cohort: Cohort, client: Client, operator: User) -> None:
    current = cohort.whole_round(cohort.train())
    thief, honest = cohort.hospitals[0].device, cohort.hospitals[1].device
    client.force_login(operator)
    assert client.get(f"/api/v1/devices/{thief.id}").json()["doubt"] is None
    since = timezone.now() - timedelta(days=1)
    services.revoke_device(device_id=thief.id, actor="user:2", reason=Reason.KEY_COMPROMISE, invalid_from=since)
    unmarked = client.get(f"/api/v1/devices/{thief.id}").json()["doubt"]
    assert unmarked["submissions"] is None
    mark_doubtful()
    doubt = client.get(f"/api/v1/devices/{thief.id}").json()["doubt"]
    assert (doubt["submissions"], doubt["counted"], doubt["rounds"]) == (1, 1, [str(current.id)])
    assert client.get(f"/api/v1/devices/{honest.id}").json()["doubt"] is None
    assert "1 update in 1 round, 1 counted" in client.get(reverse("devices")).content.decode()
    page = client.get(reverse("round", args=[current.id])).content.decode()
    assert page.count("in doubt: sent after its keys were compromised") == 1
