"""Binding devices' keys: certificate and key statement, many at a time, and what becomes of the keys they replace.

Signing is one certificate and one statement a device and cannot be shared; everything else (reading keys, writing
rows, moving states, the ledger) is a few statements for a whole batch, so that a fleet's rotation is bound by the
signatures. Runs in the authority worker only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Least
from django.utils import timezone

from controlplane.audit.services import Fact, record_all, record_together
from controlplane.prepared import PreparedSelect, insert_rows
from controlplane.transitions import apply_transitions
from keys.models import Authority, Certificate, Key, Owner, Statement, StatementKind, in_lock_order
from keys.selectors import public_keys_of
from keys.services import open_secret, require_certifiable, signing_key
from keys.usage import count_use
from latticeward.crypto.certificate import DeviceNames, fingerprint, serial_of
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.issuing import DEVICE_LIFETIME, issue_device
from latticeward.crypto.signing import Purpose
from latticeward.device_keys import DEVICE_ROLES
from latticeward.errors import StateError
from latticeward.instants import to_unix_milliseconds
from latticeward.lifecycle import KEY, KeyState
from latticeward.statements import KeyStatement, sign_statement

# A device switches at once when it has its new certificate; what it had sent before, or sends from a second process,
# arrives within this.
REQUEST_OVERLAP: Final = timedelta(hours=1)
# For how long a superseded key may finish what it began, by role; None is until it would have ended anyway. Within
# that time a signing key verifies for rounds opened before only (``verify_live``), and nothing is sealed to the
# encapsulation key, which opens what was sealed before.
OVERLAP_OF_ROLE: Final[Mapping[str, timedelta | None]] = {
    "authentication": REQUEST_OVERLAP,
    "classical": REQUEST_OVERLAP,
    "signing": None,
    "encapsulation": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueOrder:
    """One device whose registered keys of an epoch are to be bound.

    Attributes:
        subject_id: id of the device, UUID text.
        names: from the claim record.
        epoch: of the keys; those of an earlier epoch that are active are superseded.
        lifetime: of certificate and statement; never beyond the issuing authority's own end.
    """

    subject_id: str
    names: DeviceNames
    epoch: int
    lifetime: timedelta = DEVICE_LIFETIME


@dataclass(frozen=True, slots=True)
class _Bound:
    """What was signed for one order."""

    order: IssueOrder
    keys: dict[str, Key]
    certificate: Certificate
    statement: Statement


def issue_certificate(order: IssueOrder, *, actor: str, feed: str) -> Certificate:
    """Bind one device's keys; as ``issue_certificates``."""
    return issue_certificates([order], actor=actor, feed=feed)[0]


def issue_certificates(orders: Sequence[IssueOrder], *, actor: str, feed: str) -> list[Certificate]:
    """Bind devices' keys: the authentication key by X.509, all four by a key statement; the keys become active.

    Runs in the authority worker, inside the caller's transaction, so that a device is active with a certificate or
    neither. The keys must have been registered with ``register_device_keys``; active keys of an earlier epoch are
    superseded in the same instant, so a device has one active set at any time.

    Returns:
        The certificates, in the order of ``orders``.

    Raises:
        CustodyError: this process does not hold the issuing key.
        StateError: the keys of one order are not registered and waiting.
        UnsupportedSuiteError: the authority's profile does not certify such keys.
    """
    now = timezone.now()
    waiting, replaced = _keys_of(orders)
    bound = list(_sign(orders, waiting, now))
    with transaction.atomic(savepoint=False), record_together():
        insert_rows([one.certificate for one in bound])
        insert_rows([one.statement for one in bound])
        _supersede(replaced, now, actor, feed)
        _activate(bound, now, actor, feed)
        record_all([_issued(one) for one in bound], actor=actor, feed=feed)
    return [one.certificate for one in bound]


def _keys_of(orders: Sequence[IssueOrder]) -> tuple[dict[str, dict[str, Key]], list[Key]]:
    """The waiting keys of each order by role, and the active ones that they replace; all locked."""
    epochs = {order.subject_id: order.epoch for order in orders}
    rows = in_lock_order(
        Key.objects.filter(
            owner=Owner.DEVICE,
            subject_id__in=epochs,
            purpose__in=DEVICE_ROLES,
            state__in=(KeyState.PRE_ACTIVE, KeyState.ACTIVE),
        )
    )
    waiting: dict[str, dict[str, Key]] = {subject: {} for subject in epochs}
    replaced = []
    for row in rows:
        if row.state == KeyState.PRE_ACTIVE and row.epoch == epochs[row.subject_id]:
            waiting[row.subject_id][row.purpose] = row
        elif row.state == KeyState.ACTIVE and row.epoch < epochs[row.subject_id]:
            replaced.append(row)
    for order in orders:
        if set(waiting[order.subject_id]) != set(DEVICE_ROLES):
            raise StateError(
                f"device {order.subject_id} has not four registered keys that wait for epoch {order.epoch}"
            )
    return waiting, replaced


# Asked for every batch, so that a rotation or revocation acts at once.
_AUTHORITY: Final = PreparedSelect(lambda: Authority.objects.all())
_ISSUER: Final = PreparedSelect(
    lambda: Certificate.objects.select_related("key").filter(
        key__purpose="issuing", key__state=KeyState.ACTIVE, key__owner=Owner.AUTHORITY
    )
)


def _sign(orders: Sequence[IssueOrder], waiting: dict[str, dict[str, Key]], now: datetime) -> Iterator[_Bound]:
    (authority,), (issuer,) = _AUTHORITY(), _ISSUER()
    issuing_key = CertificateSigningKey.from_seed(open_secret(issuer.key), issuer.key.algorithm)
    statement_key = signing_key(Purpose.KEY_STATEMENT)
    count_use(issuer.key.key_id, len(orders))
    count_use(statement_key.verify_key.key_id.hex(), len(orders) - 1)  # the first is counted already
    for order in orders:
        rows = waiting[order.subject_id]
        keys = public_keys_of(rows)
        require_certifiable(keys, profile=authority.profile)
        not_after_at = min(now + order.lifetime, issuer.not_after_at)
        der = issue_device(
            keys.authentication.raw,
            algorithm=keys.authentication.algorithm,
            names=order.names,
            issuing=bytes(issuer.der),
            issuing_key=issuing_key,
            now=now,
            lifetime=order.lifetime,
            public_url=settings.PUBLIC_URL,
        )
        statement = KeyStatement(
            device_id=order.subject_id,
            federation_id=str(authority.federation_id),
            site=order.names.site,
            epoch=order.epoch,
            keys=keys,
            certificate_digest=fingerprint(der),
            not_before=to_unix_milliseconds(now),
            not_after=to_unix_milliseconds(not_after_at),
            issued_at=to_unix_milliseconds(now),
        )
        times: dict[str, Any] = {"not_before_at": now, "not_after_at": not_after_at, "created_at": now}
        certificate = Certificate(
            key=rows["authentication"],
            issuer=issuer,
            serial=serial_of(der),
            der=der,
            fingerprint=fingerprint(der).hex(),
            **times,
        )
        yield _Bound(
            order=order,
            keys=rows,
            certificate=certificate,
            statement=Statement(
                kind=StatementKind.DEVICE,
                subject_id=order.subject_id,
                number=order.epoch,
                digest=statement.digest.hex(),
                signed=sign_statement(statement, key=statement_key),
                certificate=certificate,
                **times,
            ),
        )


def _supersede(replaced: list[Key], now: datetime, actor: str, feed: str) -> None:
    if not replaced:  # nobody's first keys replace any
        return
    apply_transitions(replaced, KEY, "supersede", actor=actor, feed=feed, details=_about, superseded_at=now)
    rows = Key.objects.filter(pk__in=[row.pk for row in replaced])
    for overlap in set(OVERLAP_OF_ROLE.values()):
        roles = [role for role, of_role in OVERLAP_OF_ROLE.items() if of_role == overlap]
        ends = F("not_after_at") if overlap is None else Least(F("not_after_at"), now + overlap)
        rows.filter(purpose__in=roles).update(overlap_until=ends)


def _activate(bound: list[_Bound], now: datetime, actor: str, feed: str) -> None:
    def ends(one: _Bound) -> datetime:
        return one.certificate.not_after_at

    for not_after_at, same in groupby(sorted(bound, key=ends), key=ends):
        apply_transitions(
            [one.keys[role] for one in same for role in DEVICE_ROLES],
            KEY,
            "activate",
            actor=actor,
            feed=feed,
            details=_about,
            not_before_at=now,
            not_after_at=not_after_at,
        )


def _about(row: Key) -> dict[str, Any]:
    return {"purpose": row.purpose, "key_id": row.key_id, "epoch": row.epoch, "device": row.subject_id}


def _issued(one: _Bound) -> Fact:
    return Fact(
        "certificate.issued",
        ("device", one.order.subject_id),
        {
            "serial": one.certificate.serial,
            "fingerprint": one.certificate.fingerprint,
            "statement": one.statement.digest,
            "not_after_at": one.certificate.not_after_at.isoformat().replace("+00:00", "Z"),
            "epoch": one.order.epoch,
        },
    )
