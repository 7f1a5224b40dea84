import json
import math
from enum import StrEnum

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.errors import LatticewardError, MalformedMessageError, MessageTooLargeError
from tests.vectors.generate import HERE

LIMIT = 4096
FROZEN = json.loads((HERE / "canonical.json").read_text())
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def same(left: object, right: object) -> bool:
    return repr(left) == repr(right) or left == right


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_every_value_comes_back_as_it_was(value: object) -> None:
    try:
        raw = canonical.encode(value)
    except MalformedMessageError:
        return  # nested deeper than allowed
    assert same(canonical.decode(raw, limit_bytes=LIMIT), value)


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_every_strict_prefix_and_every_trailing_byte_is_refused(value: object) -> None:
    try:
        raw = canonical.encode(value)
    except MalformedMessageError:
        return
    for end in range(len(raw)):
        with pytest.raises(MalformedMessageError):
            canonical.decode(raw[:end], limit_bytes=LIMIT)
    with pytest.raises(MalformedMessageError):
        canonical.decode(raw + b"\x00", limit_bytes=LIMIT)


@given(st.binary(max_size=60))
@settings(max_examples=400, deadline=None)
def test_whatever_is_read_would_be_written_as_the_same_bytes(raw: bytes) -> None:
    try:
        value = canonical.decode(raw, limit_bytes=LIMIT)
    except LatticewardError:
        return
    assert canonical.encode(value) == raw


@given(st.dictionaries(TEXTS, st.integers(0, 5), max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_library_sorts_text_keys_as_rfc_8949_wants(value: dict[str, int]) -> None:
    # cbor2 sorts by length first (RFC 7049); for text keys that must equal the bytewise order of the encoded keys.
    keys = list(cbor2.loads(canonical.encode(value)))
    assert keys == sorted(value, key=lambda key: cbor2.dumps(key, canonical=True))


def test_keys_of_every_length_class_sort_bytewise() -> None:
    value = {letter * size: 0 for letter in "az" for size in (0, 1, 23, 24, 255, 256, 300)}
    keys = list(cbor2.loads(canonical.encode(value)))
    assert keys == sorted(value, key=lambda key: cbor2.dumps(key, canonical=True))


@pytest.mark.parametrize("case", FROZEN["accepted"], ids=lambda case: case["hex"][:24])
def test_frozen_encodings_hold(case: dict[str, object]) -> None:
    raw = bytes.fromhex(str(case["hex"]))
    assert canonical.encode(case["value"]) == raw
    assert same(canonical.decode(raw, limit_bytes=LIMIT), case["value"])


@pytest.mark.parametrize("case", FROZEN["refused"], ids=lambda case: case["why"])
def test_frozen_refusals_hold(case: dict[str, str]) -> None:
    with pytest.raises(MalformedMessageError):
        canonical.decode(bytes.fromhex(case["hex"]), limit_bytes=LIMIT)


def test_the_size_is_checked_before_anything_is_parsed() -> None:
    with pytest.raises(MessageTooLargeError):
        canonical.decode(b"\xff" * 11, limit_bytes=10)


@pytest.mark.parametrize("opening", [b"\x81", b"\xc1", b"\xda\x00\x01\x00\x00", b"\xa1\x60", b"\xd8\x1c"])
def test_deep_nesting_is_refused_whatever_nests(opening: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        canonical.decode(opening * 100_000 + b"\x00", limit_bytes=1_000_000)


def test_eight_levels_are_read_and_nine_are_not() -> None:
    eight: object = 0
    for _ in range(8):
        eight = [eight]
    raw = canonical.encode(eight)
    assert canonical.decode(raw, limit_bytes=LIMIT) == eight
    with pytest.raises(MalformedMessageError):
        canonical.encode([eight])
    with pytest.raises(MalformedMessageError):
        canonical.decode(b"\x81" + raw, limit_bytes=LIMIT)


def test_a_declared_length_reserves_no_memory() -> None:
    for head in ("5b", "7b", "9b", "bb"):
        with pytest.raises(MalformedMessageError):
            canonical.decode(bytes.fromhex(head + "00000fffffffffff"), limit_bytes=LIMIT)


@pytest.mark.parametrize("tag", [*range(40), 43, 52, 54, 100, 256, 258, 260, 261, 1004, 1040, 43000, 55799, 65536])
def test_no_tag_is_read_whatever_it_means(tag: int) -> None:
    for inner in (0, "1", b"1", [1, 2], {"a": 1}):
        with pytest.raises(MalformedMessageError):
            canonical.decode(cbor2.dumps(cbor2.CBORTag(tag, inner)), limit_bytes=LIMIT)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, 2**64, -(2**63) - 1, {1: 2}, {b"a": 1}, {1, 2}, object(), "\ud800", {"\ud800": 1},
     bytearray(b"x"), 1j],
    ids=repr,
)  # fmt: skip
def test_what_has_no_encoding_is_refused_on_the_way_out(value: object) -> None:
    with pytest.raises(MalformedMessageError):
        canonical.encode([value])


def test_subclasses_are_written_as_what_they_are() -> None:
    class Colour(StrEnum):
        RED = "red"

    class Odd(str):
        def __str__(self) -> str:
            return "other"

    assert canonical.encode([Colour.RED, True, (1, 2)]) == canonical.encode(["red", True, [1, 2]])
    assert canonical.encode(Odd("red")) == canonical.encode("red")


def test_a_digest_parts_its_parts() -> None:
    seen = {
        canonical.digest("a", b"bc"),
        canonical.digest("a", b"b", b"c"),
        canonical.digest("ab", b"c"),
        canonical.digest("a", b"bc", b""),
        canonical.digest("a"),
    }
    assert len(seen) == 5
    assert all(len(digest) == 32 for digest in seen)


def fields(**values: object) -> Fields:
    return Fields(values, "test")


def test_fields_give_each_value_once_and_refuse_what_is_left() -> None:
    reader = fields(t="x", b=b"12", i=3, n=2, f=True, l=[1], m={"a": 1}, none=None)
    assert reader.text("t") == "x"
    assert reader.bytes("b", 2) == b"12"
    assert reader.integer("i", 0, 3) == 3
    assert reader.number("n") == 2.0
    assert reader.boolean("f") is True
    assert reader.list("l") == [1]
    assert reader.map("m") == {"a": 1}
    assert reader.optional_text("none") is None
    assert reader.optional_bytes("absent") is None
    reader.end()
    with pytest.raises(MalformedMessageError, match="missing"):
        reader.text("t")
    with pytest.raises(MalformedMessageError, match="unknown fields b"):
        fields(b=1).end()


@pytest.mark.parametrize(
    "read",
    [
        lambda: fields(x=1).text("x"),
        lambda: fields(x="abc").text("x", limit_chars=2),
        lambda: fields(x="a").bytes("x"),
        lambda: fields(x=b"a").bytes("x", 2),
        lambda: fields(x=True).integer("x"),
        lambda: fields(x=1.0).integer("x"),
        lambda: fields(x=-1).integer("x"),
        lambda: fields(x=5).integer("x", 0, 4),
        lambda: fields(x=True).number("x"),
        lambda: fields(x=math.inf).number("x"),
        lambda: fields(x=10**400).number("x"),
        lambda: fields(x="1").number("x"),
        lambda: fields(x=1).boolean("x"),
        lambda: fields(x=(1,)).list("x"),
        lambda: fields(x=[1, 2]).list("x", limit=1),
        lambda: fields(x=[]).map("x"),
        lambda: fields(x=1).optional_text("x"),
        lambda: fields(x=1).optional_map("x"),
        lambda: fields(x="").optional_number("x"),
        lambda: fields(x="").optional_integer("x"),
        lambda: Fields([], "test"),
        lambda: Fields(None, "test"),
    ],
)
def test_a_field_of_another_kind_or_out_of_bounds_is_refused(read: object) -> None:
    with pytest.raises(MalformedMessageError, match="test: "):
        read()  # type: ignore[operator]
