"""Reads about keys: what the server signs with, what it hands out as trust, what it knows of a subject's keys."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Final
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from controlplane.prepared import PreparedSelect
from keys.models import Certificate, Key, Owner, RevocationList, Statement, StatementKind, StatusAnswer
from latticeward.crypto.keys import (
    AuthenticationVerifyKey,
    ClassicalVerifyKey,
    CompositeVerifyKey,
    EncapsulationKey,
)
from latticeward.crypto.revocation import HOLD, RevokedCertificate, StatusQuestion, require_about
from latticeward.crypto.signing import Purpose, parse_signed_message
from latticeward.device_keys import DEVICE_ROLES, DevicePublicKeys
from latticeward.errors import CustodyError, NotFoundError
from latticeward.lifecycle import KeyState
from latticeward.statements import KeyStanding, KeyStatement
from latticeward.trust import TrustAnchor, make_bundle

_trust: tuple[tuple[UUID, ...], bytes] | None = None
_lock: Final = Lock()


def server_keys(purpose: Purpose | str) -> QuerySet[Key]:
    """The server's active keys for one purpose, the newest first; usually one."""
    rows = Key.objects.filter(owner=Owner.AUTHORITY, purpose=str(purpose), state=KeyState.ACTIVE)
    return rows.order_by("-not_before_at")


_SERVER_KEY: Final = PreparedSelect(
    lambda purpose: server_keys(purpose).values_list("public_key", "algorithm")[:1], str
)


def server_verify_key(purpose: Purpose) -> CompositeVerifyKey:
    """The public half of what ``sign_with`` signs with.

    Raises:
        CustodyError: there is no active key for the purpose.
    """
    row = _SERVER_KEY.first(str(purpose))
    if row is None:
        raise CustodyError(f"the server has no active key for {purpose}")
    raw, algorithm = row
    return CompositeVerifyKey.from_raw(bytes(raw), algorithm)


def trust_anchor() -> TrustAnchor:
    """The root of trust whose fingerprint goes with every claim code.

    Raises:
        CustodyError: the authority has not been initialised.
    """
    return TrustAnchor(key=server_verify_key(Purpose.TRUST))


_ANCHOR: Final = PreparedSelect(lambda: server_keys(Purpose.TRUST).values_list("key_id")[:1])


def anchor_fingerprint() -> bytes:
    """The fingerprint of ``trust_anchor``, 32 bytes, without the key.

    Raises:
        CustodyError: the authority has not been initialised.
    """
    row = _ANCHOR.first()
    if row is None:
        raise CustodyError(f"the server has no active key for {Purpose.TRUST}")
    return bytes.fromhex(row[0])


def _newest_trust() -> QuerySet[Statement]:
    return Statement.objects.filter(kind=StatementKind.TRUST).order_by("-number")[:1]


def _receipt_statements(now: datetime) -> QuerySet[Statement]:
    living = Statement.objects.filter(kind=StatementKind.SERVER, not_after_at__gt=now)
    return living.exclude(key__state=KeyState.COMPROMISED).order_by("number")


# Asked with every fetch of the trust document, by every device every few minutes.
_NEWEST_TRUST: Final = PreparedSelect(lambda: _newest_trust().values_list("pk"))
_RECEIPT_STATEMENTS: Final = PreparedSelect(lambda now: _receipt_statements(now).values_list("pk"), datetime)


def trust_document() -> bytes:
    """The bytes of ``GET /api/v1/trust``: anchor, trust statement, statements of the receipt keys valid now.

    Put together again only when a statement was made or ended. Not by a timer: a device that was given a receipt by a
    key of this minute must find that key's statement here at once, whichever process answers.

    Raises:
        CustodyError: the authority has not been initialised.
    """
    global _trust
    now = timezone.now()
    newest, receipts = _NEWEST_TRUST(), _RECEIPT_STATEMENTS(now)
    parts = tuple(pk for (pk,) in (*newest, *receipts))
    with _lock:
        if _trust is not None and _trust[0] == parts:
            return _trust[1]
    if not newest:
        raise CustodyError("no trust statement has been signed yet: run init_authority")
    document = make_bundle(
        anchor=trust_anchor(),
        signed=bytes(_newest_trust().get().signed),
        receipts=tuple(bytes(signed) for signed in _receipt_statements(now).values_list("signed", flat=True)),
    )
    with _lock:
        _trust = (parts, document)
    return document


def device_keys(subject_id: str, *, epoch: int) -> dict[str, Key]:
    """The registered keys of one epoch of a device, by role, whatever their state; not its encipherment keys.

    Of several sets the last one: the earlier ones are of renewals that ended without a certificate.
    """
    rows = Key.objects.filter(owner=Owner.DEVICE, subject_id=subject_id, epoch=epoch, purpose__in=DEVICE_ROLES)
    return {row.purpose: row for row in rows.order_by("created_at")}


def public_keys(subject_id: str, *, epoch: int) -> DevicePublicKeys:
    """The four public keys of one epoch as values.

    Raises:
        NotFoundError: the device has no such epoch.
    """
    rows = device_keys(subject_id, epoch=epoch)
    if len(rows) != 4:
        raise NotFoundError(f"device {subject_id} has no keys of epoch {epoch}")
    return public_keys_of(rows)


def public_keys_of(rows: Mapping[str, Key]) -> DevicePublicKeys:
    """The values of four registered keys, by role."""
    raw = {role: bytes(row.public_key) for role, row in rows.items()}
    return DevicePublicKeys(
        authentication=AuthenticationVerifyKey.from_raw(raw["authentication"], rows["authentication"].algorithm),
        classical=ClassicalVerifyKey.from_raw(raw["classical"]),
        signing=CompositeVerifyKey.from_raw(raw["signing"], rows["signing"].algorithm),
        encapsulation=EncapsulationKey.from_raw(raw["encapsulation"], rows["encapsulation"].algorithm),
    )


def certificate_ends(subject_ids: list[str]) -> dict[str, datetime]:
    """For each subject, when its newest certificate ends; one query for a whole fleet."""
    rows = _identities().filter(key__subject_id__in=subject_ids)
    return dict(rows.order_by("created_at").values_list("key__subject_id", "not_after_at"))


_END: Final = PreparedSelect(
    lambda subject_id: (
        _identities().filter(key__subject_id=subject_id).order_by("-created_at").values_list("not_after_at")[:1]
    ),
    str,
)


def certificate_end(subject_id: str) -> datetime | None:
    """When the newest certificate of one subject ends; None if it has none."""
    row = _END.first(subject_id)
    return row[0] if row else None


def _identities() -> QuerySet[Certificate]:
    """The certificates with which devices authenticate; a device may have others, for other tools."""
    return Certificate.objects.filter(key__owner=Owner.DEVICE, key__purpose="authentication")


def issuers_in_use(now: datetime) -> list[Certificate]:
    """The issuing authorities that still answer for something, the present one first, at most three.

    One that was superseded stays until the last device certificate that it signed has ended; until then it signs what
    is said about them, and nothing else.
    """
    living = Certificate.objects.filter(issuer=OuterRef("pk"), not_after_at__gt=now, key__owner=Owner.DEVICE)
    rows = Certificate.objects.filter(key__owner=Owner.AUTHORITY, key__purpose="issuing").filter(
        Q(key__state=KeyState.ACTIVE) | (Q(key__state=KeyState.DEACTIVATED, not_after_at__gt=now) & Exists(living))
    )
    return list(rows.select_related("key", "issuer").order_by("-not_before_at"))


def device_statement(subject_id: str, *, epoch: int) -> bytes:
    """The signed key statement of one epoch.

    Raises:
        NotFoundError: none was signed.
    """
    row = Statement.objects.filter(kind=StatementKind.DEVICE, subject_id=subject_id, number=epoch).first()
    if row is None:
        raise NotFoundError(f"device {subject_id} has no key statement of epoch {epoch}")
    return bytes(row.signed)


_ISSUED: Final = PreparedSelect(
    lambda subject_id, epoch: (
        Statement.objects.filter(kind=StatementKind.DEVICE, subject_id=subject_id, number=epoch)
        .exclude(certificate=None)
        .values_list("certificate__der", "certificate__issuer__der", "signed")
    ),
    str,
    int,
)


def issued_identity(subject_id: str, *, epoch: int) -> tuple[tuple[bytes, bytes], bytes]:
    """What a device is given for one epoch: its certificate and the issuing authority's, DER, and its statement.

    Raises:
        NotFoundError: nothing was made.
    """
    row = _ISSUED.first(subject_id, epoch)
    if row is None:
        raise NotFoundError(f"device {subject_id} has no certificate of epoch {epoch}")
    leaf, issuing, signed = map(bytes, row)
    return (leaf, issuing), signed


def epoch_of(key_id: str) -> int:
    """The epoch that a device's authentication key belongs to.

    Raises:
        NotFoundError: no device has such a key.
    """
    row = Key.objects.filter(owner=Owner.DEVICE, purpose="authentication", key_id=key_id).values_list("epoch").first()
    if row is None:
        raise NotFoundError(f"no device has the authentication key {key_id}")
    return int(row[0])


def certificate_of_epoch(subject_id: str, *, epoch: int) -> Certificate:
    """The certificate of one epoch of a device, with its issuer.

    Raises:
        NotFoundError: none was made.
    """
    rows = _identities().filter(key__subject_id=subject_id, key__epoch=epoch)
    found = rows.select_related("issuer", "key").order_by("-created_at").first()
    if found is None:
        raise NotFoundError(f"device {subject_id} has no certificate of epoch {epoch}")
    return found


def read_statement(subject_id: str, *, epoch: int) -> KeyStatement:
    """The key statement of one epoch as we signed it.

    Raises:
        NotFoundError: none was signed.
    """
    return KeyStatement.from_bytes(parse_signed_message(device_statement(subject_id, epoch=epoch)).payload)


def revoked_certificates(certificates: QuerySet[Certificate]) -> dict[str, RevokedCertificate]:
    """Of some certificates those that are revoked or on hold, by serial; a revocation stands over a hold."""
    rows = certificates.filter(Q(key__revocation__isnull=False) | Q(key__suspended_at__isnull=False))
    found = {}
    for row in rows.select_related("key__revocation"):
        revocation = getattr(row.key, "revocation", None)
        revoked_at = revocation.revoked_at if revocation else row.key.suspended_at
        assert revoked_at is not None, "what is neither revoked nor on hold was not asked for"
        found[row.serial] = RevokedCertificate(
            serial=row.serial,
            reason=revocation.reason if revocation else HOLD,
            revoked_at=revoked_at,
            invalid_from=revocation.invalid_from if revocation else None,
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Something that was signed ahead of its use: DER, when it was made, and until when it may be used."""

    der: bytes
    made_at: datetime
    next_at: datetime


def newest_revocation_list(issuer: str | None = None) -> Published:
    """The newest X.509 revocation list.

    Args:
        issuer: the name of the list of one issuing authority (``list_name``); None for the present one's.

    Raises:
        NotFoundError: none has been signed yet, or nobody has this name.
    """
    rows = RevocationList.objects.order_by("-number")
    if issuer is None:
        rows = rows.filter(issuer__key__in=server_keys("issuing"))
    else:
        rows = rows.filter(issuer__fingerprint__startswith=issuer) if len(issuer) == 16 else rows.none()
    row = rows.first()
    if row is None:
        raise NotFoundError("no such revocation list has been signed yet")
    return Published(der=bytes(row.der), made_at=row.issued_at, next_at=row.next_at)


def status_answer(question: StatusQuestion) -> Published:
    """The OCSP answer to a question.

    Raises:
        NotFoundError: nothing is known about this certificate, or its answer has run out.
        CertificateNotValidError: it is another authority's.
    """
    row = StatusAnswer.objects.filter(
        certificate__serial=question.serial, digest_name=question.digest_name, next_at__gt=timezone.now()
    ).first()
    if row is None:
        raise NotFoundError(f"there is no status of certificate {question.serial}")
    require_about(question, bytes(row.der))
    return Published(der=bytes(row.der), made_at=row.made_at, next_at=row.next_at)


def known_keys() -> QuerySet[Key]:
    """Every key of everybody, without the bytes of its parts, with what was revoked."""
    return Key.objects.defer("public_key", "wrapped_secret").select_related("revocation").order_by("-created_at")


def known_certificates() -> QuerySet[Certificate]:
    """Every certificate that the authority signed, without its bytes, with its key and what was revoked."""
    rows = Certificate.objects.defer("der", "key__public_key", "key__wrapped_secret")
    return rows.select_related("key__revocation").order_by("-created_at")


def certificate_chain(serial: str) -> list[bytes]:
    """A certificate and its issuers, DER, leaf first; the root only if it was itself asked for.

    Args:
        serial: lower-case hexadecimal.

    Raises:
        NotFoundError: nobody has this serial.
    """
    row = Certificate.objects.select_related("issuer__issuer").filter(serial=serial).first()
    if row is None:
        raise NotFoundError(f"there is no certificate {serial}")
    chain = [bytes(row.der)]
    while row.issuer is not None and row.issuer.issuer is not None:
        row = row.issuer
        chain.append(bytes(row.der))
    return chain


def key_history(key: Key) -> list[AuditEntry]:
    """What became of a key, from the ledger, oldest first."""
    return list(AuditEntry.objects.filter(subject_kind="key", subject_id=str(key.id)).order_by("recorded_at"))


def compromises(subject_ids: Iterable[str] | None = None) -> dict[str, datetime]:
    """Since when nothing signed by a subject may be believed, of those whose keys were compromised; one query.

    Args:
        subject_ids: only of these; None for everybody.
    """
    rows = Key.objects.filter(
        owner=Owner.DEVICE, purpose="signing", state=KeyState.COMPROMISED, revocation__invalid_from__isnull=False
    )
    if subject_ids is not None:
        rows = rows.filter(subject_id__in=list(subject_ids))
    # Of several epochs the earliest date counts: what one key cannot vouch for, a later one does not either.
    found: dict[str, datetime] = {}
    for row in rows.select_related("revocation").only("subject_id", "revocation__invalid_from"):
        if (since := row.revocation.invalid_from) is not None:
            found[row.subject_id] = min(found.get(row.subject_id, since), since)
    return found


def key_standing(key: Key) -> KeyStanding:
    """What the authority knows of a key beyond its statement, for ``verify_live`` and ``verify_archive``."""
    revocation = getattr(key, "revocation", None)
    return KeyStanding(
        superseded_at=key.superseded_at,
        overlap_until=key.overlap_until,
        revoked_at=revocation.revoked_at if revocation else None,
        invalid_from=revocation.invalid_from if revocation else None,
    )
