"""Keeping the authority current: trust statements, the receipt key of the day, the successors of server keys."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from controlplane.transitions import apply_transition
from keys import vault
from keys.models import Authority, Certificate, Key, Owner, Statement, StatementKind
from keys.selectors import issuers_in_use, server_keys
from keys.services import forget_loaded_keys, open_secret, sign_with
from keys.usage import count_use
from latticeward import canonical
from latticeward.crypto.certificate import PROFILES, fingerprint, serial_of
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.keys import CompositeSigningKey, CompositeVerifyKey
from latticeward.crypto.signing import Purpose, parse_signed_message
from latticeward.errors import StateError
from latticeward.instants import to_unix_milliseconds
from latticeward.lifecycle import KEY, KeyState
from latticeward.statements import ServerKeyStatement
from latticeward.trust import PurposeKey, TrustStatement, sign_trust

ANCHORED: Final = (
    Purpose.KEY_STATEMENT,
    Purpose.PLAN,
    Purpose.ROUND_RECORD,
    Purpose.MODEL_MANIFEST,
    Purpose.REVOCATION,
    Purpose.CHECKPOINT,
    Purpose.EXPORT,
)
SERVER_KEY_LIFETIME: Final = timedelta(days=731)
# Seven purposes and a limit of 64 keys a statement (latticeward/trust.py).
_NAMED_KEYS: Final = 9
TRUST_LIFETIME: Final = timedelta(days=365)
TRUST_RENEWAL: Final = timedelta(days=60)
RECEIPT_LIFETIME: Final = timedelta(hours=24)
# Half of its life: a worker that was down for up to twelve hours leaves no gap.
RECEIPT_RENEWAL: Final = timedelta(hours=12)


def keep_current(*, actor: str = "worker:authority") -> None:
    """Do what has fallen due: a new receipt key, a trust statement for a new address or a new year.

    Runs at start and from the authority worker's heartbeat; does nothing when nothing is due.
    """
    if not any(_due()):
        return
    with transaction.atomic():
        # Two heartbeats may come at once: the second waits here, and then finds nothing due.
        Authority.objects.select_for_update().first()
        receipt_is_due, trust_is_due = _due()
        # First what needs no anchor, which may be offline.
        if receipt_is_due:
            rotate_receipt_key(actor=actor)
    if trust_is_due:
        publish_trust(actor=actor)


def _due() -> tuple[bool, bool]:
    """Whether a receipt key and a trust statement must be made."""
    authority = Authority.objects.first()
    if authority is None:
        return False, False
    now = timezone.now()
    receipt = server_keys(Purpose.SUBMISSION_RECEIPT).first()
    receipt_is_due = receipt is None or receipt.not_after_at is None or receipt.not_after_at - now < RECEIPT_RENEWAL
    return receipt_is_due, _trust_is_due(now)


def _trust_is_due(now: datetime) -> bool:
    """Whether the trust statement is missing, near its end, or names another server address."""
    newest = Statement.objects.filter(kind=StatementKind.TRUST).order_by("-number").first()
    if newest is None or newest.not_after_at - now < TRUST_RENEWAL:
        return True
    payload = parse_signed_message(bytes(newest.signed)).payload
    return TrustStatement.from_bytes(payload).authority != server_address()


def server_address() -> str:
    """Host and port of this server, as devices put it into the Host header."""
    return urlsplit(settings.PUBLIC_URL).netloc.lower()


def publish_trust(*, actor: str) -> Statement:
    """Sign a new trust statement with the anchor, one number higher than the last.

    Raises:
        CustodyError: the anchor is offline, or not this process's to read.
    """
    now = timezone.now()
    with transaction.atomic():
        authority = Authority.objects.select_for_update().get()
        anchor_row = server_keys(Purpose.TRUST).get()
        anchor = CompositeSigningKey.from_seed(open_secret(anchor_row), anchor_row.algorithm)
        count_use(anchor_row.key_id)
        sequence = authority.trust_sequence + 1
        statement = TrustStatement(
            federation_id=str(authority.federation_id),
            federation=authority.federation,
            authority=server_address(),
            sequence=sequence,
            issued_at=to_unix_milliseconds(now),
            expires_at=to_unix_milliseconds(now + TRUST_LIFETIME),
            keys=tuple(_purpose_keys()),
            certificates=tuple(_trusted_certificates()),
        )
        row = Statement.objects.create(
            kind=StatementKind.TRUST,
            subject_id=str(authority.federation_id),
            number=sequence,
            digest=canonical.digest("latticeward/trust-statement/v1", statement.to_bytes()).hex(),
            signed=sign_trust(statement, key=anchor),
            not_before_at=now,
            not_after_at=now + TRUST_LIFETIME,
            created_at=now,
        )
        Authority.objects.filter(pk=authority.pk).update(trust_sequence=sequence)
        record(
            "trust.published",
            actor=actor,
            feed=authority.feed,
            subject=("federation", authority.federation_id),
            details={"sequence": sequence, "digest": row.digest, "anchor": anchor_row.key_id},
        )
    return row


def rotate_receipt_key(*, actor: str) -> Key:
    """Make the next receipt key and certify it with the key-statement key; the last one stays valid to its end."""
    return _rotate(Purpose.SUBMISSION_RECEIPT, RECEIPT_LIFETIME, actor)


def rotate_server_key(*, purpose: Purpose, actor: str) -> Key:
    """Supersede the server's key for one purpose and publish the trust statement that names the new one.

    Raises:
        CustodyError: the anchor is offline; nothing was changed.
    """
    if purpose not in ANCHORED:
        raise StateError(f"{purpose} has no key that the anchor names")
    with transaction.atomic():
        key = _rotate(purpose, SERVER_KEY_LIFETIME, actor)
        publish_trust(actor=actor)
    return key


def _rotate(purpose: Purpose, lifetime: timedelta, actor: str) -> Key:
    now = timezone.now()
    with transaction.atomic():
        authority = Authority.objects.select_for_update().get()
        old = server_keys(purpose).first()
        if old is not None:
            supersede_key(authority, old, now=now, actor=actor)
        secret = CompositeSigningKey.generate(PROFILES[authority.profile].messages)
        key = keep_key(
            authority,
            purpose=str(purpose),
            secret=secret,
            lifetime=lifetime,
            now=now,
            actor=actor,
        )
        if purpose == Purpose.SUBMISSION_RECEIPT:
            statement = ServerKeyStatement(
                federation_id=str(authority.federation_id),
                purpose=purpose,
                key=secret.verify_key,
                not_before=to_unix_milliseconds(now),
                not_after=to_unix_milliseconds(now + lifetime),
                issued_at=to_unix_milliseconds(now),
            )
            Statement.objects.create(
                kind=StatementKind.SERVER,
                subject_id=str(authority.federation_id),
                number=Statement.objects.filter(kind=StatementKind.SERVER).count() + 1,
                digest=canonical.digest("latticeward/server-key-statement/v1", statement.to_bytes()).hex(),
                signed=sign_with(Purpose.KEY_STATEMENT, statement.to_bytes()),
                key=key,
                not_before_at=now,
                not_after_at=now + lifetime,
                created_at=now,
            )
    forget_loaded_keys()
    return key


def _purpose_keys() -> Iterator[PurposeKey]:
    """Every key that the anchor vouches for: those in use, and those whose signatures from before still count.

    A key whose secret was destroyed still verifies; a compromised one is not named any more. A statement names a
    bounded number of keys, so of each purpose the newest stand in it.
    """
    states = (KeyState.ACTIVE, KeyState.DEACTIVATED, KeyState.DESTROYED)
    for purpose in ANCHORED:
        rows = Key.objects.filter(owner=Owner.AUTHORITY, purpose=purpose, state__in=states, revocation__isnull=True)
        for row in rows.order_by("-not_before_at")[:_NAMED_KEYS]:
            assert row.not_before_at is not None and row.not_after_at is not None
            yield PurposeKey(
                purpose=purpose,
                key=CompositeVerifyKey.from_raw(bytes(row.public_key), row.algorithm),
                not_before=to_unix_milliseconds(row.not_before_at),
                not_after=to_unix_milliseconds(row.not_after_at),
            )


def _trusted_certificates() -> Iterator[bytes]:
    """The issuing authorities that answer for certificates, the present one first, and the root last."""
    for issuer in issuers_in_use(timezone.now()):
        yield bytes(issuer.der)
    yield bytes(Certificate.objects.get(key__in=server_keys("root")).der)


def keep_certificate(
    key: Key, der: bytes, *, issuer: Certificate | None, now: datetime, not_after_at: datetime
) -> Certificate:
    """Write down a certificate of one of the authority's own keys."""
    return Certificate.objects.create(
        key=key,
        issuer=issuer,
        serial=serial_of(der),
        der=der,
        fingerprint=fingerprint(der).hex(),
        not_before_at=now,
        not_after_at=not_after_at,
        created_at=now,
    )


def keep_key(
    authority: Authority,
    *,
    purpose: str,
    secret: CertificateSigningKey | CompositeSigningKey,
    lifetime: timedelta,
    now: datetime,
    actor: str,
) -> Key:
    """Keep a fresh key of the authority, its secret wrapped, active from now on."""
    identity, algorithm, seed = uuid4(), str(secret.algorithm), secret.export_seed()
    match secret:
        case CompositeSigningKey():
            key_id, public_raw = secret.verify_key.key_id, secret.verify_key.raw
        case CertificateSigningKey():
            key_id, public_raw = secret.key_id, secret.public_raw
    key = Key(
        id=identity,
        owner=Owner.AUTHORITY,
        subject_id=str(authority.federation_id),
        purpose=purpose,
        algorithm=algorithm,
        key_id=key_id.hex(),
        public_key=public_raw,
        wrapped_secret=vault.wrap(seed, purpose=purpose, row_id=str(identity), algorithm=algorithm),
        created_at=now,
    )
    key.save(force_insert=True)
    details = {"purpose": purpose, "key_id": key.key_id, "algorithm": algorithm}
    apply_transition(
        key,
        KEY,
        "activate",
        actor=actor,
        feed=authority.feed,
        details=details,
        not_before_at=now,
        not_after_at=now + lifetime,
    )
    return key


def supersede_key(authority: Authority, key: Key, *, now: datetime, actor: str) -> None:
    """Take a key of the authority out of use, since another takes its place in the same transaction."""
    details = {"purpose": key.purpose, "key_id": key.key_id}
    apply_transition(key, KEY, "supersede", actor=actor, feed=authority.feed, details=details, superseded_at=now)
