"""Keys that come near their end: told once in the ledger and live, and shown to people until somebody has acted.

And the end itself: the secret of a server key that was superseded or compromised is destroyed after its retention; the
row stays, with its public part, its dates and its history.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from keys.models import Authority, Key, Owner
from keys.renewal import SCHEDULES
from keys.selectors import issuers_in_use
from latticeward.errors import StaleStateError
from latticeward.lifecycle import KEY, KeyState

# An agent renews from two thirds of the lifetime, thirty days before the end; one that has not by now needs a person.
DEVICE_WARNING: Final = timedelta(days=14)
# In this time a rotation that went wrong can be looked into.
SECRET_RETENTION: Final = timedelta(days=7)
BATCH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A key in use that ends soon, or has ended.

    Attributes:
        key: the row; a device's is its authentication key, with whose certificate the others end.
        ends_at: aware UTC.
    """

    key: Key
    ends_at: datetime

    @property
    def is_device(self) -> bool:
        return self.key.owner == Owner.DEVICE


def endings(*, now: datetime | None = None, limit: int = BATCH) -> list[Ending]:
    """The keys in use that end soon by the table of ``renewal.py``, those that end first in front; one query."""
    rows = _ending(now or timezone.now()).order_by("not_after_at")[:limit]
    return [Ending(key=row, ends_at=row.not_after_at) for row in rows if row.not_after_at is not None]


def tell_endings(*, actor: str = "worker:authority", now: datetime | None = None) -> int:
    """Tell of every key that ends soon, once; returns of how many."""
    authority = Authority.objects.first()
    if authority is None:
        return 0
    now = now or timezone.now()
    told = 0
    for row in _ending(now).filter(ending_told_at=None).order_by("not_after_at")[:BATCH]:
        assert row.not_after_at is not None
        with transaction.atomic():
            if Key.objects.filter(pk=row.pk, ending_told_at=None).update(ending_told_at=now) != 1:
                continue
            details = {
                "purpose": row.purpose,
                "key_id": row.key_id,
                "not_after_at": row.not_after_at.isoformat().replace("+00:00", "Z"),
                "days": (row.not_after_at - now).days,
            }
            if row.owner == Owner.DEVICE:
                details["device"] = row.subject_id
            record("key.ending", actor=actor, feed=authority.feed, subject=("key", row.pk), details=details)
            told += 1
    return told


def destroy_ended_secrets(*, actor: str = "worker:authority", now: datetime | None = None) -> int:
    """Destroy the secrets of server keys out of use since their retention; returns how many.

    An issuing key is kept for as long as it signs what is said about its certificates.
    """
    authority = Authority.objects.first()
    if authority is None:
        return 0
    now = now or timezone.now()
    in_use = {issuer.key_id for issuer in issuers_in_use(now)}
    rows = (
        Key.objects.filter(
            owner=Owner.AUTHORITY,
            state__in=(KeyState.DEACTIVATED, KeyState.COMPROMISED),
            wrapped_secret__isnull=False,
        )
        .annotate(ended_at=Coalesce("revocation__revoked_at", "superseded_at", "not_after_at"))
        .filter(ended_at__lt=now - SECRET_RETENTION)
        .exclude(pk__in=in_use)
    )
    destroyed = 0
    for row in rows:
        details = {"purpose": row.purpose, "key_id": row.key_id}
        try:
            apply_transition(
                row, KEY, "destroy", actor=actor, feed=authority.feed, details=details, wrapped_secret=None
            )
        except StaleStateError:
            continue
        destroyed += 1
    return destroyed


def _ending(now: datetime) -> QuerySet[Key]:
    near = Q(owner=Owner.DEVICE, purpose="authentication", not_after_at__lt=now + DEVICE_WARNING)
    for purpose, schedule in SCHEDULES.items():
        near |= Q(owner=Owner.AUTHORITY, purpose=purpose, not_after_at__lt=now + schedule.warn_before)
    return Key.objects.filter(near, state=KeyState.ACTIVE)
