"""The claim code: what a hospital is handed so that its first message can be believed, and the server's too.

It carries a lookup id (40 bits, public), a secret (128 bits), and the trust anchor's fingerprint: the first 64 bits
in the form that a person types, the whole of it in the form that a machine reads. The secret never travels. The
device sends the lookup id and a MAC under a key derived from the secret; the server keeps only that derived key.

Typed form: 50 characters of Crockford base32 in ten groups of five. They are the 250 bits
``lookup id (40) | secret (128) | anchor prefix (64) | checksum (18)``, most significant first; the checksum is the
head of SHA-256 over a label and the 29 bytes before it. It finds typing errors and proves nothing.

Machine form: one line ``latticeward-claim:v1?server=…&anchor=…&code=…`` with the optional ``site`` and ``class``. The
scheme is one that no browser or mail scanner fetches, so that the secret cannot slip into somebody's request log.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from latticeward.crypto.wrapping import derive_key
from latticeward.errors import MalformedMessageError, UntrustedIssuerError

LOOKUP_ID_BYTES: Final = 5
SECRET_BYTES: Final = 16
ANCHOR_PREFIX_BYTES: Final = 8
ANCHOR_BYTES: Final = 32

_BODY_BYTES: Final = LOOKUP_ID_BYTES + SECRET_BYTES + ANCHOR_PREFIX_BYTES
_CHECKSUM_BITS: Final = 18
_GROUP_CHARS: Final = 5
_CODE_CHARS: Final = 50
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Crockford's table: letters that people confuse with digits are read as those digits.
_READ_AS: Final = str.maketrans("ILO", "110", "- \t\r\n")
_SCHEME: Final = "latticeward-claim:v1?"
_SERVER: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_URI_LIMIT_CHARS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClaimCode:
    """One claim code, in whichever form it came.

    Attributes:
        lookup_id: 5 bytes; names the claim, opens nothing.
        secret: 16 bytes; never printed by ``repr``, never sent.
        anchor: the trust anchor's fingerprint, 32 bytes, or only its first 8 if the code was typed.
        server: base URL, ``scheme://host[:port]``; empty if the code was typed.
        site: slug of the hospital that the claim was made for; empty if the code does not say.
        device_class: class of device that the claim was made for; empty if the code does not say.
    """

    lookup_id: bytes
    secret: bytes = field(repr=False)
    anchor: bytes
    server: str = ""
    site: str = ""
    device_class: str = ""

    def __post_init__(self) -> None:
        if len(self.lookup_id) != LOOKUP_ID_BYTES or len(self.secret) != SECRET_BYTES:
            raise MalformedMessageError("a claim code has a lookup id of 5 bytes and a secret of 16")
        if len(self.anchor) not in (ANCHOR_PREFIX_BYTES, ANCHOR_BYTES):
            raise MalformedMessageError("a claim code holds 8 or 32 bytes of the anchor's fingerprint")
        if self.server and not _is_server(self.server):
            raise MalformedMessageError("the claim's server is not http(s)://host[:port] in lower case")
        for slug in (self.site, self.device_class):
            if slug and _SLUG.fullmatch(slug) is None:
                raise MalformedMessageError("a site or device class holds lower-case letters, digits and hyphens")

    @property
    def authority(self) -> str:
        """Host and port of the server, as they stand in a Host header; empty if the code was typed."""
        return urlsplit(self.server).netloc

    @property
    def mac_key(self) -> bytes:
        """The 32-byte key of both enrolment MACs; the server stores this, wrapped, and not the secret."""
        return derive_key(self.secret, label="latticeward/claim-mac-key/v1")

    def verify_anchor(self, fingerprint: bytes) -> None:
        """Compare a server's trust anchor with the one that this code promises.

        Args:
            fingerprint: key id of the anchor that the server showed, 32 bytes.

        Raises:
            UntrustedIssuerError: another anchor.
        """
        if len(fingerprint) != ANCHOR_BYTES or not hmac.compare_digest(fingerprint[: len(self.anchor)], self.anchor):
            raise UntrustedIssuerError("the server's trust anchor is not the one that the claim code names")


def format_code(claim: ClaimCode) -> str:
    """The typed form: ten groups of five characters."""
    body = claim.lookup_id + claim.secret + claim.anchor[:ANCHOR_PREFIX_BYTES]
    number = int.from_bytes(body, "big") << _CHECKSUM_BITS | _checksum(body)
    digits = "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_CODE_CHARS)))
    return "-".join(digits[start : start + _GROUP_CHARS] for start in range(0, _CODE_CHARS, _GROUP_CHARS))


def parse_code(text: str) -> ClaimCode:
    """Read the typed form; case, spaces, hyphens and the letters I, L, O are forgiven.

    Raises:
        MalformedMessageError: not a claim code, or a typing error in it.
    """
    digits = text.upper().translate(_READ_AS)
    if len(digits) != _CODE_CHARS or any(digit not in _ALPHABET for digit in digits):
        raise MalformedMessageError("a claim code has 50 letters and digits, in ten groups of five, and no U")
    number = 0
    for digit in digits:
        number = number << 5 | _ALPHABET.index(digit)
    body = (number >> _CHECKSUM_BITS).to_bytes(_BODY_BYTES, "big")
    if number & (1 << _CHECKSUM_BITS) - 1 != _checksum(body):
        raise MalformedMessageError("the claim code has a typing error: its checksum does not fit")
    return ClaimCode(
        lookup_id=body[:LOOKUP_ID_BYTES],
        secret=body[LOOKUP_ID_BYTES : LOOKUP_ID_BYTES + SECRET_BYTES],
        anchor=body[LOOKUP_ID_BYTES + SECRET_BYTES :],
    )


def format_uri(claim: ClaimCode) -> str:
    """The machine form, for a QR code or a file; needs the server and the whole anchor fingerprint.

    Raises:
        MalformedMessageError: the code knows only part of the anchor or no server.
    """
    if not claim.server or len(claim.anchor) != ANCHOR_BYTES:
        raise MalformedMessageError("the machine form needs the server's address and the whole fingerprint")
    fields = {"server": claim.server, "anchor": claim.anchor.hex(), "code": format_code(claim)}
    optional = {"site": claim.site, "class": claim.device_class}
    fields |= {name: value for name, value in optional.items() if value}
    return _SCHEME + urlencode(fields, quote_via=quote)


def parse_uri(text: str) -> ClaimCode:
    """Read the machine form.

    Raises:
        MalformedMessageError: not that form, a field twice or unknown, or fingerprint and code contradict each other.
    """
    line = text.strip()
    if not line.startswith(_SCHEME) or len(line) > _URI_LIMIT_CHARS:
        raise MalformedMessageError("this is not a claim of version 1")
    try:
        pairs = parse_qsl(line.removeprefix(_SCHEME), strict_parsing=True, max_num_fields=5)
    except ValueError as exc:
        raise MalformedMessageError("the claim's fields cannot be read") from exc
    fields = dict(pairs)
    unknown = fields.keys() - {"server", "anchor", "code", "site", "class"}
    if len(fields) != len(pairs) or unknown or not {"server", "anchor", "code"} <= fields.keys():
        raise MalformedMessageError("the claim's fields are not server, anchor, code and optionally site and class")
    if re.fullmatch(r"[0-9a-f]{64}", fields["anchor"]) is None:
        raise MalformedMessageError("the claim's anchor is not 64 hex digits")
    typed = parse_code(fields["code"])
    anchor = bytes.fromhex(fields["anchor"])
    if anchor[:ANCHOR_PREFIX_BYTES] != typed.anchor:
        raise MalformedMessageError("the claim's code and its anchor fingerprint belong to different federations")
    return ClaimCode(
        lookup_id=typed.lookup_id,
        secret=typed.secret,
        anchor=anchor,
        server=fields["server"],
        site=fields.get("site", ""),
        device_class=fields.get("class", ""),
    )


def parse_claim(text: str) -> ClaimCode:
    """Read either form; in a file, lines that start with ``#`` are remarks.

    Raises:
        MalformedMessageError: neither form.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = " ".join(lines)
    return parse_uri(joined) if joined.strip().startswith("latticeward-claim:") else parse_code(joined)


def lookup_text(lookup_id: bytes) -> str:
    """The lookup id as eight Crockford characters, for screens and logs."""
    number = int.from_bytes(lookup_id, "big")
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(8)))


def _is_server(url: str) -> bool:
    if _SERVER.fullmatch(url) is None:
        return False
    try:
        # Brackets around what is no IPv6 address, and ports above 65535, are refused here and not at their first use.
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _checksum(body: bytes) -> int:
    head = hashlib.sha256(b"latticeward/claim-checksum/v1\x00" + body).digest()
    return int.from_bytes(head[:4], "big") >> 32 - _CHECKSUM_BITS
