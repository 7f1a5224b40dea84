"""How often each key was used, counted so that no signature costs a write.

A process counts in memory and adds its counts to the rows every few seconds, or every many thousand uses, whichever
comes first; a process that ends adds what it has. What cannot be added now is kept for the next time. A process that is
killed loses at most one batch, and one whose connection breaks during the commit may add a batch twice, so the counters
are for rotation policies and for people, never for a proof.
"""

import atexit
import logging
import time
from collections.abc import Mapping
from itertools import islice
from threading import Lock
from typing import Final

from django.db import Error, transaction
from django.db.models import Case, F, Value, When
from django.utils import timezone

from keys.models import Key, in_lock_order

logger = logging.getLogger(__name__)

# Ten seconds of a busy web process: adding costs as much as authenticating dozens of requests.
BATCH_USES: Final = 32_768
BATCH_SECONDS: Final = 10.0
_ROWS_AT_ONCE: Final = 512

_counts: dict[str, int] = {}
_total = 0
_flushed_at = time.monotonic()
_lock: Final = Lock()


def count_use(key_id: str, times: int = 1) -> None:
    """Count uses of a key.

    Args:
        key_id: hexadecimal, as in the row; an id that no row has is forgotten.
        times: 1 or more.
    """
    global _total
    with _lock:
        _counts[key_id] = _counts.get(key_id, 0) + times
        _total += times
        due = _total >= BATCH_USES or time.monotonic() - _flushed_at >= BATCH_SECONDS
    if due:
        # After the commit of whatever is under way: counting must neither lengthen its locks nor roll back with it.
        transaction.on_commit(flush_uses, robust=True)


def flush_uses() -> None:
    """Add what this process has counted to the rows; what fails stays counted, and is tried again with the next batch.

    Raises:
        Error: the database refuses, or is not there.
    """
    global _total, _flushed_at
    with _lock:
        # The total is of what came since, so that a database that is away is not asked anew for every use.
        counts, _total, _flushed_at = dict(_counts), 0, time.monotonic()
        _counts.clear()
    try:
        while counts:
            some = dict(islice(counts.items(), _ROWS_AT_ONCE))
            _add(some)
            for key_id in some:
                del counts[key_id]
    finally:
        with _lock:
            for key_id, times in counts.items():
                _counts[key_id] = _counts.get(key_id, 0) + times


def _add(counts: Mapping[str, int]) -> None:
    times_of = [When(key_id=key_id, then=Value(times)) for key_id, times in counts.items()]
    with transaction.atomic():
        rows = in_lock_order(Key.objects.filter(key_id__in=counts))
        found = list(rows.values_list("pk", flat=True))
        Key.objects.filter(pk__in=found).update(uses=F("uses") + Case(*times_of), last_used_at=timezone.now())


def forget_counts() -> None:
    """Drop what was counted and not added yet; between tests."""
    global _total
    with _lock:
        _counts.clear()
        _total = 0


@atexit.register
def _flush_at_exit() -> None:
    if not _counts:
        return
    try:
        flush_uses()
    except Error as error:
        logger.warning("the last uses of keys were not counted: %s", str(error).partition("\n")[0])
