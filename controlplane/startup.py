"""What must hold before the control plane serves: primitives that answer right, keys that can be read, an authority.

Fail closed: whatever is missing stops the start with one sentence that says what to do.
"""

from django.conf import settings

from devices.services import found_federation
from keys import vault
from latticeward.crypto.selftest import run_selftest


def prepare() -> None:
    """Check this process and make the authority on a new system.

    Raises:
        SelfTestError: a primitive of the active policy is missing or wrong.
        CustodyError: a key-encryption key is missing or open to others.
    """
    run_selftest(settings.ACCEPTED_SUITES)
    if settings.ROLE == "all":
        found_federation(slug=settings.FEDERATION_SLUG, name=settings.FEDERATION_NAME)
    vault.require_keks()
