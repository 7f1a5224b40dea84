"""The trust store: one anchor, what it vouches for, and what nobody else may vouch for."""

from datetime import timedelta
from typing import Any

import pytest

from latticeward import canonical
from latticeward.crypto.signing import Purpose
from latticeward.errors import (
    CertificateNotValidError,
    InvalidSignatureError,
    MalformedMessageError,
    ReplayError,
    UntrustedIssuerError,
    WrongContextError,
)
from latticeward.instants import to_unix_milliseconds
from latticeward.statements import sign_statement
from latticeward.trust import TrustAnchor, TrustStatement, TrustStore, read_anchor
from tests.latticeward.peers import AUTHORITY, FEDERATION_ID, MINUTE, NOW, authority, composite_key, purpose_key

DAY = timedelta(days=1)
STATEMENT_KEY = authority().purpose_keys[Purpose.KEY_STATEMENT]


def believe(raw: bytes | None = None, **changes: Any) -> TrustStore:
    values = {
        "anchor_fingerprint": authority().anchor.fingerprint,
        "now": NOW,
        "authority": AUTHORITY,
        "least_sequence": 3,
        **changes,
    }
    return TrustStore.from_signed(authority().bundle() if raw is None else raw, **values)


def test_a_bundle_gives_one_key_for_each_purpose() -> None:
    store = believe()
    for purpose, key in authority().purpose_keys.items():
        assert store.verify_key(purpose).key_id == key.verify_key.key_id
    assert store.verify_key(Purpose.SUBMISSION_RECEIPT).key_id == authority().receipt_key.verify_key.key_id
    assert (store.federation_id, store.sequence) == (FEDERATION_ID, 3)
    assert store.root_certificate == authority().root


def test_a_statement_survives_its_bytes() -> None:
    raw = authority().statement().to_bytes()
    assert TrustStatement.from_bytes(raw).to_bytes() == raw


def test_a_bundle_shows_its_anchor_before_it_is_believed() -> None:
    assert read_anchor(authority().bundle()).fingerprint == authority().anchor.fingerprint


def test_another_anchor_is_refused_even_if_its_signature_holds() -> None:
    stranger = composite_key("stranger")
    raw = authority().bundle(signer=stranger, anchor=TrustAnchor(key=stranger.verify_key))
    with pytest.raises(UntrustedIssuerError):
        believe(raw)


def test_a_statement_that_the_anchor_did_not_sign_is_refused() -> None:
    with pytest.raises(InvalidSignatureError):
        believe(authority().bundle(signer=composite_key("stranger")))


def test_a_purpose_that_nobody_was_named_for_has_no_key() -> None:
    with pytest.raises(UntrustedIssuerError):
        believe().verify_key(Purpose.UPDATE)


def test_a_key_for_one_purpose_is_not_a_key_for_another() -> None:
    plan_key = authority().purpose_keys[Purpose.PLAN].verify_key.key_id
    with pytest.raises(UntrustedIssuerError):
        believe().verify_key(Purpose.MODEL_MANIFEST, key_id=plan_key)


def test_an_older_statement_than_one_seen_is_refused() -> None:
    with pytest.raises(ReplayError):
        believe(least_sequence=4)


def test_a_statement_of_another_server_is_refused() -> None:
    with pytest.raises(WrongContextError):
        believe(authority="evil.example")
    believe(authority=None)


@pytest.mark.parametrize("moment", [NOW - 12 * MINUTE, NOW + 30 * DAY], ids=["before", "after"])
def test_a_statement_out_of_its_time_is_refused(moment: Any) -> None:
    with pytest.raises(CertificateNotValidError):
        believe(now=moment)
    with pytest.raises(CertificateNotValidError):
        believe().at(moment)


def test_a_key_is_judged_at_the_stores_reference_time() -> None:
    store = believe()
    late = store.at(NOW + 2 * DAY)
    assert late.verify_key(Purpose.PLAN)
    with pytest.raises(UntrustedIssuerError):
        late.verify_key(Purpose.SUBMISSION_RECEIPT)
    assert store.verify_key(Purpose.SUBMISSION_RECEIPT)


def test_the_archive_finds_a_key_by_the_time_of_receipt() -> None:
    late = believe().at(NOW + 2 * DAY)
    key_id = authority().receipt_key.verify_key.key_id
    assert late.archive_key(Purpose.SUBMISSION_RECEIPT, key_id=key_id, received_at=NOW).key_id == key_id
    with pytest.raises(UntrustedIssuerError):
        late.archive_key(Purpose.SUBMISSION_RECEIPT, key_id=key_id, received_at=NOW - DAY)


def test_while_keys_overlap_the_newest_is_the_default_and_either_may_be_named() -> None:
    old, new = authority().purpose_keys[Purpose.PLAN], composite_key("next plan key")
    keys = (
        purpose_key(Purpose.PLAN, old, start=NOW - DAY),
        purpose_key(Purpose.PLAN, new),
        purpose_key(Purpose.KEY_STATEMENT, STATEMENT_KEY),
    )
    store = believe(authority().bundle(statement=authority().statement(keys=keys)))
    assert store.verify_key(Purpose.PLAN).key_id == new.verify_key.key_id
    for key in (old, new):
        assert store.verify_key(Purpose.PLAN, key_id=key.verify_key.key_id).key_id == key.verify_key.key_id


def test_a_receipt_key_of_a_stranger_is_refused() -> None:
    statement = authority().receipt_statement()
    with pytest.raises(UntrustedIssuerError):
        believe(authority().bundle(receipts=(sign_statement(statement, key=composite_key("stranger")),)))


@pytest.mark.parametrize("purpose", [Purpose.PLAN, Purpose.MODEL_MANIFEST, Purpose.KEY_STATEMENT, Purpose.TRUST])
def test_the_statement_key_cannot_name_keys_for_what_devices_act_on(purpose: Purpose) -> None:
    statement = authority().receipt_statement(purpose=purpose, key=composite_key("stranger").verify_key)
    with pytest.raises(UntrustedIssuerError):
        believe(authority().bundle(receipts=(sign_statement(statement, key=STATEMENT_KEY),)))


def test_a_receipt_key_of_another_federation_is_refused() -> None:
    statement = authority().receipt_statement(federation_id="another")
    with pytest.raises(WrongContextError):
        believe(authority().bundle(receipts=(sign_statement(statement, key=STATEMENT_KEY),)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("sequence", 0), ("certificates", []), ("certificates", ["text"]), ("keys", [{}]), ("v", 2), ("more", 1)],
)
def test_a_statement_out_of_bounds_is_malformed(name: str, value: object) -> None:
    values = canonical.decode(authority().statement().to_bytes(), limit_bytes=262_144)
    with pytest.raises(MalformedMessageError):
        TrustStatement.from_bytes(canonical.encode({**values, name: value}))


def test_instants_on_the_wire_are_whole_milliseconds() -> None:
    assert to_unix_milliseconds(NOW) == 1_795_262_400_000
    with pytest.raises(ValueError, match="naive"):
        to_unix_milliseconds(NOW.replace(tzinfo=None))
