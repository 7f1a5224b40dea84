"""Idempotency keys: a write that is sent again is not done again, and gets the answer that it got.

The header is that of draft-ietf-httpapi-idempotency-key-header. A key belongs to one person or device and to one
content: method, address and body. Three steps, of which the middle one is the caller's transaction:

1. ``begin`` writes the key down, in a transaction of its own, so that a second request sees it at once.
2. The write and ``keep`` commit together: either both happened or neither.
3. ``release`` forgets a key whose write was refused. A refusal changes nothing, so a repetition is judged afresh.

An attempt whose process died leaves its key without an answer. Since the write commits together with the answer,
nothing was done then, and after ``LEASE`` the next request takes the key over; should the first one live after all,
its ``keep`` finds that it was replaced and its write is rolled back.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db import transaction
from django.utils import timezone

from controlplane.models import KeptAnswer
from latticeward.errors import (
    IdempotencyMismatchError,
    MalformedMessageError,
    RequestInProgressError,
    StaleStateError,
)

KEPT_FOR: Final = timedelta(hours=24)
LEASE: Final = timedelta(seconds=60)
# A string of RFC 9651 as the draft says, or the same without quotes, as most clients send it.
_KEY: Final = re.compile(r'(?P<quote>"?)(?P<key>[A-Za-z0-9_.:/+=-]{8,128})(?P=quote)')


@dataclass(frozen=True, slots=True)
class Attempt:
    """The right to do this write now."""

    row_id: int
    token: UUID


@dataclass(frozen=True, slots=True)
class Kept:
    """It was done: what was answered."""

    status: int
    body: str


def parse_key(header: str | None) -> str | None:
    """The key of a request; None if it carries none.

    Raises:
        MalformedMessageError: not 8 to 128 letters, digits and ``_.:/+=-``, quoted or not.
    """
    if header is None:
        return None
    found = _KEY.fullmatch(header.strip(" \t"))
    if found is None:
        raise MalformedMessageError("Idempotency-Key is a string of 8 to 128 letters, digits and _.:/+=-")
    return found["key"]


def fingerprint(method: str, address: str, body: bytes) -> str:
    """Hex SHA-256 of what a key is bound to; ``address`` is the path with its query."""
    return hashlib.sha256(json.dumps([method, address]).encode() + b"\x00" + body).hexdigest()


def begin(*, actor: str, key: str, content: str, now: datetime | None = None) -> Attempt | Kept:
    """Take a key, or find what was answered under it.

    Args:
        actor: ``user:<id>`` or ``device:<id>``.
        key: from ``parse_key``.
        content: from ``fingerprint``.

    Raises:
        IdempotencyMismatchError: the key was used with other content.
        RequestInProgressError: another request with it is at work.
    """
    now = now or timezone.now()
    token = uuid4()
    with transaction.atomic():
        KeptAnswer.objects.filter(actor=actor, key=key, expires_at__lte=now).delete()
        row, created = KeptAnswer.objects.get_or_create(
            actor=actor,
            key=key,
            defaults={"fingerprint": content, "attempt": token, "begun_at": now, "expires_at": now + KEPT_FOR},
        )
        if created:
            return Attempt(row.pk, token)
        if row.fingerprint != content:
            raise IdempotencyMismatchError(f"key {key} of {actor} came with other content")
        if row.status is not None:
            return Kept(row.status, row.body)
        dead = KeptAnswer.objects.filter(pk=row.pk, attempt=row.attempt, status=None, begun_at__lte=now - LEASE)
        if dead.update(attempt=token, begun_at=now) != 1:
            raise RequestInProgressError(f"key {key} of {actor} is at work since {row.begun_at}")
        return Attempt(row.pk, token)


def keep(attempt: Attempt, *, status: int, body: str) -> None:
    """Store the answer; runs in the transaction of the write.

    Raises:
        StaleStateError: the attempt took too long and another one has taken over: the write must not commit.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an answer is kept in the transaction of its write")
    mine = KeptAnswer.objects.filter(pk=attempt.row_id, attempt=attempt.token, status=None)
    if mine.update(status=status, body=body) != 1:
        raise StaleStateError("another attempt has taken this idempotency key over")


def release(attempt: Attempt) -> None:
    """Forget a key whose write was refused or failed."""
    KeptAnswer.objects.filter(pk=attempt.row_id, attempt=attempt.token, status=None).delete()


def sweep(now: datetime | None = None) -> int:
    """Forget what has expired; returns how many."""
    return KeptAnswer.objects.filter(expires_at__lte=now or timezone.now()).delete()[0]
