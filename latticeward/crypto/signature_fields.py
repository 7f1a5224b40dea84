"""The two header fields of RFC 9421 as this product writes them: Signature-Input and Signature.

A narrow grammar: parameters stand in one fixed order, every value has one spelling, and the two labels come in one
order. What does not match is refused, so that there is nothing to normalise and nothing to disagree about.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from latticeward.errors import MalformedMessageError

_PARAMETERS: Final = re.compile(
    r"\((?P<components>\"[a-z@-]{1,40}\"(?: \"[a-z@-]{1,40}\")*)\)"
    r";created=(?P<created>[1-9][0-9]{8,11});expires=(?P<expires>[1-9][0-9]{8,11})"
    r";nonce=\"(?P<nonce>[A-Za-z0-9_-]{22})\";keyid=\"(?P<key_id>[0-9a-f]{64})\""
    r";alg=\"(?P<algorithm>[a-z0-9-]{1,20})\";tag=\"(?P<tag>[a-z0-9-]{1,40})\""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureParameters:
    """What one label of Signature-Input says. ``created`` and ``expires`` in unix seconds."""

    components: tuple[str, ...]
    created: int
    expires: int
    nonce: str
    key_id: str
    algorithm: str
    tag: str

    def __str__(self) -> str:
        names = " ".join(f'"{name}"' for name in self.components)
        return (
            f'({names});created={self.created};expires={self.expires};nonce="{self.nonce}";'
            f'keyid="{self.key_id}";alg="{self.algorithm}";tag="{self.tag}"'
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the value of one label.

        Raises:
            MalformedMessageError: not in this profile's form.
        """
        match = _PARAMETERS.fullmatch(text)
        if match is None:
            raise MalformedMessageError("Signature-Input is not in this profile's form")
        return cls(
            components=tuple(match["components"].replace('"', "").split(" ")),
            created=int(match["created"]),
            expires=int(match["expires"]),
            nonce=match["nonce"],
            key_id=match["key_id"],
            algorithm=match["algorithm"],
            tag=match["tag"],
        )


def signature_base(components: Iterable[tuple[str, str]], parameters: str) -> bytes:
    """The bytes that are signed, RFC 9421 section 2.5.

    Args:
        components: (identifier, value) in the order of the signature's list.
        parameters: the serialised list with its parameters, as in Signature-Input after the label.
    """
    lines = [f'"{identifier}": {value}' for identifier, value in components]
    lines.append(f'"@signature-params": {parameters}')
    return "\n".join(lines).encode("ascii")


def join_labels(pq: str, cl: str) -> str:
    """The value of a header that holds both labels."""
    return f"pq={pq}, cl={cl}"


def split_labels(value: str) -> tuple[str, str]:
    """Take both labels apart; nothing in this profile's values holds a comma.

    Raises:
        MalformedMessageError: a label is missing, repeated, unknown or in the other order.
    """
    items = value.split(", ")
    if len(items) != 2 or not items[0].startswith("pq=") or not items[1].startswith("cl="):
        raise MalformedMessageError("a signature header holds the labels pq and cl, in this order, once each")
    return items[0].removeprefix("pq="), items[1].removeprefix("cl=")


def encode_signature(signature: bytes) -> str:
    """A byte sequence of RFC 9651: base64 between colons."""
    return f":{base64.b64encode(signature).decode('ascii')}:"


def decode_signature(item: str) -> bytes:
    """The bytes of a byte sequence.

    Raises:
        MalformedMessageError: not base64 between colons.
    """
    if len(item) < 2 or item[0] != ":" or item[-1] != ":":
        raise MalformedMessageError("a signature is a byte sequence between colons")
    try:
        return base64.b64decode(item[1:-1], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedMessageError("a signature is not base64") from exc
