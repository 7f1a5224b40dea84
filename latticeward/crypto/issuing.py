"""What only the authority does with X.509: it makes the hierarchy and binds devices' keys to names.

A device's certificate carries what the claim record says; from the request comes the public key alone,
already proven. Requests, names and the verification of chains live in ``certificate.py``, which both ends
use.
"""

import secrets
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from latticeward.crypto.certificate import (
    DeviceNames,
    common_name_of,
    federation_domain,
    fingerprint,
    key_usage,
)
from latticeward.crypto.certificate_keys import CertificateSigningKey, MlDsaPublic, load_public
from latticeward.crypto.certificate_path import load_certificate
from latticeward.crypto.encipherment import EnciphermentKey, MlKemPublic
from latticeward.crypto.encipherment_certificate import encipherment_usage

PublicKey = MlDsaPublic | MlKemPublic

ROOT_LIFETIME: Final = timedelta(days=3652)
ISSUING_LIFETIME: Final = timedelta(days=1096)
RESPONDER_LIFETIME: Final = timedelta(days=30)
DEVICE_LIFETIME: Final = timedelta(days=90)
# Where the server hands out what is said about certificates; both stand in every certificate that it issues. Each
# issuing authority has a list of its own, since a list speaks about the certificates of its signer only.
REVOCATION_LIST_PATH: Final = "/api/v1/revocations/{issuer}.crl"
STATUS_PATH: Final = "/api/v1/ocsp"
# A device whose clock runs a little behind must not find its new certificate "not yet valid".
BACKDATE: Final = timedelta(minutes=5)


def make_root(key: CertificateSigningKey, *, name: str, now: datetime) -> bytes:
    """A self-signed root that may sign authorities one level down.

    Args:
        key: the root key.
        name: common name, for people.
        now: aware UTC.

    Returns:
        DER.
    """
    subject = common_name_of(name)
    public = load_public(key.public_raw, key.algorithm)
    builder = _builder(subject, subject, public, now, ROOT_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = builder.add_extension(key_usage(authority=True), critical=True)
    builder = _with_key_ids(builder, public, key)
    return _finish(builder, key)


def make_issuing(
    public_raw: bytes,
    *,
    algorithm: str,
    federation: str,
    root: bytes,
    root_key: CertificateSigningKey,
    now: datetime,
    generation: int = 1,
) -> bytes:
    """The issuing authority of one federation: signs devices only, and only below its domain.

    Args:
        public_raw: raw public key of the issuing authority.
        algorithm: its algorithm.
        federation: slug.
        root: DER of the root.
        root_key: the root's private key.
        now: aware UTC; never beyond the root's own end.
        generation: 1 for the first; a later one has another name, because tools look an issuer up by its name.

    Returns:
        DER.
    """
    above = load_certificate(root)
    name = f"Latticeward issuing authority of {federation}"
    subject = common_name_of(name if generation == 1 else f"{name}, {generation}")
    lifetime = min(ISSUING_LIFETIME, above.not_valid_after_utc - now)
    public = load_public(public_raw, algorithm)
    builder = _builder(subject, above.subject, public, now, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(authority=True), critical=True)
    permitted = [x509.DNSName(federation_domain(federation))]
    builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    builder = _with_key_ids(builder, public, root_key)
    return _finish(builder, root_key)


def make_responder(
    public_raw: bytes,
    *,
    algorithm: str,
    issuing: bytes,
    issuing_key: CertificateSigningKey,
    now: datetime,
    lifetime: timedelta = RESPONDER_LIFETIME,
) -> bytes:
    """The delegated OCSP responder: 30 days or less, never itself asked about (no-check). Returns DER.

    It is signed by the issuing authority, whose certificates it speaks about: RFC 6960 accepts a delegate
    only from the very authority that issued the certificate in question.
    """
    subject = common_name_of("Latticeward status responder")
    issuer = load_certificate(issuing)
    lifetime = min(lifetime, issuer.not_valid_after_utc - now)
    public = load_public(public_raw, algorithm)
    builder = _builder(subject, issuer.subject, public, now, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=True)
    builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    builder = _with_key_ids(builder, public, issuing_key)
    return _finish(builder, issuing_key)


def issue_device(
    public_raw: bytes,
    *,
    algorithm: str,
    names: DeviceNames,
    issuing: bytes,
    issuing_key: CertificateSigningKey,
    now: datetime,
    lifetime: timedelta = DEVICE_LIFETIME,
    public_url: str = "",
) -> bytes:
    """Bind a device's authentication key to its names.

    Args:
        public_raw: raw public key that was proven in the certificate request.
        algorithm: its algorithm.
        names: from the claim record.
        issuing: DER of the issuing authority.
        issuing_key: its private key.
        now: aware UTC; the certificate is back-dated by five minutes.
        lifetime: from ``now``; never beyond the issuing authority's own end.
        public_url: where this authority serves its revocation list and status answers; empty leaves them out.

    Returns:
        DER.
    """
    public = load_public(public_raw, algorithm)
    builder = _of_device(public, names, issuing, now, lifetime, public_url)
    builder = builder.add_extension(key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return _finish(_with_key_ids(builder, public, issuing_key), issuing_key)


def issue_encipherment(
    key: EnciphermentKey,
    *,
    names: DeviceNames,
    issuing: bytes,
    issuing_key: CertificateSigningKey,
    now: datetime,
    lifetime: timedelta,
    public_url: str = "",
) -> bytes:
    """Bind a device's encipherment key to its names, so that standard tools can encrypt to the device (RFC 9935).

    Of the key usages it has ``keyEncipherment`` alone, as RFC 9935 asks, and no extended one: it proves nobody's
    identity, and no door of this server takes it.

    Args:
        key: proven by the device.
        names, issuing, issuing_key, now, public_url: as of ``issue_device``.
        lifetime: from ``now``; never beyond the issuing authority's own end.

    Returns:
        DER.
    """
    builder = _of_device(key.native, names, issuing, now, lifetime, public_url)
    builder = builder.add_extension(encipherment_usage(), critical=True)
    return _finish(_with_key_ids(builder, key.native, issuing_key), issuing_key)


def list_name(issuing: bytes) -> str:
    """Under which name an issuing authority's revocation list is served: 16 hexadecimal digits of its fingerprint."""
    return fingerprint(issuing).hex()[:16]


def _of_device(
    public: PublicKey, names: DeviceNames, issuing: bytes, now: datetime, lifetime: timedelta, public_url: str
) -> x509.CertificateBuilder:
    """What every certificate of a device says: whose it is, that it signs none, and where its status is told."""
    authority = load_certificate(issuing)
    lifetime = min(lifetime, authority.not_valid_after_utc - now)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, names.federation),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, names.site),
            x509.NameAttribute(NameOID.COMMON_NAME, names.device_id),
        ]
    )
    builder = _builder(subject, authority.subject, public, now, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    alternative = x509.SubjectAlternativeName([x509.DNSName(names.dns_name), x509.UniformResourceIdentifier(names.uri)])
    builder = builder.add_extension(alternative, critical=False)
    if public_url:
        place = REVOCATION_LIST_PATH.format(issuer=list_name(issuing))
        builder = builder.add_extension(_list_place(public_url + place), critical=False)
        builder = builder.add_extension(_status_place(public_url + STATUS_PATH), critical=False)
    return builder


def _builder(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        # 159 random bits: positive, at most 20 octets (RFC 5280), and nobody can predict what will be signed.
        .serial_number(secrets.randbits(158) | 1 << 158)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
    )


def _with_key_ids(
    builder: x509.CertificateBuilder, subject: PublicKey, issuer_key: CertificateSigningKey
) -> x509.CertificateBuilder:
    subject_id = x509.SubjectKeyIdentifier.from_public_key(subject)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.private.public_key())
    return builder.add_extension(subject_id, critical=False).add_extension(issuer_id, critical=False)


def _list_place(url: str) -> x509.CRLDistributionPoints:
    place = [x509.UniformResourceIdentifier(url)]
    return x509.CRLDistributionPoints([x509.DistributionPoint(place, None, None, None)])


def _status_place(url: str) -> x509.AuthorityInformationAccess:
    place = x509.UniformResourceIdentifier(url)
    return x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, place)])


def _finish(builder: x509.CertificateBuilder, key: CertificateSigningKey) -> bytes:
    return builder.sign(key.private, None).public_bytes(serialization.Encoding.DER)
