"""What the authority says about its certificates to other people's tools, kept current by its worker.

The revocation list is made every hour and at once after a revocation; status answers live for a week, are renewed at
half of it, and at once after a revocation. A suspended device is refused by the control plane but stays "good" here:
a hold that comes and goes is a decision of this product, not a statement about a key.
"""

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q
from django.utils import timezone

from controlplane.transitions import apply_transition
from keys.models import Authority, Certificate, Owner, Revocation, RevocationList, StatusAnswer
from keys.rotation import keep_key
from keys.selectors import revoked_certificates, server_keys
from keys.services import open_secret
from latticeward.crypto.certificate import PROFILES, fingerprint, serial_of
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.issuing import RESPONDER_LIFETIME, make_responder
from latticeward.crypto.revocation import DIGEST_NAMES, make_revocation_list, make_status
from latticeward.lifecycle import KEY

LIST_EVERY: Final = timedelta(hours=1)
LIST_LIFETIME: Final = timedelta(hours=24)
LISTS_KEPT: Final = 48
STATUS_LIFETIME: Final = timedelta(days=7)
RESPONDER_RENEWAL: Final = timedelta(days=10)
# About a tenth of a second of signing; a fleet of thousands is done in a few minutes of heartbeats.
BATCH: Final = 100


def keep_published(*, actor: str = "worker:authority", now: datetime | None = None) -> None:
    """Renew the responder, the revocation list and the status answers that have fallen due."""
    authority = Authority.objects.first()
    if authority is None:
        return
    now = now or timezone.now()
    responder = _certificate_of("responder")
    if responder is None or responder.not_after_at - now < RESPONDER_RENEWAL:
        _renew_responder(authority, responder, actor, now)
    newest = RevocationList.objects.order_by("-number").first()
    if (
        newest is None
        or now - newest.issued_at >= LIST_EVERY
        or Revocation.objects.filter(revoked_at__gt=newest.issued_at).exists()
    ):
        _publish_list(0 if newest is None else newest.number, now)
    _renew_answers(now)


def _certificate_of(purpose: str) -> Certificate | None:
    return Certificate.objects.filter(key__in=server_keys(purpose)).select_related("key").first()


def _issuing() -> tuple[Certificate, CertificateSigningKey]:
    row = _certificate_of("issuing")
    assert row is not None, "an authority has an issuing certificate"
    return row, CertificateSigningKey.from_seed(open_secret(row.key), row.key.algorithm)


def _renew_responder(authority: Authority, old: Certificate | None, actor: str, now: datetime) -> None:
    issuing, issuing_key = _issuing()
    secret = CertificateSigningKey.generate(PROFILES[authority.profile].responder)
    der = make_responder(
        secret.public_raw,
        algorithm=secret.algorithm,
        issuing=bytes(issuing.der),
        issuing_key=issuing_key,
        now=now,
    )
    with transaction.atomic():
        if old is not None:
            details = {"purpose": "responder", "key_id": old.key.key_id}
            apply_transition(
                old.key, KEY, "supersede", actor=actor, feed=authority.feed, details=details, superseded_at=now
            )
        key = keep_key(
            authority,
            purpose="responder",
            algorithm=secret.algorithm,
            key_id=secret.key_id,
            public_raw=secret.public_raw,
            seed=secret.export_seed(),
            lifetime=RESPONDER_LIFETIME,
            now=now,
            actor=actor,
        )
        Certificate.objects.create(
            key=key,
            issuer=issuing,
            serial=serial_of(der),
            der=der,
            fingerprint=fingerprint(der).hex(),
            not_before_at=now,
            not_after_at=now + RESPONDER_LIFETIME,
            created_at=now,
        )


def _publish_list(last_number: int, now: datetime) -> None:
    issuing, issuing_key = _issuing()
    living = Certificate.objects.filter(issuer=issuing, not_after_at__gt=now)
    der = make_revocation_list(
        revoked_certificates(living).values(),
        number=last_number + 1,
        issuing=bytes(issuing.der),
        issuing_key=issuing_key,
        now=now,
        next_at=now + LIST_LIFETIME,
    )
    # The number is the primary key: of two heartbeats at once one finds it taken, and its list is not needed.
    RevocationList.objects.bulk_create(
        [RevocationList(number=last_number + 1, der=der, issued_at=now, next_at=now + LIST_LIFETIME)],
        ignore_conflicts=True,
    )
    RevocationList.objects.filter(number__lte=last_number + 1 - LISTS_KEPT).delete()


def _renew_answers(now: datetime) -> None:
    fresh = StatusAnswer.objects.filter(certificate=OuterRef("pk"), renew_at__gt=now)
    told_good = StatusAnswer.objects.filter(certificate=OuterRef("pk"), is_revoked=False)
    due = (
        Certificate.objects.filter(key__owner=Owner.DEVICE, not_after_at__gt=now)
        .annotate(answers=Count("status_answers"))
        .filter(
            Q(answers__lt=len(DIGEST_NAMES)) | ~Exists(fresh) | (Q(key__revocation__isnull=False) & Exists(told_good))
        )
        .order_by("created_at")[:BATCH]
    )
    certificates = list(due)
    responder = _certificate_of("responder")
    if not certificates or responder is None:
        return
    issuing, _ = _issuing()
    responder_key = CertificateSigningKey.from_seed(open_secret(responder.key), responder.key.algorithm)
    revoked = revoked_certificates(Certificate.objects.filter(pk__in=[row.pk for row in certificates]))
    # No answer outlives the certificate of the responder that signed it.
    next_at = min(now + STATUS_LIFETIME, responder.not_after_at)
    answers = [
        StatusAnswer(
            certificate=row,
            digest_name=digest_name,
            der=make_status(
                bytes(row.der),
                revoked=revoked.get(row.serial),
                digest_name=digest_name,
                issuing=bytes(issuing.der),
                responder=bytes(responder.der),
                responder_key=responder_key,
                now=now,
                next_at=next_at,
            ),
            is_revoked=row.serial in revoked,
            renew_at=now + STATUS_LIFETIME / 2,
            next_at=next_at,
        )
        for row in certificates
        for digest_name in DIGEST_NAMES
    ]
    StatusAnswer.objects.bulk_create(
        answers,
        update_conflicts=True,
        unique_fields=["certificate", "digest_name"],
        update_fields=["der", "is_revoked", "renew_at", "next_at"],
    )
