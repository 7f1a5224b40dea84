"""Key statements: whose they are, and when they may be relied on."""

from dataclasses import replace
from datetime import timedelta

import pytest

from latticeward import canonical
from latticeward.crypto.signing import Purpose, sign_message
from latticeward.errors import (
    CertificateNotValidError,
    InvalidSignatureError,
    KeyUsageError,
    MalformedMessageError,
    WrongContextError,
)
from latticeward.statements import (
    KeyStanding,
    KeyStatement,
    ServerKeyStatement,
    sign_statement,
    verify_archive,
    verify_live,
    verify_own_statement,
    verify_statement,
)
from tests.latticeward.peers import FEDERATION_ID, MINUTE, NOW, authority, composite_key, device_keys, key_statement

DEVICE = "d0d0d0d0-0000-4000-8000-000000000001"
OTHER = "d0d0d0d0-0000-4000-8000-000000000002"
DAY = timedelta(days=1)
ISSUER = authority().purpose_keys[Purpose.KEY_STATEMENT]


def statement(**changes: object) -> KeyStatement:
    return key_statement(device_keys().public, device_id=DEVICE, **changes)  # type: ignore[arg-type]


def test_a_statement_survives_its_bytes_and_its_signature() -> None:
    signed = sign_statement(statement(), key=ISSUER)
    read = verify_statement(signed, key=ISSUER.verify_key, federation_id=FEDERATION_ID)
    assert read.to_bytes() == statement().to_bytes()
    assert read.digest == statement().digest


def test_a_statement_by_another_key_or_for_another_purpose_is_refused() -> None:
    strangers = sign_statement(statement(), key=composite_key("stranger"))
    another = sign_message(statement().to_bytes(), purpose=Purpose.PLAN, key=ISSUER)
    for signed in (strangers, another):
        with pytest.raises(InvalidSignatureError):
            verify_statement(signed, key=ISSUER.verify_key, federation_id=FEDERATION_ID)


def test_a_statement_of_another_federation_is_refused() -> None:
    with pytest.raises(WrongContextError):
        verify_statement(sign_statement(statement(), key=ISSUER), key=ISSUER.verify_key, federation_id=OTHER)


def test_a_server_statement_does_not_pass_for_a_devices() -> None:
    with pytest.raises(MalformedMessageError):
        KeyStatement.from_bytes(authority().receipt_statement().to_bytes())
    with pytest.raises(MalformedMessageError):
        ServerKeyStatement.from_bytes(statement().to_bytes())


def test_a_statement_of_another_device_or_other_keys_or_certificate_is_refused() -> None:
    right = {"device_id": DEVICE, "keys": device_keys().public, "certificate_digest": b"c" * 32}
    verify_own_statement(statement(), **right)  # type: ignore[arg-type]
    for wrong in ({"device_id": OTHER}, {"keys": device_keys(1).public}, {"certificate_digest": b"d" * 32}):
        with pytest.raises(WrongContextError):
            verify_own_statement(statement(), **{**right, **wrong})  # type: ignore[arg-type]


def test_a_statement_with_one_foreign_key_is_refused() -> None:
    mixed = replace(device_keys().public, encapsulation=device_keys(1).public.encapsulation)
    with pytest.raises(WrongContextError):
        verify_own_statement(statement(), device_id=DEVICE, keys=mixed, certificate_digest=b"c" * 32)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epoch", 0), ("certificate_digest", b"c"), ("not_after", 0), ("v", 2), ("type", "plan"), ("extra", 1)],
)
def test_a_statement_out_of_bounds_is_malformed(name: str, value: object) -> None:
    values = canonical.decode(statement().to_bytes(), limit_bytes=65_536)
    with pytest.raises(MalformedMessageError):
        KeyStatement.from_bytes(canonical.encode({**values, name: value}))


def test_live_keys_hold_within_their_validity_only() -> None:
    verify_live(statement(), KeyStanding(), now=NOW, round_opened_at=None)
    for moment in (NOW - 2 * MINUTE, NOW + 90 * DAY):
        with pytest.raises(CertificateNotValidError):
            verify_live(statement(), KeyStanding(), now=moment, round_opened_at=None)


def test_revoked_keys_are_refused_live_whatever_the_date_says() -> None:
    with pytest.raises(KeyUsageError):
        verify_live(statement(), KeyStanding(revoked_at=NOW + DAY), now=NOW, round_opened_at=None)


def test_superseded_keys_finish_what_was_open_and_begin_nothing() -> None:
    standing = KeyStanding(superseded_at=NOW, overlap_until=NOW + DAY)
    hour = timedelta(hours=1)
    verify_live(statement(), standing, now=NOW - MINUTE, round_opened_at=None)
    verify_live(statement(), standing, now=NOW + hour, round_opened_at=NOW - hour)
    for now, opened in ((NOW + hour, NOW), (NOW + hour, None), (NOW + DAY, NOW - hour)):
        with pytest.raises(KeyUsageError):
            verify_live(statement(), standing, now=now, round_opened_at=opened)
    with pytest.raises(KeyUsageError):
        verify_live(statement(), KeyStanding(superseded_at=NOW), now=NOW, round_opened_at=NOW - hour)


def test_the_archive_believes_what_came_before_the_revocation() -> None:
    standing = KeyStanding(revoked_at=NOW + DAY)
    verify_archive(statement(), standing, received_at=NOW)
    with pytest.raises(KeyUsageError):
        verify_archive(statement(), standing, received_at=NOW + DAY)


def test_a_compromise_reaches_back_to_its_first_instant() -> None:
    standing = KeyStanding(revoked_at=NOW + DAY, invalid_from=NOW)
    verify_archive(statement(), standing, received_at=NOW - timedelta(seconds=30))
    with pytest.raises(KeyUsageError):
        verify_archive(statement(), standing, received_at=NOW + MINUTE)


def test_the_archive_judges_superseded_and_expired_keys_by_the_receive_time() -> None:
    standing = KeyStanding(superseded_at=NOW, overlap_until=NOW + DAY)
    verify_archive(statement(), standing, received_at=NOW + DAY - MINUTE)
    with pytest.raises(KeyUsageError):
        verify_archive(statement(), standing, received_at=NOW + DAY)
    with pytest.raises(CertificateNotValidError):
        verify_archive(statement(), KeyStanding(), received_at=NOW + 91 * DAY)
