"""Bytes as text in JSON and addresses: base64url without padding (RFC 4648, section 5), in its only canonical form."""

import base64
import binascii

from latticeward.errors import MalformedMessageError


def encode_base64url(raw: bytes) -> str:
    """The text of some bytes."""
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def decode_base64url(text: str) -> bytes:
    """The bytes of a text.

    Raises:
        MalformedMessageError: padding, another alphabet, or bits that a writer would have left zero.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedMessageError("not base64url") from exc
    if encode_base64url(raw) != text:
        raise MalformedMessageError("not base64url in its canonical form")
    return raw
