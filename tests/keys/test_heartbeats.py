"""Heartbeats of two authority workers at the same instant: what was due is done once."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from devices import services
from keys import publication, renewal
from keys.models import Key
from latticeward.crypto.signing import Purpose
from tests.devices.test_policy_races import one_after_the_other

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _authority() -> None:
    services.found_federation(slug="heart", name="Heart federation")
    publication.keep_published()


@pytest.mark.parametrize(
    ("purpose", "heartbeat"),
    [
        (str(Purpose.PLAN), renewal.keep_renewed),
        ("issuing", renewal.keep_renewed),
        ("responder", renewal.keep_renewed),
        ("responder", publication.keep_published),
    ],
)
def test_a_key_that_is_due_is_renewed_once(purpose: str, heartbeat: Callable[[], object]) -> None:
    Key.objects.filter(purpose=purpose).update(not_after_at=timezone.now() + timedelta(days=3))
    assert one_after_the_other(heartbeat, heartbeat) == ""
    assert sorted(Key.objects.filter(purpose=purpose).values_list("state", flat=True)) == ["active", "deactivated"]
