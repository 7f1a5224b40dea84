"""Renewing the server's own keys before they end, and re-issuing the issuing authority with overlap.

One table says how long the key of each purpose lives, when the heartbeat renews it, and from when on people are told
that it ends. What needs the root or the trust anchor cannot be done while these are offline: then the table's last
column is what makes somebody bring them (``manage.py renew_keys --offline``). Root and anchor themselves are not
renewed: another root is another federation of trust.

Re-issuing leaves the old issuing authority standing beside the new one. It signs no device any more, only what is said
about those that it signed (``publication.py``), until the last of their certificates has ended; until then the trust
statement names both.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from keys.ceremony import ANCHOR_LIFETIME
from keys.models import Authority, Certificate, Key
from keys.publication import RESPONDER_RENEWAL, renew_responder
from keys.rotation import (
    ANCHORED,
    RECEIPT_LIFETIME,
    RECEIPT_RENEWAL,
    SERVER_KEY_LIFETIME,
    keep_certificate,
    keep_key,
    publish_trust,
    rotate_receipt_key,
    rotate_server_key,
    supersede_key,
)
from keys.selectors import issuers_in_use, server_keys
from keys.services import open_secret
from keys.usage import count_use
from latticeward.crypto.certificate import PROFILES
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.issuing import ISSUING_LIFETIME, RESPONDER_LIFETIME, ROOT_LIFETIME, make_issuing
from latticeward.crypto.signing import Purpose
from latticeward.errors import CustodyError, StateError

logger = logging.getLogger(__name__)

# The trust statement has room for the root and three issuing authorities.
ISSUERS_AT_ONCE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How the keys of one purpose age: how long they live, and how long before the end what happens.

    ``renew_before`` is None for keys that no heartbeat renews.
    """

    lifetime: timedelta
    renew_before: timedelta | None
    warn_before: timedelta


_COMPOSITE: Final = Schedule(
    lifetime=SERVER_KEY_LIFETIME, renew_before=timedelta(days=60), warn_before=timedelta(days=45)
)
SCHEDULES: Final[Mapping[str, Schedule]] = MappingProxyType(
    {
        "root": Schedule(lifetime=ROOT_LIFETIME, renew_before=None, warn_before=timedelta(days=365)),
        str(Purpose.TRUST): Schedule(lifetime=ANCHOR_LIFETIME, renew_before=None, warn_before=timedelta(days=365)),
        # A device's certificate ends with its issuer, so the issuer changes well before it would shorten any.
        "issuing": Schedule(
            lifetime=ISSUING_LIFETIME, renew_before=timedelta(days=180), warn_before=timedelta(days=150)
        ),
        "responder": Schedule(
            lifetime=RESPONDER_LIFETIME, renew_before=RESPONDER_RENEWAL, warn_before=timedelta(days=5)
        ),
        str(Purpose.SUBMISSION_RECEIPT): Schedule(
            lifetime=RECEIPT_LIFETIME, renew_before=RECEIPT_RENEWAL, warn_before=timedelta(hours=3)
        ),
        **{str(purpose): _COMPOSITE for purpose in ANCHORED},
    }
)
RENEWABLE: Final = tuple(name for name, row in SCHEDULES.items() if row.renew_before is not None)


def due_purposes(*, now: datetime | None = None) -> list[str]:
    """The purposes whose active key has come near its end, in the table's order."""
    now = now or timezone.now()
    due = []
    for purpose in RENEWABLE:
        before = SCHEDULES[purpose].renew_before
        key = server_keys(purpose).first()
        if key and key.not_after_at and before and key.not_after_at - now < before:
            due.append(purpose)
    return due


def keep_renewed(*, actor: str = "worker:authority", now: datetime | None = None) -> list[str]:
    """Renew what has come near its end; what cannot be renewed does not keep the rest from it.

    Returns:
        The purposes that are still due, because root or trust anchor are offline.
    """
    if Authority.objects.first() is None:
        return []
    left = []
    for purpose in due_purposes(now=now):
        try:
            with transaction.atomic():
                # Two heartbeats may come at once: the second waits here, and then finds it renewed.
                Authority.objects.select_for_update().get()
                if purpose in due_purposes(now=now):
                    renew(purpose, actor=actor)
        except CustodyError as error:
            logger.warning("the %s key must be renewed by hand: %s", purpose, error)
            left.append(purpose)
    return left


def renew(purpose: str, *, actor: str) -> Key:
    """Make the successor of the server's key for one purpose; the present one is superseded in the same transaction.

    Raises:
        StateError: keys of this purpose are not renewed, or too many issuing authorities are in use.
        CustodyError: root or trust anchor are offline, or not this process's to read; nothing was changed.
    """
    if purpose not in RENEWABLE:
        raise StateError(f"{purpose} is not renewed; one of {', '.join(RENEWABLE)} can be")
    match purpose:
        case "issuing":
            return reissue_authority(actor=actor).key
        case "responder":
            return renew_responder(actor=actor)
        case Purpose.SUBMISSION_RECEIPT:
            return rotate_receipt_key(actor=actor)
        case _:
            return rotate_server_key(purpose=Purpose(purpose), actor=actor)


def reissue_authority(*, actor: str, now: datetime | None = None) -> Certificate:
    """Let the root sign a new issuing authority, which issues from now on; the present one stays beside it.

    Raises:
        CustodyError: root or trust anchor are offline, or not this process's to read; nothing was changed.
        StateError: as many issuing authorities as a trust statement can name still answer for certificates.
    """
    now = now or timezone.now()
    with transaction.atomic():
        authority = Authority.objects.select_for_update().get()
        if len(issuers_in_use(now)) >= ISSUERS_AT_ONCE:
            raise StateError(f"{ISSUERS_AT_ONCE} issuing authorities still answer for certificates; one must end first")
        root = Certificate.objects.select_related("key").get(key__in=server_keys("root"))
        old = Certificate.objects.select_related("key").get(key__in=server_keys("issuing"))
        secret = CertificateSigningKey.generate(PROFILES[authority.profile].issuing)
        der = make_issuing(
            secret.public_raw,
            algorithm=secret.algorithm,
            federation=authority.federation,
            root=bytes(root.der),
            root_key=CertificateSigningKey.from_seed(open_secret(root.key), root.key.algorithm),
            now=now,
            generation=Certificate.objects.filter(key__purpose="issuing").count() + 1,
        )
        count_use(root.key.key_id)
        supersede_key(authority, old.key, now=now, actor=actor)
        lifetime = min(ISSUING_LIFETIME, root.not_after_at - now)
        key = keep_key(
            authority,
            purpose="issuing",
            secret=secret,
            lifetime=lifetime,
            now=now,
            actor=actor,
        )
        new = keep_certificate(key, der, issuer=root, now=now, not_after_at=now + lifetime)
        publish_trust(actor=actor)
        record(
            "authority.reissued",
            actor=actor,
            feed=authority.feed,
            subject=("federation", authority.federation_id),
            details={"serial": new.serial, "fingerprint": new.fingerprint, "replaces": old.serial},
        )
    return new
