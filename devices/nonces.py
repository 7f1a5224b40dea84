"""Nonces of signed requests: each is spent once, among all processes that share a Redis, or in this one's memory.

Memory ends with its process, so a process without Redis refuses requests that were made before it began. That leaves
those of a device whose clock runs ahead: made "later" than a restart, they would be good once more after it. Their
nonces go into the database, which costs a write, and only devices with such clocks.
"""

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cache as remember
from typing import Final

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone

from controlplane.live import redis_client
from devices.models import SpentNonce
from latticeward.crypto.httpsig import NONCE_LIFETIME_SECONDS, SKEW_SECONDS, VerifiedRequest
from latticeward.errors import ClockSkewError, ReplayError, VerificationError

# Nonces in this process's memory are known from this instant on; nothing verifies requests before this module.
_REMEMBERS_SINCE: Final = math.ceil(time.time())


def spend_all(requests: Sequence[VerifiedRequest]) -> list[VerificationError | None]:
    """Spend the nonce of each request, in one question to Redis.

    Returns:
        For each None, or why it is refused: ReplayError (seen before), ClockSkewError (made before this process began
        to remember, so it might be a repetition).
    """
    if settings.LIVE_URL:
        with redis_client().pipeline(transaction=False) as pipeline:
            for request in requests:
                pipeline.set(_name(request), 1, nx=True, ex=NONCE_LIFETIME_SECONDS)
            are_new = pipeline.execute()
    else:
        are_new = [_spend_here(request) for request in requests]
    return [_verdict(request, is_new) for request, is_new in zip(requests, are_new, strict=True)]


def forget_ended() -> None:
    """Forget the nonces in the database that no request can bring again."""
    SpentNonce.objects.filter(ends_at__lte=timezone.now()).delete()


def _name(request: VerifiedRequest) -> str:
    return f"nonce:{request.key_id}:{request.nonce}"


def _spend_here(request: VerifiedRequest) -> bool:
    # Memory first, for requests from ahead as well: our clock comes to them, and then only this is asked.
    if not cache.add(_name(request), 1, timeout=NONCE_LIFETIME_SECONDS):
        return False
    now = timezone.now()
    if request.created_at > now:
        ends_at = now + timedelta(seconds=NONCE_LIFETIME_SECONDS)
        return SpentNonce.objects.get_or_create(name=_name(request), defaults={"ends_at": ends_at})[1]
    # A process before this one took requests made as late as this, and only the database knows of them.
    if request.created_at.timestamp() <= _REMEMBERS_SINCE + SKEW_SECONDS:
        return _name(request) not in _taken_earlier()
    return True


@remember
def _taken_earlier() -> frozenset[str]:
    """The nonces in the database when this process first asked: one question, since its own are in its memory."""
    return frozenset(SpentNonce.objects.values_list("name", flat=True))


def _verdict(request: VerifiedRequest, is_new: object) -> VerificationError | None:
    early = _REMEMBERS_SINCE - request.created_at.timestamp()
    if not settings.LIVE_URL and early > 0:
        return ClockSkewError(
            f"the request was made {early:.0f} s before this server started; send it again with a new nonce"
        )
    return None if is_new else ReplayError(f"nonce {request.nonce} of {request.key_id[:12]} was seen before")
