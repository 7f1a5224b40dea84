"""Claim codes: both forms, typing errors, and what must never be printed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticeward.claim_code import (
    ClaimCode,
    format_code,
    format_uri,
    lookup_text,
    parse_claim,
    parse_code,
    parse_uri,
)
from latticeward.errors import MalformedMessageError, UntrustedIssuerError
from tests.latticeward.peers import AUTHORITY, claim


def exactly(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


@given(lookup_id=exactly(5), secret=exactly(16), anchor=exactly(32))
def test_the_typed_form_brings_back_id_secret_and_anchor_prefix(lookup_id: bytes, secret: bytes, anchor: bytes) -> None:
    read = parse_code(format_code(ClaimCode(lookup_id=lookup_id, secret=secret, anchor=anchor)))
    assert (read.lookup_id, read.secret, read.anchor) == (lookup_id, secret, anchor[:8])


def test_the_machine_form_brings_back_everything() -> None:
    read = parse_uri(format_uri(claim()))
    for name in ("lookup_id", "secret", "anchor", "server", "site", "device_class"):
        assert getattr(read, name) == getattr(claim(), name)
    assert read.authority == AUTHORITY
    assert read.mac_key == claim().mac_key


def test_a_typed_code_forgives_case_hyphens_and_lookalikes() -> None:
    code = format_code(claim())
    sloppy = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert parse_code(sloppy).secret == claim().secret


def test_every_single_typing_error_is_found() -> None:
    code = format_code(claim())
    for place, right in enumerate(code):
        if right != "-":
            wrong = "7" if right != "7" else "8"
            with pytest.raises(MalformedMessageError):
                parse_code(code[:place] + wrong + code[place + 1 :])


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + "0", lambda c: "U" + c[1:], lambda c: ""])
def test_a_code_of_another_length_or_alphabet_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MalformedMessageError):
        parse_code(change(format_code(claim())))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("latticeward-claim:v1", "latticeward-claim:v2"),
        ("server=http%3A", "server=ftp%3A"),
        ("server=http%3A%2F%2F127.0.0.1%3A8750", "server=http%3A%2F%2F%5B%3A%3A%3A%5D"),
        ("server=http%3A%2F%2F127.0.0.1%3A8750", "server=http%3A%2F%2F127.0.0.1%3A65536"),
        ("server=", "servers="),
        ("&code=", "&code=1&code="),
        ("&site=cleveland", "&site=Cleve+land"),
        ("&site=cleveland", "&site=cleveland&x=1"),
        ("anchor=", "anchor=0"),
    ],
)
def test_a_bent_machine_form_is_refused(old: str, new: str) -> None:
    text = format_uri(claim())
    assert old in text
    with pytest.raises(MalformedMessageError):
        parse_uri(text.replace(old, new))


def test_code_and_anchor_of_different_federations_are_refused() -> None:
    other = format_code(replace(claim(), anchor=b"x" * 32))
    with pytest.raises(MalformedMessageError):
        parse_uri(format_uri(claim()).replace(format_code(claim()), other))


def test_a_claim_file_may_hold_remarks_and_either_form() -> None:
    assert parse_claim(f"# for ward 3\n\n{format_uri(claim())}\n").server == claim().server
    assert parse_claim(format_code(claim()) + "\n").server == ""


def test_the_machine_form_needs_server_and_whole_anchor() -> None:
    with pytest.raises(MalformedMessageError):
        format_uri(parse_code(format_code(claim())))


def test_another_anchor_is_refused_by_either_form() -> None:
    right, wrong = claim().anchor, claim().anchor[:31] + b"\x00"
    claim().verify_anchor(right)
    parse_code(format_code(claim())).verify_anchor(right)
    with pytest.raises(UntrustedIssuerError):
        claim().verify_anchor(wrong if wrong != right else b"\x01" * 32)
    with pytest.raises(UntrustedIssuerError):
        parse_code(format_code(claim())).verify_anchor(b"\x01" * 32)
    with pytest.raises(UntrustedIssuerError):
        parse_code(format_code(claim())).verify_anchor(right[:8])


def test_the_secret_is_not_printed_and_the_lookup_id_is_speakable() -> None:
    assert claim().secret.hex() not in repr(claim())
    assert "secret" not in repr(claim())
    assert lookup_text(claim().lookup_id) == format_code(claim()).replace("-", "")[:8]
