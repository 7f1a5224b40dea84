"""Revocation lists and status answers: what they say, and whose word counts."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from latticeward.crypto.authentication import ML_DSA_65
from latticeward.crypto.certificate import serial_of
from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.issuing import make_responder
from latticeward.crypto.revocation import (
    DIGEST_NAMES,
    REASONS,
    RevokedCertificate,
    make_revocation_list,
    make_status,
    malformed_answer,
    parse_status_question,
    unauthorized_answer,
    verify_revocation_list,
)
from latticeward.errors import CertificateNotValidError, MalformedMessageError
from tests.latticeward.crypto.test_certificate import NOW, authority

SOON = NOW + timedelta(hours=1)


def entry(reason: str = "key_compromise") -> RevokedCertificate:
    invalid_from = NOW - timedelta(days=1) if reason == "key_compromise" else None
    return RevokedCertificate(serial="7f", reason=reason, revoked_at=NOW, invalid_from=invalid_from)


def revocation_list(*entries: RevokedCertificate) -> bytes:
    made = authority()
    return make_revocation_list(
        entries, number=3, issuing=made.issuing, issuing_key=made.issuing_key, now=NOW, next_at=SOON
    )


@pytest.mark.parametrize("reason", REASONS)
def test_a_list_says_which_serials_are_revoked_and_why(reason: str) -> None:
    der = revocation_list(entry(reason))
    found = verify_revocation_list(der, issuing=authority().issuing, now=NOW)
    assert (found.number, found.serials, found.next_at) == (3, frozenset({"7f"}), SOON)
    (row,) = x509.load_der_x509_crl(der)
    stated = {extension.oid for extension in row.extensions}
    assert (x509.oid.CRLEntryExtensionOID.CRL_REASON in stated) == (reason != "unspecified")


def test_an_empty_list_is_a_list() -> None:
    found = verify_revocation_list(revocation_list(), issuing=authority().issuing, now=NOW)
    assert found.serials == frozenset()


@pytest.mark.parametrize("minutes", [-1, 61])
def test_a_list_out_of_date_is_refused(minutes: int) -> None:
    with pytest.raises(CertificateNotValidError, match="out of date"):
        verify_revocation_list(revocation_list(), issuing=authority().issuing, now=NOW + timedelta(minutes=minutes))


def test_a_list_by_another_key_or_issuer_is_refused() -> None:
    made, other = authority(), CertificateSigningKey.generate(ML_DSA_65)
    forged = make_revocation_list([], number=4, issuing=made.issuing, issuing_key=other, now=NOW, next_at=SOON)
    foreign = make_revocation_list([], number=4, issuing=made.root, issuing_key=made.issuing_key, now=NOW, next_at=SOON)
    for der in (forged, foreign):
        with pytest.raises(CertificateNotValidError, match="not signed"):
            verify_revocation_list(der, issuing=made.issuing, now=NOW)


def test_a_changed_list_is_refused() -> None:
    der = revocation_list(entry())
    for position in range(0, len(der), 131):
        changed = bytearray(der)
        changed[position] ^= 1
        with pytest.raises((CertificateNotValidError, MalformedMessageError)):
            verify_revocation_list(bytes(changed), issuing=authority().issuing, now=NOW)


def test_a_list_with_two_extensions_of_one_kind_or_of_a_strange_version_is_refused() -> None:
    der = revocation_list(entry())
    for old, new in ((b"\x55\x1d\x14", b"\x55\x1d\x23"), (b"\x02\x01\x01", b"\x02\x01\x08")):
        assert old in der
        with pytest.raises(MalformedMessageError):
            verify_revocation_list(der.replace(old, new, 1), issuing=authority().issuing, now=NOW)


@pytest.mark.parametrize("digest_name", DIGEST_NAMES)
@pytest.mark.parametrize("revoked", [None, entry("superseded")])
def test_an_answer_is_the_responders_and_says_the_status(digest_name: str, revoked: RevokedCertificate | None) -> None:
    made, key = authority(), CertificateSigningKey.generate(ML_DSA_65)
    responder = make_responder(
        key.public_raw, algorithm=ML_DSA_65, issuing=made.issuing, issuing_key=made.issuing_key, now=NOW
    )
    leaf = made.issue()
    der = make_status(
        leaf,
        revoked=revoked,
        digest_name=digest_name,
        issuing=made.issuing,
        responder=responder,
        responder_key=key,
        now=NOW,
        next_at=SOON,
    )
    answer = ocsp.load_der_ocsp_response(der)
    key.private.public_key().verify(answer.signature, answer.tbs_response_bytes)
    assert f"{answer.serial_number:x}" == serial_of(leaf)
    assert answer.hash_algorithm.name == digest_name
    expected = ocsp.OCSPCertStatus.GOOD if revoked is None else ocsp.OCSPCertStatus.REVOKED
    assert answer.certificate_status is expected
    assert answer.next_update_utc == SOON


def question(digest: hashes.HashAlgorithm) -> bytes:
    made = authority()
    leaf, issuer = (x509.load_der_x509_certificate(der) for der in (made.issue(), made.issuing))
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, digest)
    return builder.build().public_bytes(serialization.Encoding.DER)


def test_a_question_is_read_with_either_digest() -> None:
    for name, digest in (("sha1", hashes.SHA1()), ("sha256", hashes.SHA256())):
        assert parse_status_question(question(digest)).digest_name == name


def test_what_is_no_question_is_refused() -> None:
    for der in (b"", b"\x30\x00", question(hashes.SHA256())[:-1], b"\x30" * 5_000, question(hashes.SHA384())):
        with pytest.raises(MalformedMessageError):
            parse_status_question(der)


def test_refusals_are_answers_without_a_signature() -> None:
    for der, status in (
        (malformed_answer(), ocsp.OCSPResponseStatus.MALFORMED_REQUEST),
        (unauthorized_answer(), ocsp.OCSPResponseStatus.UNAUTHORIZED),
    ):
        assert ocsp.load_der_ocsp_response(der).response_status is status
