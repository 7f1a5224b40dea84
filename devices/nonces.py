"""Nonces of signed requests: each is spent once, among all processes that share a Redis, or in this one's memory."""

import math
import time
from collections.abc import Sequence
from typing import Final

from django.conf import settings
from django.core.cache import cache

from controlplane.live import redis_client
from latticeward.crypto.httpsig import NONCE_LIFETIME_SECONDS, VerifiedRequest
from latticeward.errors import ClockSkewError, ReplayError, VerificationError

# Nonces in this process's memory are known from this instant on; nothing verifies requests before this module.
_REMEMBERS_SINCE: Final = math.ceil(time.time())


def spend_all(requests: Sequence[VerifiedRequest]) -> list[VerificationError | None]:
    """Spend the nonce of each request, in one question to Redis.

    Returns:
        For each None, or why it is refused: ReplayError (seen before), ClockSkewError (made before this process began
        to remember, so it might be a repetition).
    """
    keys = [f"nonce:{request.key_id}:{request.nonce}" for request in requests]
    if settings.LIVE_URL:
        with redis_client().pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.set(key, 1, nx=True, ex=NONCE_LIFETIME_SECONDS)
            are_new = pipeline.execute()
    else:
        are_new = [cache.add(key, 1, timeout=NONCE_LIFETIME_SECONDS) for key in keys]
    return [_verdict(request, is_new) for request, is_new in zip(requests, are_new, strict=True)]


def _verdict(request: VerifiedRequest, is_new: object) -> VerificationError | None:
    early = _REMEMBERS_SINCE - request.created_at.timestamp()
    if not settings.LIVE_URL and early > 0:
        return ClockSkewError(
            f"the request was made {early:.0f} s before this server started; send it again with a new nonce"
        )
    return None if is_new else ReplayError(f"nonce {request.nonce} of {request.key_id[:12]} was seen before")
