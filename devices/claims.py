"""Claim codes: made once, shown once, and after that only good for recognising a device.

What is kept is the lookup id and the derived MAC key, wrapped; the secret is forgotten as soon as it is printed.
"""

import csv
import io
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from devices.classes import get_class
from devices.models import Claim, DeviceClass, Federation, Site
from keys import vault
from keys.selectors import trust_anchor
from latticeward.claim_code import LOOKUP_ID_BYTES, SECRET_BYTES, ClaimCode, lookup_text
from latticeward.crypto.public_key import speakable
from latticeward.errors import InvalidValueError, NotFoundError, UnknownDeviceClassError, UnknownSiteError

BULK_LIMIT: Final = 1_000
_COLUMNS: Final = frozenset({"site", "device_class", "count", "fingerprint"})


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One line of a bulk order: site slug, device class, how many codes, and the one key that may use the code."""

    site: str
    device_class: str
    count: int = 1
    fingerprint: str = ""
    line: int = 0


def create_claim(
    *,
    site: Site,
    device_class: str,
    actor: str,
    auto_approve: bool | None = None,
    lifetime: timedelta | None = None,
    bound_to: str = "",
) -> tuple[Claim, ClaimCode]:
    """Make the right to enrol one machine, once.

    Args:
        site: the hospital whose machine it will be.
        device_class: slug of one of the federation's classes; goes into the claim, not into the certificate.
        auto_approve: whether the machine becomes a device without a person comparing fingerprints; None for what the
            class says when the code is used.
        lifetime: at most ``LATTICEWARD_CLAIM_HOURS``, which is also what None means.
        bound_to: fingerprint of the one signing key that may use the code, as the agent prints it; empty for any key.

    Returns:
        The row, and the code: the only time that its secret can be seen.

    Raises:
        UnknownDeviceClassError: the federation has no such class.
        InvalidValueError: a lifetime over the limit, or what is no fingerprint.
        CustodyError: the authority has not been initialised.
    """
    kind = get_class(federation=site.federation, slug=device_class)
    return _create(
        site, kind, actor=actor, auto_approve=auto_approve, lifetime=lifetime, fingerprint=read_fingerprint(bound_to)
    )


def create_claims(
    *,
    federation: Federation,
    rows: Sequence[ClaimRow],
    actor: str,
    auto_approve: bool | None = None,
    lifetime: timedelta | None = None,
) -> list[tuple[Claim, ClaimCode]]:
    """Make the codes of a whole order, or none of them.

    Raises:
        UnknownSiteError, UnknownDeviceClassError: a row names what the federation does not have; the text says which.
        InvalidValueError: more than ``BULK_LIMIT`` codes, several codes for one key, or a lifetime over the limit.
    """
    if sum(row.count for row in rows) > BULK_LIMIT:
        raise InvalidValueError(f"An order has at most {BULK_LIMIT} codes.")
    sites = {site.slug: site for site in Site.objects.filter(federation=federation).select_related("federation")}
    kinds = {kind.slug: kind for kind in federation.device_classes.all()}
    made: list[tuple[Claim, ClaimCode]] = []
    with transaction.atomic():
        for row in rows:
            if row.site not in sites:
                raise UnknownSiteError(f"{_line(row)}there is no hospital {row.site[:63]!r}.")
            if row.device_class not in kinds:
                raise UnknownDeviceClassError(f"{_line(row)}there is no device class {row.device_class[:63]!r}.")
            if row.fingerprint and row.count != 1:
                raise InvalidValueError(f"{_line(row)}a code that is bound to a key is ordered once.")
            for _ in range(row.count):
                made.append(
                    _create(
                        sites[row.site],
                        kinds[row.device_class],
                        actor=actor,
                        auto_approve=auto_approve,
                        lifetime=lifetime,
                        fingerprint=row.fingerprint,
                    )
                )
    return made


def parse_rows(text: str) -> list[ClaimRow]:
    """Read an order from CSV with the columns ``site``, ``device_class`` and optionally ``count``, ``fingerprint``.

    Columns are parted by commas, or by semicolons as some spreadsheets do.

    Raises:
        InvalidValueError: other columns, or a line that cannot be read; the text names the line.
    """
    text = text.removeprefix("\ufeff")
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in first else ",", strict=True)
    rows: list[ClaimRow] = []
    try:
        columns = reader.fieldnames or ()
        if not {"site", "device_class"} <= set(columns) <= _COLUMNS or len(set(columns)) != len(columns):
            raise InvalidValueError(
                "The first line names the columns site, device_class and optionally count and fingerprint."
            )
        for values in reader:
            rows.append(_read_row(values, reader.line_num))
    except csv.Error as exc:
        raise InvalidValueError(f"Line {reader.line_num} of the order is no CSV.") from exc
    if not rows:
        raise InvalidValueError("The order has no line under its first.")
    return rows


def _read_row(values: dict[str | Any, Any], line: int) -> ClaimRow:
    # Cells beyond the columns come under the name None; missing ones are as good as empty.
    if None in values:
        raise InvalidValueError(f"Line {line} of the order has more cells than columns.")
    cells = {name: (cell or "").strip() for name, cell in values.items()}
    site, device_class, count = cells["site"], cells["device_class"], cells.get("count") or "1"
    if not site or not device_class:
        raise InvalidValueError(f"Line {line} of the order names no hospital or no device class.")
    if not (count.isascii() and count.isdecimal() and len(count) < 5 and 1 <= int(count) <= BULK_LIMIT):
        raise InvalidValueError(f"Line {line} of the order: the count is a number from 1 to {BULK_LIMIT}.")
    try:
        fingerprint = read_fingerprint(cells.get("fingerprint", ""))
    except InvalidValueError as exc:
        raise InvalidValueError(f"Line {line} of the order: {exc}") from exc
    return ClaimRow(site, device_class, int(count), fingerprint, line)


def read_fingerprint(text: str) -> str:
    """A fingerprint as people copy it, in the form that the agent prints; empty stays empty.

    Raises:
        InvalidValueError: not 32 hex digits.
    """
    digits = "".join(text.split()).lower()
    if digits and re.fullmatch(r"[0-9a-f]{32}", digits) is None:
        raise InvalidValueError("A fingerprint is eight groups of four hex digits, as the agent prints it.")
    return speakable(bytes.fromhex(digits)) if digits else ""


def lookup_of(claim: Claim) -> str:
    """The name of a claim for people: eight characters that open nothing."""
    return lookup_text(bytes.fromhex(claim.lookup_id))


def _line(row: ClaimRow) -> str:
    return f"Line {row.line} of the order: " if row.line else "In the order "


def _create(
    site: Site,
    kind: DeviceClass,
    *,
    actor: str,
    auto_approve: bool | None,
    lifetime: timedelta | None,
    fingerprint: str,
) -> tuple[Claim, ClaimCode]:
    longest = timedelta(hours=settings.CLAIM_HOURS)
    lifetime = longest if lifetime is None else lifetime
    if not timedelta(minutes=1) <= lifetime <= longest:
        raise InvalidValueError(f"A claim code lives from one minute to {settings.CLAIM_HOURS} hours.")
    now = timezone.now()
    code = ClaimCode(
        lookup_id=secrets.token_bytes(LOOKUP_ID_BYTES),
        secret=secrets.token_bytes(SECRET_BYTES),
        anchor=trust_anchor().fingerprint,
        server=settings.PUBLIC_URL,
        site=site.slug,
        device_class=kind.slug,
    )
    identity = uuid4()
    with transaction.atomic():
        claim = Claim(
            id=identity,
            lookup_id=code.lookup_id.hex(),
            site=site,
            device_class=kind,
            auto_approve=auto_approve,
            bound_fingerprint=fingerprint,
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
                "device_class": kind.slug,
                "auto_approve": auto_approve,
                "bound_to": fingerprint,
                "expires_at": claim.expires_at.isoformat().replace("+00:00", "Z"),
            },
        )
    return claim, code


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
            details={"lookup": lookup_of(claim)},
        )
