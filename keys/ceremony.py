"""Making the authority: root, trust anchor, issuing authority, one key a server purpose.

What a new installation gets, in one transaction:

- the trust anchor (composite), which signs trust statements and nothing else;
- the root (ML-DSA-87) and the issuing authority (X.509); ``publication.py`` adds the status responder;
- one composite key for each of ``ANCHORED``, named by the trust statement;
- a receipt key of 24 hours, certified by the key-statement key, made anew twice a day.

Root and anchor are needed only for a new issuing authority, server key or trust statement. They can leave the service
(``offline.py``). In embedded mode they may stay in the vault, and the settings page says so: whoever owns that machine
then owns the federation's trust.
"""

from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane.audit.services import record
from keys import vault
from keys.models import Authority, Certificate
from keys.rotation import ANCHORED, SERVER_KEY_LIFETIME, keep_certificate, keep_current, keep_key, publish_trust
from keys.selectors import server_keys
from latticeward.crypto.certificate import PROFILES
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.issuing import (
    ISSUING_LIFETIME,
    ROOT_LIFETIME,
    make_issuing,
    make_root,
)
from latticeward.crypto.keys import CompositeSigningKey
from latticeward.crypto.signing import Purpose
from latticeward.errors import StateError

ANCHOR_LIFETIME: Final = ROOT_LIFETIME


def init_authority(*, federation_id: UUID | str, federation: str, actor: str = "system") -> Authority:
    """Make the authority of this installation, or bring an existing one up to date. Safe to call at every start.

    Args:
        federation_id: for whom it speaks.
        federation: slug, as it will stand in certificates.

    Raises:
        StateError: this installation speaks for another federation already, or has another profile than the settings.
        CustodyError: the vault has lost the keys that open what the database holds.
    """
    authority = Authority.objects.first()
    if authority is None:
        vault.initialise()
        try:
            authority = _found(UUID(str(federation_id)), federation, actor, settings.AUTHORITY_PROFILE)
        except IntegrityError:
            authority = Authority.objects.get()  # another process was quicker; its authority stands
    if str(authority.federation_id) != str(federation_id):
        raise StateError(f"this installation speaks for federation {authority.federation_id}")
    if authority.profile != settings.AUTHORITY_PROFILE:
        raise StateError(f"this authority was made with LATTICEWARD_PROFILE={authority.profile}, which does not change")
    vault.require_keks()
    keep_current(actor=actor)
    return authority


def _found(federation_id: UUID, federation: str, actor: str, profile_name: str) -> Authority:
    now = timezone.now()
    profile = PROFILES[profile_name]
    root = CertificateSigningKey.generate(profile.root)
    issuing = CertificateSigningKey.generate(profile.issuing)
    root_der = make_root(root, name=f"Latticeward root of {federation}", now=now)
    issuing_der = make_issuing(
        issuing.public_raw,
        algorithm=issuing.algorithm,
        federation=federation,
        root=root_der,
        root_key=root,
        now=now,
    )
    with transaction.atomic():
        authority = Authority(federation_id=federation_id, federation=federation, profile=profile_name, created_at=now)
        authority.save(force_insert=True)
        issuer: Certificate | None = None
        for purpose, secret, der, lifetime in (
            ("root", root, root_der, ROOT_LIFETIME),
            ("issuing", issuing, issuing_der, ISSUING_LIFETIME),
        ):
            key = keep_key(
                authority,
                purpose=purpose,
                secret=secret,
                lifetime=lifetime,
                now=now,
                actor=actor,
            )
            issuer = keep_certificate(key, der, issuer=issuer, now=now, not_after_at=now + lifetime)
        for purpose in (Purpose.TRUST, *ANCHORED):
            keep_key(
                authority,
                purpose=str(purpose),
                secret=CompositeSigningKey.generate(profile.messages),
                lifetime=ANCHOR_LIFETIME if purpose == Purpose.TRUST else SERVER_KEY_LIFETIME,
                now=now,
                actor=actor,
            )
        publish_trust(actor=actor)
        record(
            "authority.initialised",
            actor=actor,
            feed=authority.feed,
            subject=("federation", federation_id),
            details={"anchor": server_keys(Purpose.TRUST).get().key_id, "profile": profile_name},
        )
    return authority
