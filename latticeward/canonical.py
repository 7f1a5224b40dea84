"""The one encoding of signed bytes: deterministic CBOR (RFC 8949, section 4.2.1), and labelled digests over it.

Two encoders that disagree about one byte make a signature that one end accepts and the other refuses, and a decoder
that accepts two spellings of one value lets somebody change a message's bytes without changing its meaning. So there
is one encoder, and the decoder refuses whatever the encoder would not have written. What the fields of a message
mean does not live here.
"""

import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn

import cbor2

from latticeward.errors import MalformedMessageError, MessageTooLargeError
from latticeward.hashing import feed

DEPTH_LIMIT: Final = 8
INTEGER_LOW: Final = -(2**63)
INTEGER_HIGH: Final = 2**64 - 1
# The major types that ``digest`` writes itself, in the upper three bits of an item's first byte.
_BYTES: Final = 2 << 5
_ARRAY: Final = 4 << 5

# The decoder of the library gives many tags a meaning (dates, big numbers, regular expressions, shared references).
# None of them is in our formats, and each is code that a stranger's bytes could reach: all are refused before they run.
# A tag without a meaning becomes a CBORTag value, which ``_plain`` refuses.
_KNOWN_TAGS: Final = (
    *range(6), *range(25, 38), 43, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799, 55800,
)  # fmt: skip


def encode(value: Any) -> bytes:
    """Write a value in its only encoding.

    Args:
        value: None, bool, int of at most 64 bits, finite float, str, bytes, list or tuple, mapping with str keys;
            nested at most ``DEPTH_LIMIT`` deep.

    Returns:
        Deterministic CBOR: shortest integers and floats, definite lengths, sorted keys.

    Raises:
        MalformedMessageError: a value of another kind, or out of range.
    """
    return _write(_plain(value, 0))


def decode(raw: bytes | memoryview, *, limit_bytes: int) -> Any:
    """Read bytes that ``encode`` could have written, and no others.

    1. The size is within the limit, before anything is parsed.
    2. Well formed, nested at most ``DEPTH_LIMIT`` deep, no indefinite lengths, no duplicate keys, no tags.
    3. Only the kinds of ``encode``, in range: no NaN, no infinity, no ``undefined``.
    4. Writing it again gives the same bytes, which leaves out every other spelling and everything that trails.

    Args:
        raw: bytes from outside.
        limit_bytes: the most that this kind of message may have.

    Returns:
        None, bool, int, float, str, bytes, list and dict.

    Raises:
        MessageTooLargeError: longer than the limit.
        MalformedMessageError: anything else that is wrong.
    """
    # 1
    if len(raw) > limit_bytes:
        raise MessageTooLargeError(f"{len(raw)} bytes, at most {limit_bytes} allowed")

    # 2
    try:
        value = cbor2.loads(
            raw,
            max_depth=DEPTH_LIMIT + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_NO_TAGS,
        )
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise MalformedMessageError("not well-formed CBOR") from error

    # 3 and 4
    if _write(_plain(value, 0)) != raw:
        raise MalformedMessageError("not the deterministic encoding, or bytes trail it")
    return value


def digest(label: str, *parts: bytes | memoryview) -> bytes:
    """SHA-256 of the encoded array of a label and parts: 32 bytes that mean one thing only.

    Args:
        label: what the digest is of, with its version, as ``latticeward/weights/v1``.
        parts: any number of byte strings of any length; a memoryview is of single bytes.
    """
    # Head by head instead of by ``encode``, which would copy a model's bytes twice before they are hashed.
    hasher = hashlib.sha256(_head(_ARRAY, 1 + len(parts)) + encode(label))
    for part in parts:
        hasher.update(_head(_BYTES, len(part)))
        feed(hasher, part)
    return hasher.digest()


def _head(kind: int, length: int) -> bytes:
    """The first bytes of an item: its kind and length in the shortest form (RFC 8949, section 3)."""
    if length < 24:
        return bytes([kind | length])
    size = next(size for size in (1, 2, 4, 8) if length < 1 << 8 * size)
    return bytes([kind | 23 + size.bit_length()]) + length.to_bytes(size, "big")


class Fields:
    """A reader over a decoded map that takes each field once, with its kind and bounds, and refuses leftovers.

    Args:
        value: what ``decode`` gave; anything but a map is refused.
        kind: what it is, for the message of the error.

    Raises:
        MalformedMessageError: from every method, when the field is missing, of another kind or out of bounds.
    """

    def __init__(self, value: Any, kind: str) -> None:
        self._kind = kind
        if not isinstance(value, Mapping):
            self._refuse("not a map")
        self._values: dict[str, Any] = dict(value)

    def text(self, name: str, *, limit_chars: int = 65_536) -> str:
        """A string of at most ``limit_chars`` characters."""
        value = self._take(name)
        if not isinstance(value, str) or len(value) > limit_chars:
            self._refuse(f"{name} is not a text of at most {limit_chars} characters")
        return value

    def bytes(self, name: str, length: int | None = None) -> bytes:
        """A byte string, of exactly ``length`` bytes where one is given."""
        value = self._take(name)
        if not isinstance(value, bytes) or (length is not None and len(value) != length):
            self._refuse(f"{name} is not a byte string{'' if length is None else f' of {length} bytes'}")
        return value

    def integer(self, name: str, low: int = 0, high: int = 2**63 - 1) -> int:
        """An integer with low <= value <= high; a boolean is not one."""
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._refuse(f"{name} is not an integer from {low} to {high}")
        return value

    def number(self, name: str) -> float:
        """A finite number; an integer is read as a float."""
        value = self._take(name)
        with suppress(OverflowError):
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(float(value)):
                return float(value)
        return self._refuse(f"{name} is not a finite number")

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            self._refuse(f"{name} is not a boolean")
        return value

    def list(self, name: str, *, limit: int | None = None) -> list[Any]:
        """A list of at most ``limit`` items where a limit is given."""
        value = self._take(name)
        if not isinstance(value, list) or (limit is not None and len(value) > limit):
            self._refuse(f"{name} is not a list{'' if limit is None else f' of at most {limit} items'}")
        return value

    def map(self, name: str) -> dict[str, Any]:
        """A map with text keys, as a plain dictionary; wrap it in ``Fields`` to read it."""
        value = self._take(name)
        if not isinstance(value, dict):
            self._refuse(f"{name} is not a map")
        return value

    def optional_text(self, name: str, *, limit_chars: int = 65_536) -> str | None:
        """As ``text``, or None when the field is null or absent."""
        return None if self._is_none(name) else self.text(name, limit_chars=limit_chars)

    # The annotations below are quoted because inside this class ``bytes``, ``list`` and ``map`` name its own methods.
    def optional_bytes(self, name: str, length: int | None = None) -> "_Bytes | None":
        """As ``bytes``, or None when the field is null or absent."""
        return None if self._is_none(name) else self.bytes(name, length)

    def optional_integer(self, name: str, low: int = 0, high: int = 2**63 - 1) -> int | None:
        """As ``integer``, or None when the field is null or absent."""
        return None if self._is_none(name) else self.integer(name, low, high)

    def optional_number(self, name: str) -> float | None:
        """As ``number``, or None when the field is null or absent."""
        return None if self._is_none(name) else self.number(name)

    def optional_map(self, name: str) -> dict[str, Any] | None:
        """As ``map``, or None when the field is null or absent."""
        return None if self._is_none(name) else self.map(name)

    def end(self) -> None:
        """Refuse fields that nobody read: an old reader must not pass over what a new writer meant."""
        if self._values:
            self._refuse(f"unknown fields {', '.join(sorted(map(str, self._values))[:4])}")

    def _is_none(self, name: str) -> bool:
        if self._values.get(name) is not None:
            return False
        self._values.pop(name, None)
        return True

    def _take(self, name: str) -> Any:
        if name not in self._values:
            self._refuse(f"{name} is missing, or was read twice")
        return self._values.pop(name)

    def _refuse(self, reason: str) -> NoReturn:
        raise MalformedMessageError(f"{self._kind}: {reason}")


_Bytes = bytes


def _write(plain: Any) -> bytes:
    # ``canonical=True`` sorts keys by the length of their encoding and then by its bytes (RFC 7049). RFC 8949 sorts by
    # the bytes of the encoded key alone. For text keys both orders are one: the encoding opens with the length in its
    # shortest form, so a longer key's first byte, or its length bytes after an equal first one, is greater. Map keys
    # here are text only; a test compares both orders.
    return cbor2.dumps(plain, canonical=True)


def _plain(value: Any, depth: int) -> Any:
    """The value in exact built-in types, or a refusal; recursion stops at the depth limit, long before Python's."""
    # What nearly every value is, by its exact type: asking for subclasses one by one takes most of the time here.
    kind = type(value)
    if kind is bytes or (kind is str and value.isascii()):
        return value
    if kind is dict and depth < DEPTH_LIMIT:
        return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bytes | bool):
        return value
    if isinstance(value, int):
        if not INTEGER_LOW <= value <= INTEGER_HIGH:
            raise MalformedMessageError("an integer does not fit in 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise MalformedMessageError("a number is not finite")
        return float(value)
    if depth >= DEPTH_LIMIT:
        raise MalformedMessageError(f"nested more than {DEPTH_LIMIT} deep, or a value of no encodable kind")
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
    raise MalformedMessageError(f"a value of type {type(value).__name__} has no encoding")


def _key(value: Any) -> str:
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise MalformedMessageError("a map key is not text")
    return _text(value)


def _text(value: str) -> str:
    # Lone surrogates exist in Python strings and not in UTF-8.
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise MalformedMessageError("a text is not valid Unicode") from error
    return str.__str__(value)


def _refuse_tag(*_: Any) -> NoReturn:
    raise MalformedMessageError("tags are not allowed")


_NO_TAGS: Final = dict.fromkeys(_KNOWN_TAGS, _refuse_tag)
