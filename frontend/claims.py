"""Claim codes as pages show them: which are open, which were used, and whether somebody tries wrong ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import Exists, OuterRef

from devices.claims import lookup_of
from devices.enrolment import refusals_of
from devices.handout import claim_file, qr_svg
from devices.models import Claim, Enrolment, Federation
from frontend.words import Word, word_of
from latticeward.claim_code import ClaimCode, format_code, format_uri

SHOWN: Final = 200
# Drawing one takes some 40 ms; a larger order is printed without, its file holds the machine form of every code.
DRAWN: Final = 50


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One claim without its secret."""

    claim: Claim
    lookup: str
    state: Word
    refusals: int

    @property
    def may_cancel(self) -> bool:
        return self.claim.consumed_at is None


@dataclass(frozen=True, slots=True)
class Handout:
    """One claim with its secret, for the one page that shows it."""

    claim: Claim
    lookup: str
    code: str
    uri: str
    anchor: str
    server: str
    qr: str
    file: str


def read_claims(federation: Federation | None, *, now: datetime) -> list[ClaimRow]:
    """The newest claims; one query and one question to the cache."""
    if federation is None:
        return []
    used = Enrolment.objects.filter(claim=OuterRef("pk"), finished_at__isnull=False)
    claims = list(
        Claim.objects.filter(site__federation=federation)
        .annotate(was_used=Exists(used))
        .select_related("site", "device_class")
        .order_by("-created_at")[:SHOWN]
    )
    refusals = refusals_of(claims)
    return [
        ClaimRow(claim, lookup_of(claim), word_of("claim", _state(claim, now)), refusals.get(claim.id, 0))
        for claim in claims
    ]


def hand_out(made: Sequence[tuple[Claim, ClaimCode]]) -> list[Handout]:
    """What the page prints for each code, with QR codes for the first ``DRAWN``."""
    return [
        Handout(
            claim=claim,
            lookup=lookup_of(claim),
            code=format_code(code),
            uri=format_uri(code),
            anchor=code.anchor.hex(),
            server=code.server,
            qr=qr_svg(code) if place < DRAWN else "",
            file=claim_file(code),
        )
        for place, (claim, code) in enumerate(made)
    ]


def _state(claim: Claim, now: datetime) -> str:
    if claim.consumed_at is not None:
        return "used" if claim.was_used else "cancelled"  # type: ignore[attr-defined]
    if claim.expires_at <= now:
        return "expired"
    return "reserved" if claim.reserved_until is not None and claim.reserved_until > now else "open"
