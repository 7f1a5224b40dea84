"""Claim codes on their way to a hospital: as a QR code, as a file for the agent, and as CSV.

Everything here holds the secret of a code. It is made for one answer, is never stored and never logged.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Final

import segno

from devices.models import Claim
from latticeward.claim_code import ClaimCode, format_code, format_uri, lookup_text

_COLUMNS: Final = ("site", "device_class", "lookup", "code", "uri", "bound_to", "expires_at")


def qr_svg(code: ClaimCode) -> str:
    """The machine form (server, anchor fingerprint, code) as an SVG element for a page or a file.

    Dark on white whatever the page's theme, with the quiet zone of four modules that readers need; a level of error
    correction of 15 % survives a fold in the paper.
    """
    drawn = io.BytesIO()
    segno.make(format_uri(code), error="m", micro=False).save(
        drawn, kind="svg", xmldecl=False, nl=False, border=4, dark="#000", light="#fff", omitsize=True
    )
    return drawn.getvalue().decode()


def claim_file(code: ClaimCode) -> str:
    """The file that ``latticeward-agent enrol --claim-file`` reads."""
    remarks = [
        f"# Claim code {lookup_text(code.lookup_id)} for {code.site}, {code.device_class}: good once. Keep it secret.",
        f"# Trust anchor {code.anchor.hex()}",
    ]
    return "\n".join([*remarks, format_uri(code), ""])


def code_row(claim: Claim, code: ClaimCode) -> dict[str, str]:
    """A code as a line of ``codes_csv``."""
    return {
        "site": code.site,
        "device_class": code.device_class,
        "lookup": lookup_text(code.lookup_id),
        "code": format_code(code),
        "uri": format_uri(code),
        "bound_to": claim.bound_fingerprint,
        "expires_at": claim.expires_at.isoformat().replace("+00:00", "Z"),
    }


def codes_csv(rows: Iterable[Mapping[str, str]]) -> str:
    """An order's codes as CSV with a first line of names; what else a row holds is left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
