"""A state moves by its table, once, and leaves one entry."""

import pytest
from django.db import transaction

from controlplane.audit.models import AuditEntry
from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from latticeward.errors import InvalidTransitionError, StaleStateError
from latticeward.lifecycle import DEVICE
from tests.factories import make_device

pytestmark = pytest.mark.django_db


def test_a_transition_writes_state_column_and_entry_together() -> None:
    device = make_device(state="active")
    entry = apply_transition(device, DEVICE, "suspend", actor="user:1", feed="federation:x", details={"why": "test"})
    device.refresh_from_db()
    assert device.state == "suspended"
    assert (entry.event, entry.subject_id, entry.actor) == ("device.suspended", str(device.id), "user:1")
    assert entry.details == {"from": "active", "to": "suspended", "why": "test"}


def test_of_two_who_move_the_same_row_one_is_told_that_it_came_late() -> None:
    first = make_device(state="active")
    second = type(first).objects.get(pk=first.pk)
    apply_transition(first, DEVICE, "suspend", actor="user:1", feed="federation:x")
    with pytest.raises(StaleStateError):
        apply_transition(second, DEVICE, "revoke", actor="user:2", feed="federation:x")
    assert AuditEntry.objects.filter(subject_id=str(first.id)).count() == 1


def test_an_event_that_the_table_lacks_changes_nothing() -> None:
    device = make_device(state="revoked")
    with pytest.raises(InvalidTransitionError):
        apply_transition(device, DEVICE, "reinstate", actor="user:1", feed="federation:x")
    assert not AuditEntry.objects.filter(subject_id=str(device.id)).exists()


def test_a_feed_numbers_its_entries_without_gaps_and_apart_from_others() -> None:
    with transaction.atomic():
        numbers = [
            record("user.signed_in", actor="user:1", feed=feed, subject=("user", 1)).feed_seq
            for feed in ("a", "a", "b", "a")
        ]
    assert numbers == [1, 2, 1, 3]


def test_a_rolled_back_entry_leaves_no_gap() -> None:
    with transaction.atomic():
        record("user.signed_in", actor="user:1", feed="a", subject=("user", 1))
        transaction.set_rollback(True)
    with transaction.atomic():
        assert record("user.signed_in", actor="user:1", feed="a", subject=("user", 1)).feed_seq == 1


@pytest.mark.django_db(transaction=True)
def test_an_entry_outside_a_transaction_is_refused() -> None:
    with pytest.raises(RuntimeError, match="transaction"):
        record("user.signed_in", actor="user:1", feed="a", subject=("user", 1))


def test_an_event_nobody_described_is_refused() -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match=r"events\.py"):
        record("user.vanished", actor="user:1", feed="a", subject=("user", 1))
