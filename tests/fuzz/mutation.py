"""Mutators that know the formats: they change what a message says and leave its form whole.

Blind changes to a canonical form are nearly always refused by the form itself, and the checks behind it would hardly
ever see an input. So half of all inputs are libFuzzer's blind changes, and half are made here: taken apart, changed in
one place, and put together again with all lengths right. Every choice follows from libFuzzer's seed.
"""

import random
import re
from collections.abc import Callable
from typing import Any, Final

import atheris
import cbor2

from latticeward.crypto.envelope_format import FRONT_BYTES, MAGIC

Mutator = Callable[[bytes, int, int], bytes]

_GROWTH_BYTES: Final = 16
_NUMBERS: Final = (0, 1, 2, -1, 23, 24, 255, 256, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
_FLOATS: Final = (0.0, -0.0, 0.5, 5e-324, 1e308, -1e308, float("inf"), float("nan"))
_TEXTS: Final = ("", "hybrid", "high", "mldsa65-ed25519", "mldsa87-p384", "zeros", "é", "\x00", "\u202e", "x" * 99)
_STRINGS: Final = (b"", b"\x00", bytes(16), bytes(32), b"\xff" * 32, bytes(1952))
_OTHERS: Final = (None, True, False, [], {}, [[[[[[[[[]]]]]]]]], {1: 2}, cbor2.undefined, cbor2.CBORSimpleValue(99))
_ODD: Final = (*_NUMBERS, *_FLOATS, *_TEXTS, *_STRINGS, *_OTHERS, cbor2.CBORTag(1, 0), cbor2.CBORTag(2, b"\x01"))
_TOKENS: Final = ("", "0", "-1", "65536", "9" * 20, "[::1]", "[:::]", "é", "\u2028", "\x00", "%00", "A" * 50)
_TAGS: Final = (0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x13, 0x17, 0x18, 0x30, 0x31, 0x80, 0xA0, 0xA1, 0xA3)
_SEPARATORS: Final = re.compile(r"([\n ,;=&:?/.\"-]+)")


def _half_of_the_time(change: Callable[[bytes, random.Random], bytes]) -> Mutator:
    def mutate(data: bytes, limit_bytes: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            try:
                changed = change(data, chance)
            except (ValueError, TypeError, IndexError, OverflowError, RecursionError, cbor2.CBORError):
                changed = b""  # not of the format any more, as inputs of the blind half are
            if 0 < len(changed) <= limit_bytes:
                return changed
        return atheris.Mutate(data, limit_bytes)

    return mutate


def _change_cbor(data: bytes, chance: random.Random) -> bytes:
    # The library writes a map that is the key of a map twice, and so on inwards: every level doubles the time.
    return cbor2.dumps(_changed(cbor2.loads(data, max_depth=12), chance), canonical=True)


def _changed(value: Any, chance: random.Random) -> Any:
    """The value with one change somewhere in it; byte strings that hold CBOR are entered too."""
    match value:
        case dict() if value:
            return _changed_map(value, chance)
        case list() if value:
            return _changed_list(value, chance)
        case bytes() if value and value[0] >> 5 in (4, 5) and chance.random() < 0.8:
            try:
                return _change_cbor(value, chance)
            except (ValueError, cbor2.CBORError):
                return _blind(value)
        case bytes() | str() if chance.random() < 0.7:
            return _blind(value) if isinstance(value, bytes) else _blind(value.encode()).decode("utf-8", "replace")
        case int() | float() if chance.random() < 0.4:
            return value + chance.choice((-1, 1))
    return chance.choice(_ODD)


def _changed_map(value: dict[Any, Any], chance: random.Random) -> dict[Any, Any]:
    changed, name = dict(value), chance.choice(list(value))
    match chance.randrange(10):
        case 0:
            del changed[name]
        case 1:
            changed[chance.choice(("", "v", "type", "x", f"{name}_", 7))] = changed[name]
        case 2:
            other = chance.choice(list(value))
            changed[name], changed[other] = changed[other], changed[name]
        case _:
            changed[name] = _changed(changed[name], chance)
    return changed


def _changed_list(value: list[Any], chance: random.Random) -> list[Any]:
    changed, place = list(value), chance.randrange(len(value))
    match chance.randrange(10):
        case 0:
            del changed[place]
        case 1:
            changed.insert(chance.randrange(len(value) + 1), changed[place])
        case 2:
            chance.shuffle(changed)
        case 3:
            changed *= chance.choice((2, 5))
        case _:
            changed[place] = _changed(changed[place], chance)
    return changed


def _blind(value: bytes) -> bytes:
    return bytes(atheris.Mutate(value, len(value) + _GROWTH_BYTES))


def _change_envelope(data: bytes, chance: random.Random) -> bytes:
    end = FRONT_BYTES + int.from_bytes(data[len(MAGIC) : FRONT_BYTES], "big")
    prefix, rest = data[FRONT_BYTES:end], data[end:]
    if chance.random() < 0.8:
        prefix = _change_cbor(prefix, chance)
    else:
        rest = _blind(rest)
    return MAGIC + len(prefix).to_bytes(4, "big") + prefix + rest


def _change_text(data: bytes, chance: random.Random) -> bytes:
    words = _SEPARATORS.split(data.decode())
    place = chance.randrange(len(words))
    match chance.randrange(6):
        case 0:
            del words[place]
        case 1:
            words.insert(chance.randrange(len(words)), words[place])
        case 2:
            words[place] = chance.choice(words)
        case 3:
            words[place] = chance.choice(_TOKENS)
        case 4:
            start = chance.randrange(len(words))
            words[place:place] = words[start : start + 6]
        case _:
            words[place] = _blind(words[place].encode()).decode("utf-8", "replace")
    return "".join(words).encode()


def _change_der(data: bytes, chance: random.Random) -> bytes:
    roots = _read_der(data)
    nodes = list(_walk(roots))
    siblings, place = chance.choice(nodes)
    tag, content = siblings[place]
    match chance.randrange(7):
        case 0:
            del siblings[place]
        case 1:
            siblings.insert(place, [tag, content])
        case 2:
            others, other = chance.choice(nodes)
            siblings[place] = list(others[other])
        case 3:
            siblings[place][0] = chance.choice(_TAGS)
        case 4:
            siblings[place][1] = b""
        case _ if isinstance(content, bytes):
            siblings[place][1] = _blind(content) if content else b"\x00"
        case _:
            chance.shuffle(content)
    return _write_der(roots)


def _read_der(data: bytes) -> list[list[Any]]:
    """A list of [tag, content], where content is bytes or again such a list; extensions in octet strings are read."""
    found, place = [], 0
    while place < len(data):
        tag, length, place = data[place], data[place + 1], place + 2
        if length & 0x80:
            size = length & 0x7F
            if not 0 < size <= 3:
                raise ValueError("a length of this many bytes")
            length, place = int.from_bytes(data[place : place + size], "big"), place + size
        content: Any = data[place : place + length]
        if len(content) != length:
            raise ValueError("cut short")
        place += length
        if tag & 0x20:
            content = _read_der(content)
        elif tag == 0x04 and content[:1] == b"\x30":
            try:
                content = _read_der(content)
            except (ValueError, IndexError):
                content = bytes(content)
        found.append([tag, content])
    return found


def _walk(siblings: list[list[Any]]) -> Any:
    for place, (_, content) in enumerate(siblings):
        yield siblings, place
        if isinstance(content, list):
            yield from _walk(content)


def _write_der(nodes: list[list[Any]]) -> bytes:
    written = b""
    for tag, content in nodes:
        raw = _write_der(content) if isinstance(content, list) else content
        size = (len(raw).bit_length() + 7) // 8
        length = bytes([len(raw)]) if len(raw) < 0x80 else bytes([0x80 | size]) + len(raw).to_bytes(size, "big")
        written += bytes([tag]) + length + raw
    return written


def resigned(certificate: bytes, sign: Callable[[bytes], bytes]) -> bytes | None:
    """The certificate with a signature that holds; None if it is no sequence of sequences."""
    try:
        ((tag, parts),) = _read_der(certificate)
        written = _write_der([parts[0]])
    except (ValueError, IndexError, TypeError):
        return None
    return _write_der([[tag, [parts[0], *parts[1:2], [0x03, b"\x00" + sign(written)]]]])


cbor = _half_of_the_time(_change_cbor)
envelope = _half_of_the_time(_change_envelope)
text = _half_of_the_time(_change_text)
der = _half_of_the_time(_change_der)


def blind(data: bytes, limit_bytes: int, seed: int) -> bytes:
    """libFuzzer's own changes, for formats without structure."""
    return bytes(atheris.Mutate(data, limit_bytes))
