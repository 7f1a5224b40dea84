"""Revocation for other people's tools: X.509 revocation lists and OCSP answers, signed with ML-DSA.

The control plane itself asks its database. What stands here is for those who cannot: a proxy, a broker, an auditor.
Lists and answers are made ahead of time by the authority worker and only handed out by the web, so that no process
that faces the network holds their keys; a nonce in a question is therefore not repeated in the answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.x509 import ocsp

from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.certificate_path import UNREADABLE, load_certificate
from latticeward.errors import CertificateNotValidError, MalformedMessageError

_REQUEST_LIMIT_BYTES: Final = 4_096
_LIST_LIMIT_BYTES: Final = 16 * 1024 * 1024

HOLD: Final = "certificate_hold"
REASONS: Final[Mapping[str, x509.ReasonFlags]] = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key_compromise": x509.ReasonFlags.key_compromise,
    "affiliation_changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation_of_operation": x509.ReasonFlags.cessation_of_operation,
    "privilege_withdrawn": x509.ReasonFlags.privilege_withdrawn,
    HOLD: x509.ReasonFlags.certificate_hold,
}
# Clients still identify certificates by SHA-1 of the issuer's name and key; as an index, not as a protection.
_DIGESTS: Final[Mapping[str, type[hashes.SHA1] | type[hashes.SHA256]]] = {
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
}
DIGEST_NAMES: Final = tuple(_DIGESTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedCertificate:
    """One entry. ``serial`` in lower-case hexadecimal, ``reason`` a key of ``REASONS``, times aware UTC."""

    serial: str
    reason: str
    revoked_at: datetime
    invalid_from: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A list that has been verified. Made by ``verify_revocation_list`` only."""

    number: int
    issued_at: datetime
    next_at: datetime
    serials: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusQuestion:
    """What an OCSP request asks: one certificate, by serial and by digests of its issuer."""

    serial: str
    digest_name: str
    issuer_name_digest: bytes
    issuer_key_digest: bytes


def make_revocation_list(
    entries: Iterable[RevokedCertificate],
    *,
    number: int,
    issuing: bytes,
    issuing_key: CertificateSigningKey,
    now: datetime,
    next_at: datetime,
) -> bytes:
    """A complete revocation list of the issuing authority.

    Args:
        entries: in any order.
        number: 1 or more, one higher than the last list's.
        issuing: DER of the issuing authority.
        issuing_key: its private key.
        now, next_at: when this list is made, and by when the next one will be.

    Returns:
        DER; about 60 bytes an entry beside a signature of 3.3 kB.
    """
    # The finished list goes in at once: adding entries one by one copies the list each time.
    revoked = [_revoked(entry) for entry in entries]
    authority = load_certificate(issuing)
    key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing_key.private.public_key())
    builder = (
        x509.CertificateRevocationListBuilder(
            issuer_name=authority.subject, last_update=now, next_update=next_at, revoked_certificates=revoked
        )
        .add_extension(key_id, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    return builder.sign(issuing_key.private, None).public_bytes(serialization.Encoding.DER)


def verify_revocation_list(der: bytes, *, issuing: bytes, now: datetime) -> RevocationList:
    """Believe a revocation list, or refuse it; that its number never goes back is left to the caller, who remembers.

    Args:
        der: at most 16 MiB.
        issuing: DER of the issuing authority, already verified.
        now: aware UTC.

    Raises:
        MalformedMessageError: not a revocation list, or one without a number or an end.
        CertificateNotValidError: of another issuer, not signed by it, or out of date.
    """
    if len(der) > _LIST_LIMIT_BYTES:
        raise MalformedMessageError("the revocation list is too large")
    authority = load_certificate(issuing)
    public = authority.public_key()
    assert isinstance(public, mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey)
    try:
        found = x509.load_der_x509_crl(der)
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        is_signed = found.issuer == authority.subject and found.is_signature_valid(public)
        serials = frozenset(f"{entry.serial_number:x}" for entry in found) if is_signed else frozenset()
    except (*UNREADABLE, x509.ExtensionNotFound) as exc:
        raise MalformedMessageError("not a numbered revocation list") from exc
    if not is_signed:
        raise CertificateNotValidError("the revocation list is not signed by the issuing authority")
    if found.next_update_utc is None:
        raise MalformedMessageError("the revocation list does not say until when it holds")
    if not found.last_update_utc <= now < found.next_update_utc:
        raise CertificateNotValidError("the revocation list is out of date")
    return RevocationList(
        number=number,
        issued_at=found.last_update_utc,
        next_at=found.next_update_utc,
        serials=serials,
    )


def make_status(
    certificate: bytes,
    *,
    revoked: RevokedCertificate | None,
    digest_name: str,
    issuing: bytes,
    responder: bytes,
    responder_key: CertificateSigningKey,
    now: datetime,
    next_at: datetime,
) -> bytes:
    """An OCSP answer about one certificate, signed by the delegated responder, whose certificate is inside.

    Args:
        certificate, issuing, responder: DER.
        revoked: the entry, or None for a good certificate.
        digest_name: of ``DIGEST_NAMES``; a client only accepts the one that it asked with.
        now, next_at: when this is made, and by when the next one will be.

    Returns:
        DER, about 9 kB, most of it the responder's certificate.
    """
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=load_certificate(certificate),
        issuer=load_certificate(issuing),
        algorithm=_DIGESTS[digest_name](),
        cert_status=ocsp.OCSPCertStatus.GOOD if revoked is None else ocsp.OCSPCertStatus.REVOKED,
        this_update=now,
        next_update=next_at,
        revocation_time=None if revoked is None else revoked.revoked_at,
        revocation_reason=None if revoked is None else REASONS[revoked.reason],
    )
    signer = load_certificate(responder)
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer).certificates([signer])
    return builder.sign(responder_key.private, None).public_bytes(serialization.Encoding.DER)


def parse_status_question(der: bytes) -> StatusQuestion:
    """Read an OCSP request for one certificate.

    Raises:
        MalformedMessageError: not that, too large, or with a digest that nothing is prepared for.
    """
    if len(der) > _REQUEST_LIMIT_BYTES:
        raise MalformedMessageError("the status question is too large")
    try:
        request = ocsp.load_der_ocsp_request(der)
        name = request.hash_algorithm.name
        question = StatusQuestion(
            serial=f"{request.serial_number:x}",
            digest_name=name,
            issuer_name_digest=request.issuer_name_hash,
            issuer_key_digest=request.issuer_key_hash,
        )
    except (*UNREADABLE, NotImplementedError) as exc:
        raise MalformedMessageError("not a status question about one certificate") from exc
    if name not in _DIGESTS:
        raise MalformedMessageError(f"no status answers are prepared with {name}")
    return question


def require_about(question: StatusQuestion, answer: bytes) -> None:
    """Check that a prepared answer is about the certificate in question, issuer included.

    Raises:
        CertificateNotValidError: it is about another issuer's certificate of the same serial.
    """
    found = ocsp.load_der_ocsp_response(answer)
    told = (found.issuer_name_hash, found.issuer_key_hash)
    if told != (question.issuer_name_digest, question.issuer_key_digest):
        raise CertificateNotValidError("the question is about another authority's certificate")


def malformed_answer() -> bytes:
    """The unsigned OCSP answer to what is no question (RFC 6960)."""
    return _unsuccessful(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)


def unauthorized_answer() -> bytes:
    """The unsigned OCSP answer about certificates that this authority knows nothing of (RFC 5019)."""
    return _unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)


def _unsuccessful(status: ocsp.OCSPResponseStatus) -> bytes:
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(serialization.Encoding.DER)


def _revoked(entry: RevokedCertificate) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(int(entry.serial, 16), entry.revoked_at)
    if entry.reason != "unspecified":  # RFC 5280 asks to leave the extension out then
        builder = builder.add_extension(x509.CRLReason(REASONS[entry.reason]), critical=False)
    if entry.invalid_from is not None:
        builder = builder.add_extension(x509.InvalidityDate(entry.invalid_from), critical=False)
    return builder.build()
