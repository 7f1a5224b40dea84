"""What must hold before a process of the control plane works: right primitives, readable keys, a sound set-up.

Fail closed: whatever is missing stops the start with one sentence that says what to do. The web server asks at its
lifespan's start and every worker at its own, so no way of starting one goes round it.
"""

from functools import cache

from django.conf import settings
from django.core.checks import run_checks
from django.core.management.base import SystemCheckError
from django.db import DatabaseError, close_old_connections

from devices.services import found_federation
from devices.suites import accepted_suites
from keys import vault
from latticeward.crypto.selftest import run_selftest


@cache
def require_sound_process() -> None:
    """Check this process, once.

    Raises:
        SystemCheckError: the set-up cannot keep its promises (``controlplane/checks.py``, ``keys/checks.py``), or the
            database does not answer.
        SelfTestError: a primitive of the active policy is missing or wrong.
        CustodyError: a key-encryption key of this process's role is missing or open to others.
    """
    if serious := [message for message in run_checks() if message.is_serious()]:
        raise SystemCheckError(" ".join(str(message) for message in serious))
    vault.require_keks()
    run_selftest(_active_suites())


def _active_suites() -> list[str]:
    """What the settings accept, and what the federation accepted beside it while it was running."""
    try:
        return list(dict.fromkeys((*settings.ACCEPTED_SUITES, *accepted_suites())))
    except DatabaseError as exc:
        raise SystemCheckError(
            f"The database does not say which suites are accepted; is it there, and migrated? {exc}"
        ) from exc
    finally:
        close_old_connections()  # this thread may never ask it again, and a pool lends few


def prepare() -> None:
    """Make the federation and its authority on a new system, and check this process.

    Raises:
        SystemCheckError, SelfTestError, CustodyError: as ``require_sound_process``.
    """
    run_selftest(settings.ACCEPTED_SUITES)
    if settings.ROLE == "all":
        found_federation(slug=settings.FEDERATION_SLUG, name=settings.FEDERATION_NAME)
    require_sound_process()
