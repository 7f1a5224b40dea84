"""What the authority says about its certificates to other people's tools, kept current by its worker.

The revocation list is made every hour and at once after a change; status answers live for a week, are renewed at
half of it, and at once after a change. A suspended device's certificate is on hold (RFC 5280, ``certificateHold``): it
is on the list and in the answers from the suspension on, and leaves both when the device is reinstated.

Each issuing authority that still answers for certificates has a list of its own, and the one responder key has a
certificate from each of them, because tools believe a delegate of the very issuer only. The root has a list too, for
tools that check the whole chain; it is made while the root is in service and lasts for the year that it then is away.
"""

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Case, Count, Exists, F, Max, OuterRef, Q, TextField, Value, When
from django.utils import timezone

from keys.models import Authority, Certificate, Key, Owner, RevocationList, StatusAnswer
from keys.rotation import keep_certificate, keep_key, supersede_key
from keys.selectors import issuers_in_use, revoked_certificates, server_keys
from keys.services import open_secret
from keys.usage import count_use
from latticeward.crypto.certificate import PROFILES
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.issuing import RESPONDER_LIFETIME, make_responder
from latticeward.crypto.revocation import DIGEST_NAMES, HOLD, make_revocation_list, make_status

LIST_EVERY: Final = timedelta(hours=1)
LIST_LIFETIME: Final = timedelta(hours=24)
ROOT_LIST_EVERY: Final = timedelta(days=30)
ROOT_LIST_LIFETIME: Final = timedelta(days=400)
LISTS_KEPT: Final = 48
STATUS_LIFETIME: Final = timedelta(days=7)
RESPONDER_RENEWAL: Final = timedelta(days=10)
# About a tenth of a second of signing; a fleet of thousands is done in a few minutes of heartbeats.
BATCH: Final = 100


def keep_published(*, actor: str = "worker:authority", now: datetime | None = None) -> None:
    """Renew the responder, the revocation lists and the status answers that have fallen due."""
    authority = Authority.objects.first()
    if authority is None:
        return
    now = now or timezone.now()
    issuers = issuers_in_use(now)
    responder = _present_responder(now) or _keep_responder(actor, now)
    root = Certificate.objects.select_related("key").get(key__in=server_keys("root"))
    if root.key.wrapped_secret is not None:
        _keep_list(root, now, every=ROOT_LIST_EVERY, lifetime=ROOT_LIST_LIFETIME)
    for issuer in issuers:
        _keep_delegated(responder, issuer, authority, now)
        _keep_list(issuer, now, every=LIST_EVERY, lifetime=LIST_LIFETIME)
    _renew_answers(responder, now)


def _present_responder(now: datetime) -> Key | None:
    """The responder key, unless it is time for the next one."""
    key = server_keys("responder").first()
    return key if key and key.not_after_at and key.not_after_at - now >= RESPONDER_RENEWAL else None


def _keep_responder(actor: str, now: datetime) -> Key:
    with transaction.atomic():
        # Of two heartbeats at once the second waits here, and then finds the first one's.
        Authority.objects.select_for_update().get()
        return _present_responder(now) or renew_responder(actor=actor, now=now)


def renew_responder(*, actor: str, now: datetime | None = None) -> Key:
    """Make the next responder key; its certificates follow with the next ``keep_published``."""
    now = now or timezone.now()
    with transaction.atomic():
        authority = Authority.objects.select_for_update().get()
        old = server_keys("responder").first()
        if old is not None:
            supersede_key(authority, old, now=now, actor=actor)
        secret = CertificateSigningKey.generate(PROFILES[authority.profile].responder)
        return keep_key(
            authority,
            purpose="responder",
            secret=secret,
            lifetime=RESPONDER_LIFETIME,
            now=now,
            actor=actor,
        )


def _keep_delegated(responder: Key, issuer: Certificate, authority: Authority, now: datetime) -> None:
    """Let this issuer certify the responder key, if it has not."""
    if Certificate.objects.filter(key=responder, issuer=issuer).exists():
        return
    assert responder.not_after_at is not None
    not_after_at = min(responder.not_after_at, issuer.not_after_at)
    der = make_responder(
        bytes(responder.public_key),
        algorithm=responder.algorithm,
        issuing=bytes(issuer.der),
        issuing_key=_signing(issuer.key),
        now=now,
        lifetime=not_after_at - now,
    )
    keep_certificate(responder, der, issuer=issuer, now=now, not_after_at=not_after_at)


def _signing(key: Key) -> CertificateSigningKey:
    count_use(key.key_id)
    return CertificateSigningKey.from_seed(open_secret(key), key.algorithm)


def _keep_list(issuer: Certificate, now: datetime, *, every: timedelta, lifetime: timedelta) -> None:
    newest = RevocationList.objects.filter(issuer=issuer).order_by("-number").first()
    # Counted before the entries are read: what changes in between makes another list at the next heartbeat.
    basis = _basis(issuer, now)
    if newest is not None and now - newest.issued_at < every and newest.basis == basis:
        return
    number = (RevocationList.objects.aggregate(last=Max("number"))["last"] or 0) + 1
    living = Certificate.objects.filter(issuer=issuer, not_after_at__gt=now)
    der = make_revocation_list(
        revoked_certificates(living).values(),
        number=number,
        issuing=bytes(issuer.der),
        issuing_key=_signing(issuer.key),
        now=now,
        next_at=now + lifetime,
    )
    # The number is the primary key: of two heartbeats at once one finds it taken, and its list is not needed.
    RevocationList.objects.bulk_create(
        [RevocationList(number=number, issuer=issuer, basis=basis, der=der, issued_at=now, next_at=now + lifetime)],
        ignore_conflicts=True,
    )
    kept = RevocationList.objects.filter(issuer=issuer).order_by("-number")[:LISTS_KEPT]
    RevocationList.objects.filter(issuer=issuer).exclude(pk__in=[row.pk for row in kept]).delete()


def _basis(issuer: Certificate, now: datetime) -> str:
    living = Certificate.objects.filter(issuer=issuer, not_after_at__gt=now)
    revoked = living.filter(key__revocation__isnull=False)
    held = living.filter(key__revocation__isnull=True, key__suspended_at__isnull=False)
    counts = (
        revoked.aggregate(count=Count("pk"), last=Max("key__revocation__revoked_at")),
        held.aggregate(count=Count("pk"), last=Max("key__suspended_at")),
    )
    return "; ".join(f"{row['count']} until {row['last']}" for row in counts)


def _renew_answers(responder: Key, now: datetime) -> None:
    answers = StatusAnswer.objects.filter(certificate=OuterRef("pk"))
    present = Case(
        When(key__revocation__isnull=False, then=F("key__revocation__reason")),
        When(key__suspended_at__isnull=False, then=Value(HOLD)),
        default=Value(""),
        output_field=TextField(),
    )
    due = (
        Certificate.objects.filter(key__owner=Owner.DEVICE, not_after_at__gt=now)
        .annotate(answers=Count("status_answers"), present=present)
        .annotate(changed=Exists(answers.exclude(told=OuterRef("present"))))
        .filter(Q(answers__lt=len(DIGEST_NAMES)) | ~Exists(answers.filter(renew_at__gt=now)) | Q(changed=True))
        .select_related("issuer")
        # What is told wrongly goes before what is only old: a fleet that enrolled on one morning is due on one morning.
        .order_by("-changed", "created_at")[:BATCH]
    )
    certificates = list(due)
    if not certificates:
        return
    delegated = {row.issuer_id: row for row in Certificate.objects.filter(key=responder)}
    responder_key = _signing(responder)
    revoked = revoked_certificates(Certificate.objects.filter(pk__in=[row.pk for row in certificates]))
    made = []
    for row in certificates:
        # Only an issuer out of use has no delegate, and then every certificate of it has ended.
        if row.issuer is None or (delegate := delegated.get(row.issuer_id)) is None:
            continue
        entry = revoked.get(row.serial)
        # No answer outlives the certificate of the responder that signed it.
        next_at = min(now + STATUS_LIFETIME, delegate.not_after_at)
        made += [
            StatusAnswer(
                certificate=row,
                digest_name=digest_name,
                der=make_status(
                    bytes(row.der),
                    revoked=entry,
                    digest_name=digest_name,
                    issuing=bytes(row.issuer.der),
                    responder=bytes(delegate.der),
                    responder_key=responder_key,
                    now=now,
                    next_at=next_at,
                ),
                told=entry.reason if entry else "",
                made_at=now,
                renew_at=min(now + STATUS_LIFETIME / 2, next_at),
                next_at=next_at,
            )
            for digest_name in DIGEST_NAMES
        ]
    count_use(responder.key_id, len(made))
    StatusAnswer.objects.bulk_create(
        made,
        update_conflicts=True,
        unique_fields=["certificate", "digest_name"],
        update_fields=["der", "told", "made_at", "renew_at", "next_at"],
    )
