"""How many requests a minute: limits by person, device and network address, shared by all processes.

A limit counts in windows of one minute. The counts stand in the cache, which is Redis when there are several
processes. So that a request of a busy device does not cost a question to Redis, a process draws a twentieth of a limit
at a time and spends it by itself; several processes together may therefore pass a limit by a twentieth each.

A limit of 0 counts nothing. In embedded mode this machine's own loopback is not counted: there a whole federation
runs behind one address.
"""

import math
import time
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Final

from django.conf import settings
from django.core.cache import cache

from controlplane.addresses import is_loopback, network_of
from latticeward.errors import ThrottledError

WINDOW_SECONDS: Final = 60
_DRAWS: Final = 20
_REMEMBERED: Final = 50_000


class Limit(StrEnum):
    """What is counted; the numbers are the settings of the same names (``LATTICEWARD_LIMIT_…``), per minute."""

    PERSON = "limit_person"
    DEVICE = "limit_device"
    ENROLMENT = "limit_enrolment"
    PUBLIC = "limit_public"
    SIGN_IN = "limit_sign_in"
    REFUSED = "limit_refused"


@dataclass(slots=True)
class _Drawn:
    window: int
    left: int


# By limit and whom it counts. What was refused in this window stays refused without another question.
_drawn: dict[tuple[str, str], _Drawn] = {}
_lock: Final = Lock()


def spend(limit: Limit, who: str, *, now: float | None = None) -> None:
    """Count one request.

    Args:
        limit: which limit.
        who: an id that cannot be chosen at will by the sender.
        now: Unix seconds; tests give their own.

    Raises:
        ThrottledError: the limit of this minute is reached.
    """
    allowed = settings.LIMITS[limit]
    if not allowed:
        return
    present = time.time() if now is None else now
    window = int(present // WINDOW_SECONDS)
    with _lock:
        drawn = _drawn.get((limit, who))
        if drawn is not None and drawn.window == window and drawn.left > 0:
            drawn.left -= 1
            return
    if drawn is None or drawn.window != window or drawn.left == 0:
        # Another thread may draw at the same time: then one of the two draws is lost, in the sender's disfavour.
        drawn = _Drawn(window, _draw(limit, who, window, allowed) - 1)
        with _lock:
            if len(_drawn) >= _REMEMBERED:
                _drawn.clear()
            _drawn[(limit, who)] = drawn
    if drawn.left < 0:
        raise _refusal(limit, who, window, present)


def spend_by_address(limit: Limit, address: str, *, now: float | None = None) -> None:
    """Count one request of a network address, from ``client_address``.

    Raises:
        ThrottledError: the limit of this minute is reached.
    """
    if not _is_exempt(address):
        spend(limit, network_of(address), now=now)


def require_left(limit: Limit, address: str, *, now: float | None = None) -> None:
    """Refuse an address that has reached a limit already, without counting; asks this process's memory only.

    Raises:
        ThrottledError
    """
    present = time.time() if now is None else now
    window = int(present // WINDOW_SECONDS)
    who = network_of(address)
    drawn = _drawn.get((limit, who))
    if drawn is not None and drawn.window == window and drawn.left < 0 and not _is_exempt(address):
        raise _refusal(limit, who, window, present)


def _is_exempt(address: str) -> bool:
    return settings.EMBEDDED and is_loopback(address)


def _refusal(limit: Limit, who: str, window: int, present: float) -> ThrottledError:
    wait = math.ceil((window + 1) * WINDOW_SECONDS - present)
    return ThrottledError(f"{limit} of {who} is reached", retry_after_seconds=max(1, wait))


def forget_drawn() -> None:
    """Forget what this process has drawn; for tests, together with the cache."""
    with _lock:
        _drawn.clear()


def _draw(limit: Limit, who: str, window: int, allowed: int) -> int:
    wanted = max(1, allowed // _DRAWS)
    key = f"limit:{limit}:{who}:{window}"
    cache.add(key, 0, timeout=2 * WINDOW_SECONDS)
    try:
        total = cache.incr(key, wanted)
    except ValueError:  # the window ended between the two questions
        return wanted
    return max(0, min(wanted, allowed - (total - wanted)))
