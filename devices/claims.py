"""Claim codes: made once, shown once, and after that only good for recognising a device.

What is kept is the lookup id and the derived MAC key, wrapped; the secret is forgotten as soon as it is printed.
"""

import csv
import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from devices.classes import get_class
from devices.models import Claim, Federation, Site
from keys import vault
from keys.selectors import trust_anchor
from latticeward.claim_code import LOOKUP_ID_BYTES, SECRET_BYTES, ClaimCode, lookup_text
from latticeward.errors import MalformedMessageError, NotFoundError, StateError

CLAIM_LIFETIME: Final = timedelta(hours=24)
BULK_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One line of a bulk order: site slug, device class, and how many codes."""

    site: str
    device_class: str
    count: int


def create_claim(
    *,
    site: Site,
    device_class: str,
    actor: str,
    auto_approve: bool | None = None,
    lifetime: timedelta = CLAIM_LIFETIME,
) -> tuple[Claim, ClaimCode]:
    """Make the right to enrol one machine, once.

    Args:
        site: the hospital whose machine it will be.
        device_class: slug of one of the federation's classes; goes into the claim, not into the certificate.
        auto_approve: whether the machine becomes a device without a person comparing fingerprints; None for what the
            class says when the code is used.
        lifetime: at most 24 hours.

    Returns:
        The row, and the code: the only time that its secret can be seen.

    Raises:
        UnknownDeviceClassError: the federation has no such class.
        StateError: a lifetime over the limit.
        CustodyError: the authority has not been initialised.
    """
    kind = get_class(federation=site.federation, slug=device_class)
    if not timedelta(0) < lifetime <= CLAIM_LIFETIME:
        raise StateError("a claim lives for 24 hours at most")
    now = timezone.now()
    code = ClaimCode(
        lookup_id=secrets.token_bytes(LOOKUP_ID_BYTES),
        secret=secrets.token_bytes(SECRET_BYTES),
        anchor=trust_anchor().fingerprint,
        server=settings.PUBLIC_URL,
        site=site.slug,
        device_class=device_class,
    )
    identity = uuid4()
    with transaction.atomic():
        claim = Claim(
            id=identity,
            lookup_id=code.lookup_id.hex(),
            site=site,
            device_class=kind,
            auto_approve=auto_approve,
            wrapped_key=vault.wrap(code.mac_key, purpose="claim", row_id=str(identity)),
            created_by=actor,
            created_at=now,
            expires_at=now + lifetime,
        )
        claim.save(force_insert=True)
        record(
            "claim.created",
            actor=actor,
            feed=site.federation.feed,
            subject=("claim", claim.id),
            details={
                "lookup": lookup_text(code.lookup_id),
                "site": site.name,
                "device_class": device_class,
                "auto_approve": auto_approve,
                "expires_at": claim.expires_at.isoformat().replace("+00:00", "Z"),
            },
        )
    return claim, code


def create_claims(
    *, federation: Federation, rows: Sequence[ClaimRow], actor: str, auto_approve: bool | None = None
) -> list[tuple[Claim, ClaimCode]]:
    """Make the codes of a whole order, or none of them.

    Raises:
        NotFoundError: a row names a site that the federation does not have.
        UnknownDeviceClassError: or a class.
        StateError: more than ``BULK_LIMIT`` codes.
    """
    if sum(row.count for row in rows) > BULK_LIMIT:
        raise StateError(f"an order has at most {BULK_LIMIT} codes")
    sites = {site.slug: site for site in Site.objects.filter(federation=federation).select_related("federation")}
    made: list[tuple[Claim, ClaimCode]] = []
    with transaction.atomic():
        for row in rows:
            if row.site not in sites:
                raise NotFoundError(f"the federation has no site {row.site!r}")
            for _ in range(row.count):
                made.append(
                    create_claim(
                        site=sites[row.site],
                        device_class=row.device_class,
                        actor=actor,
                        auto_approve=auto_approve,
                    )
                )
    return made


def parse_rows(text: str) -> list[ClaimRow]:
    """Read an order from CSV with the columns ``site``, ``device_class`` and optionally ``count``.

    Raises:
        MalformedMessageError: no such columns, or a line that cannot be read; the message names the line.
    """
    reader = csv.DictReader(io.StringIO(text))
    if not {"site", "device_class"} <= set(reader.fieldnames or ()):
        raise MalformedMessageError("the first line must name the columns site, device_class and optionally count")
    rows: list[ClaimRow] = []
    for values in reader:
        count = (values.get("count") or "1").strip()
        site, device_class = (values["site"] or "").strip(), (values["device_class"] or "").strip()
        if not site or not device_class or not count.isdecimal() or not 1 <= int(count) <= BULK_LIMIT:
            raise MalformedMessageError(f"line {reader.line_num} of the order cannot be read")
        rows.append(ClaimRow(site, device_class, int(count)))
    return rows


def cancel_claim(*, claim_id: UUID, actor: str) -> None:
    """Make an unused code worthless.

    Raises:
        NotFoundError: no such claim, or it was used.
    """
    with transaction.atomic():
        changed = Claim.objects.filter(pk=claim_id, consumed_at=None).update(
            consumed_at=timezone.now(), wrapped_key=None
        )
        if changed != 1:
            raise NotFoundError(f"there is no unused claim {claim_id}")
        claim = Claim.objects.select_related("site__federation").get(pk=claim_id)
        record(
            "claim.cancelled",
            actor=actor,
            feed=claim.site.federation.feed,
            subject=("claim", claim_id),
            details={"lookup": lookup_text(bytes.fromhex(claim.lookup_id))},
        )
