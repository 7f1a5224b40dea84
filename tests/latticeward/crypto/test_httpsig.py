"""Signed requests: what verifies, and every way in which they may be bent."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from latticeward.crypto.httpsig import (
    NONCE_LIFETIME_SECONDS,
    SKEW_SECONDS,
    WINDOW_SECONDS,
    RequestFacts,
    VerifiedRequest,
    sign_request,
    verify_body_digest,
    verify_request,
)
from latticeward.crypto.keys import AuthenticationSigningKey, AuthenticationVerifyKey, ClassicalVerifyKey
from latticeward.crypto.signature_fields import SignatureParameters, signature_base
from latticeward.errors import (
    ClockSkewError,
    InvalidSignatureError,
    MalformedMessageError,
    NotAuthenticatedError,
    WrongContextError,
)
from tests.latticeward.peers import AUTHORITY, NOW, device_keys

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "httpsig" / "ml-dsa.json"
PATH = "/api/v1/rounds/7c1c2f4e-6ce3-4b4f-9a3d-2f6f1a0f9b11/submissions"
BODY = b"an envelope"
HEADERS = (("Content-Type", "application/octet-stream"), ("Idempotency-Key", "ab" * 32), ("User-Agent", "agent"))


def signed(
    *, method: str = "POST", query: str = "", created_at: datetime = NOW, mldsa: int = 0, ed25519: int = 0
) -> RequestFacts:
    """A good request of device 0, unless another device's key signs one half."""
    added = sign_request(
        method,
        AUTHORITY,
        PATH,
        query,
        HEADERS,
        hashlib.sha256(BODY).digest() if method == "POST" else None,
        key_id=device_keys().authentication.verify_key.key_id.hex(),
        mldsa=device_keys(mldsa).authentication,
        ed25519=device_keys(ed25519).classical,
        created_at=created_at,
        nonce=b"0123456789abcdef",
    )
    return RequestFacts.make(method, AUTHORITY, PATH, query, (*HEADERS, *added.items()))


def resolve(key_id: str) -> tuple[AuthenticationVerifyKey, ClassicalVerifyKey]:
    keys = device_keys()
    if key_id != keys.authentication.verify_key.key_id.hex():
        raise NotAuthenticatedError("nobody has this key")
    return keys.authentication.verify_key, keys.classical.verify_key


def verify(facts: RequestFacts, now: datetime = NOW) -> VerifiedRequest:
    return verify_request(facts, resolve=resolve, now=now)


def with_header(facts: RequestFacts, name: str, change: Callable[[str], str]) -> RequestFacts:
    return replace(facts, headers=tuple((key, change(value) if key == name else value) for key, value in facts.headers))


def without_header(facts: RequestFacts, name: str) -> RequestFacts:
    return replace(facts, headers=tuple(line for line in facts.headers if line[0] != name))


def test_a_signed_request_verifies_and_tells_nonce_time_and_digest() -> None:
    request = verify(signed())
    assert request.key_id == device_keys().authentication.verify_key.key_id.hex()
    assert request.created_at == NOW
    assert base64.urlsafe_b64decode(request.nonce + "==") == b"0123456789abcdef"
    verify_body_digest(request, hashlib.sha256(BODY).digest())


def test_a_request_without_body_needs_no_digest_and_binds_its_query() -> None:
    facts = signed(method="GET", query="wait=20&after=abc")
    assert verify(facts).content_digest is None
    with pytest.raises(InvalidSignatureError):
        verify(replace(facts, query="wait=20&after=abd"))
    with pytest.raises(InvalidSignatureError):
        verify(replace(facts, query=""))


def test_another_body_than_the_signed_one_is_refused() -> None:
    with pytest.raises(WrongContextError):
        verify_body_digest(verify(signed()), hashlib.sha256(b"other").digest())
    with pytest.raises(WrongContextError):
        verify_body_digest(verify(signed(method="GET")), hashlib.sha256(b"").digest())


@pytest.mark.parametrize(
    "change",
    [{"method": "PUT"}, {"authority": "127.0.0.1:8751"}, {"path": "/api/v1/work"}, {"query": "x=1"}],
    ids=str,
)
def test_each_part_of_the_address_is_covered(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidSignatureError):
        verify(replace(signed(), **change))


def test_the_authority_is_compared_in_lower_case() -> None:
    facts = signed()
    assert RequestFacts.make("post", AUTHORITY.upper(), PATH, "", facts.headers) == facts


@pytest.mark.parametrize("name", ["content-type", "idempotency-key"])
def test_a_steering_header_can_be_neither_changed_nor_removed_nor_doubled(name: str) -> None:
    facts = signed()
    with pytest.raises(InvalidSignatureError):
        verify(with_header(facts, name, lambda value: value[:-1] + "0"))
    with pytest.raises(MalformedMessageError):
        verify(without_header(facts, name))
    with pytest.raises(MalformedMessageError):
        verify(replace(facts, headers=(*facts.headers, (name, "text/plain"))))


@pytest.mark.parametrize("name", ["content-encoding", "upload-id", "upload-offset", "upload-length"])
def test_a_steering_header_cannot_be_added(name: str) -> None:
    facts = signed()
    with pytest.raises(MalformedMessageError):
        verify(replace(facts, headers=(*facts.headers, (name, "1"))))


def test_a_header_that_steers_nothing_may_change() -> None:
    verify(with_header(signed(), "user-agent", lambda value: "proxy"))


def test_a_missing_content_digest_is_refused() -> None:
    with pytest.raises(MalformedMessageError):
        verify(without_header(signed(), "content-digest"))


@pytest.mark.parametrize("value", ["sha-512=:AAAA:", "sha-256=:AAAA:", "sha-256=:" + "A" * 43 + "=:, md5=:AA==:"])
def test_another_content_digest_than_one_sha256_is_refused(value: str) -> None:
    with pytest.raises(MalformedMessageError):
        verify(with_header(signed(), "content-digest", lambda old: value))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"@method" "@authority"', '"@authority" "@method"'),
        ('"@method" ', ""),
        ('"@query" ', ""),
        ('"content-type" ', ""),
        ('"@method"', '"@method" "@method"'),
        ('"@method"', '"date" "@method"'),
        (";expires=", ";foo=1;expires="),
        (";created=", ";created= "),
        ('alg="ml-dsa-65"', 'alg="ml-dsa-44"'),
        ('alg="ml-dsa-65"', 'alg="ed25519"'),
        ('tag="latticeward', 'tag="other'),
        ("pq=(", "p2=("),
    ],
    ids=lambda text: text,
)
def test_other_parameters_than_the_profile_are_refused(old: str, new: str) -> None:
    with pytest.raises(MalformedMessageError):
        verify(with_header(signed(), "signature-input", lambda value: value.replace(old, new)))


def test_labels_in_another_order_missing_or_repeated_are_refused() -> None:
    facts = signed()
    for name in ("signature-input", "signature"):
        for change in (
            lambda value: ", ".join(reversed(value.split(", "))),
            lambda value: value.split(", ")[0],
            lambda value: value.split(", ")[1],
            lambda value: value + ", " + value.split(", ")[0],
        ):
            with pytest.raises(MalformedMessageError):
                verify(with_header(facts, name, change))


def test_labels_that_disagree_on_a_parameter_are_refused() -> None:
    later = dict(signed(created_at=NOW + timedelta(seconds=1)).headers)["signature-input"].split(", ")[1]
    with pytest.raises(MalformedMessageError):
        verify(with_header(signed(), "signature-input", lambda value: f"{value.split(', ')[0]}, {later}"))


@pytest.mark.parametrize("halves", [(1, 0), (0, 1), (1, 1)], ids=["pq forged", "cl forged", "both forged"])
def test_one_good_signature_is_not_enough(halves: tuple[int, int]) -> None:
    with pytest.raises(InvalidSignatureError):
        verify(signed(mldsa=halves[0], ed25519=halves[1]))


def test_the_two_signatures_cannot_stand_for_each_other() -> None:
    def swap(value: str) -> str:
        pq, cl = (item[3:] for item in value.split(", "))
        return f"pq={cl}, cl={pq}"

    with pytest.raises(InvalidSignatureError):
        verify(with_header(signed(), "signature", swap))


@pytest.mark.parametrize("value", ["pq=AA==, cl=AA==", "pq=:A:, cl=:AA==:", "pq=:A A=:, cl=:AA==:", "pq=, cl="])
def test_signatures_that_are_not_byte_sequences_are_refused(value: str) -> None:
    with pytest.raises(MalformedMessageError):
        verify(with_header(signed(), "signature", lambda old: value))


def test_a_request_without_signatures_is_not_authenticated() -> None:
    for name in ("signature", "signature-input"):
        with pytest.raises(NotAuthenticatedError):
            verify(without_header(signed(), name))


def test_a_key_that_nobody_has_is_not_authenticated() -> None:
    keys = device_keys(1)
    added = sign_request(
        "GET",
        AUTHORITY,
        PATH,
        "",
        (),
        None,
        key_id=keys.authentication.verify_key.key_id.hex(),
        mldsa=keys.authentication,
        ed25519=keys.classical,
        created_at=NOW,
        nonce=bytes(16),
    )
    with pytest.raises(NotAuthenticatedError):
        verify(RequestFacts.make("GET", AUTHORITY, PATH, "", added.items()))


def test_a_clock_too_far_ahead_or_behind_is_refused_with_the_seconds() -> None:
    far, second = timedelta(seconds=SKEW_SECONDS + 1), timedelta(seconds=1)
    with pytest.raises(ClockSkewError, match=r"clock is 301 s ahead of the server's; 300 s are allowed"):
        verify(signed(), NOW - far)
    with pytest.raises(ClockSkewError, match=r"clock is 301 s behind the server's; 300 s are allowed"):
        verify(signed(), NOW + far)
    verify(signed(), NOW - far + second)
    verify(signed(), NOW + far - second)


def test_a_nonce_is_remembered_for_as_long_as_its_request_may_be_believed() -> None:
    assert NONCE_LIFETIME_SECONDS >= 2 * SKEW_SECONDS


@pytest.mark.parametrize("length", [0, WINDOW_SECONDS + 1])
def test_a_window_that_is_empty_or_too_long_is_refused(length: int) -> None:
    created = int(NOW.timestamp())

    def change(value: str) -> str:
        return value.replace(f"expires={created + WINDOW_SECONDS}", f"expires={created + length}")

    with pytest.raises(MalformedMessageError):
        verify(with_header(signed(), "signature-input", change))


@pytest.mark.parametrize(
    "parts",
    [
        ("GET", "host/evil", "/", ""),
        ("GET", "user@host", "/", ""),
        ("GET", AUTHORITY, "/a%2fb", ""),
        ("GET", AUTHORITY, "/a?b", ""),
        ("GET", AUTHORITY, "/a\nb", ""),
        ("GET", AUTHORITY, "a", ""),
        ("GET", AUTHORITY, "/", "a b"),
        ("GET", AUTHORITY, "/", "a#b"),
        ("G T", AUTHORITY, "/", ""),
    ],
    ids=str,
)
def test_addresses_with_two_readings_are_refused(parts: tuple[str, str, str, str]) -> None:
    with pytest.raises(MalformedMessageError):
        RequestFacts.make(*parts, headers=())


def test_a_header_value_with_a_line_break_cannot_forge_a_component() -> None:
    facts = signed()
    with pytest.raises(MalformedMessageError):
        verify(with_header(facts, "content-type", lambda value: value + '\n"@path": /api/v1/work'))


def test_a_header_value_is_printable_ascii_with_spaces_only_between() -> None:
    def refused(value: str) -> bool:
        facts = RequestFacts(method="GET", authority=AUTHORITY, path="/", query="", headers=(("upload-id", value),))
        try:
            return facts.header("upload-id") != value
        except MalformedMessageError:
            return True

    characters = [chr(number) for number in (*range(0x180), 0x3000, 0xFF21, 0x1D7D8, 0xDC80)]
    inside = {character for character in characters if not refused(f"a{character}z")}
    assert inside == set(map(chr, range(0x20, 0x7F)))
    for places in ("{}", "{}z", "a{}"):
        allowed = {character for character in characters if not refused(places.format(character))}
        assert allowed == inside - {" "}
    assert refused("")


def test_the_first_byte_of_a_signature_base_is_a_quotation_mark() -> None:
    assert signature_base([("@method", "GET")], "()").startswith(b'"@method"')


def test_parameters_survive_the_round_trip() -> None:
    text = signed().headers[-2][1].split(", ")[0].removeprefix("pq=")
    assert str(SignatureParameters.parse(text)) == text


@pytest.mark.skipif(not VECTORS.exists(), reason="the public C2SP vectors are not on this machine")
def test_the_public_vector_of_ml_dsa_65() -> None:
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))["vectors"]
    vector = next(item for item in vectors if item["algorithm"] == "ml-dsa-65")
    base = base64.b64decode(vector["signature_base_base64"])
    parameters = vector["serialized_signature_input"].removeprefix("Signature-Input: sig1=")
    lines = base.decode("ascii").split("\n")[:-1]
    components = [(name.strip('"'), value) for name, value in (line.split('": ', 1) for line in lines)]
    assert signature_base(components, parameters) == base
    key = AuthenticationVerifyKey.from_raw(base64.b64decode(vector["public_key_base64"]))
    assert AuthenticationSigningKey.from_seed(bytes.fromhex(vector["private_key_seed_hex"])).verify_key.raw == key.raw
    signature = base64.b64decode(vector["deterministic_signature_base64"])
    key.verify(signature, base)
    with pytest.raises(InvalidSignatureError):
        key.verify(signature, base + b" ")
