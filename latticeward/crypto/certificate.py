"""X.509 with ML-DSA: keys, names, certificate requests and the verification of chains, for both ends.

A root (ML-DSA-87, ten years, meant to rest offline) signs an issuing authority (ML-DSA-65, three years, path
length 0, confined by name constraints to one federation) and a delegated OCSP responder. Profile ``cnsa2``
uses ML-DSA-87 everywhere. Certificates bind a device's authentication key only; its other keys are bound by
the key statement, because neither common tools nor this library understand composite keys in certificates.

Every signature of this file is ML-DSA with the empty context, as RFC 9881 asks; the keys of this file sign
nothing else (a device's authentication key also signs requests, which begin with another byte: see
``httpsig.py``). Making certificates is the authority's and lives in ``issuing.py``; revocation is the
database's to say.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from latticeward.crypto.authentication import ML_DSA_65, ML_DSA_87
from latticeward.crypto.certificate_keys import ALGORITHMS, CertificateSigningKey
from latticeward.crypto.certificate_path import SIZE_LIMIT_BYTES, UNREADABLE, believe_path, load_certificate
from latticeward.crypto.suites import SignatureAlgorithm
from latticeward.errors import CertificateNotValidError, KeyUsageError, MalformedMessageError

# Under .internal, which no public authority will ever certify and no public resolver will ever answer.
DOMAIN: Final = "latticeward.internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateProfile:
    """Which algorithm stands at each place of the hierarchy.

    Attributes:
        root, issuing, responder: the ML-DSA parameter set of each.
        devices: those that a device's key may be of.
        messages: of the composite keys with which the server signs statements, plans, records and the rest.
    """

    name: str
    root: str
    issuing: str
    responder: str
    devices: tuple[str, ...]
    messages: SignatureAlgorithm


PROFILES: Final[Mapping[str, CertificateProfile]] = {
    row.name: row
    for row in (
        CertificateProfile(
            name="standard",
            root=ML_DSA_87,
            issuing=ML_DSA_65,
            responder=ML_DSA_65,
            devices=(ML_DSA_65, ML_DSA_87),
            messages=SignatureAlgorithm.MLDSA65_ED25519,
        ),
        CertificateProfile(
            name="cnsa2",
            root=ML_DSA_87,
            issuing=ML_DSA_87,
            responder=ML_DSA_87,
            devices=(ML_DSA_87,),
            messages=SignatureAlgorithm.MLDSA87_P384,
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNames:
    """What a device's certificate says about it; taken from the claim record, never from the request.

    Attributes:
        federation: slug, one DNS label.
        site: slug, one DNS label.
        device_id: UUID text.
    """

    federation: str
    site: str
    device_id: str

    @property
    def dns_name(self) -> str:
        return f"{self.device_id}.{self.site}.{federation_domain(self.federation)}"

    @property
    def uri(self) -> str:
        """Authority-style, because a URN has no host and would collide with URI name constraints."""
        return f"https://{federation_domain(self.federation)}/sites/{self.site}/devices/{self.device_id}"


def federation_domain(federation: str) -> str:
    """The DNS subtree that a federation's issuing authority is confined to."""
    return f"{federation}.{DOMAIN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityCertificate:
    """A certificate whose chain has been verified. Made by ``verify_chain`` only.

    Attributes:
        der: the leaf, DER.
        fingerprint: SHA-256 of it, 32 bytes.
        serial: 40 hexadecimal characters or fewer.
        device_id: UUID text, from the common name.
        dns_name: the only DNS name in it.
        algorithm: of the subject's key.
        public_key: raw subject key.
        not_before_at: aware UTC.
        not_after_at: aware UTC.
    """

    der: bytes
    fingerprint: bytes
    serial: str
    device_id: str
    dns_name: str
    algorithm: str
    public_key: bytes
    not_before_at: datetime
    not_after_at: datetime


def fingerprint(der: bytes) -> bytes:
    """SHA-256 of a certificate, 32 bytes."""
    return hashlib.sha256(der).digest()


def serial_of(der: bytes) -> str:
    """The serial number as lower-case hexadecimal, for storing and looking up."""
    return f"{load_certificate(der).serial_number:x}"


class SeedKey(Protocol):
    """A private ML-DSA key that can give its 32-byte seed: an authentication key, mostly."""

    @property
    def algorithm(self) -> str: ...

    def export_seed(self) -> bytes: ...


def make_csr(key: SeedKey, *, common_name: str = "latticeward device") -> bytes:
    """A certificate request (PKCS #10). Only its public key is ever copied; the name is for people.

    Args:
        key: the authentication key, whose public half is asked to be certified.
        common_name: any text up to 64 characters.

    Returns:
        DER.
    """
    private = CertificateSigningKey.from_seed(key.export_seed(), key.algorithm).private
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(common_name_of(common_name))
        .sign(private, None)
        .public_bytes(serialization.Encoding.DER)
    )


def verify_csr(der: bytes, *, algorithm: str = ML_DSA_65) -> bytes:
    """Prove that the requester holds the key in a certificate request, and take that key out of it.

    Args:
        der: the request; at most 16 kB.
        algorithm: of the key that the requester says it has.

    Returns:
        The raw public key. Nothing else of the request is to be believed.

    Raises:
        MalformedMessageError: not a certificate request, or too large.
        KeyUsageError: a key or signature of another algorithm.
        CertificateNotValidError: the request's own signature does not verify.
    """
    row = ALGORITHMS[algorithm]
    if len(der) > SIZE_LIMIT_BYTES:
        raise MalformedMessageError("the certificate request is too large")
    try:
        request = x509.load_der_x509_csr(der)
        public = request.public_key()
        signature_oid = request.signature_algorithm_oid
        if not isinstance(public, row.public) or signature_oid != row.oid:
            raise KeyUsageError(f"the certificate request is not for an {algorithm} key")
        is_signature_valid = request.is_signature_valid
    except UNREADABLE as exc:
        raise MalformedMessageError("not a certificate request") from exc
    if not is_signature_valid:
        raise CertificateNotValidError("the certificate request's signature does not verify")
    return public.public_bytes_raw()


def verify_chain(
    chain: Sequence[bytes],
    *,
    root: bytes,
    now: datetime,
    names: DeviceNames | None = None,
    profile: CertificateProfile = PROFILES["standard"],
) -> IdentityCertificate:
    """Believe a device's certificate, or refuse it.

    1. The chain is leaf and issuing authority, within the size limits; the root is the pinned one, never the
       chain's.
    2. Path, dates, name constraints and path length hold (the library's path validation).
    3. Every key and signature on the path is of the profile's algorithm: path validation lets any leaf key
       through.
    4. The leaf is for client authentication and digital signatures, and for nothing else.
    5. It names one device, in the common name, one DNS name and one URI alike; the expected one, if given.

    Revocation is left to the caller, who knows the present state.

    Args:
        chain: DER, leaf first; a root at the end is ignored.
        root: DER of the pinned root.
        now: aware UTC.
        names: the device it must be; None if the caller only wants to know which one it is.
        profile: algorithms demanded at each place.

    Raises:
        CertificateNotValidError: one of the checks failed; the message says which.
        MalformedMessageError: not certificates.
    """
    # 1, 2 and 3
    leaf = believe_path(
        chain,
        root=root,
        now=now,
        keys=frozenset(ALGORITHMS[name].oid for name in profile.devices),
        issuing=ALGORITHMS[profile.issuing].oid,
        anchor=ALGORITHMS[profile.root].oid,
    )

    # 4
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        found, public = names_of(leaf), leaf.public_key()
    except x509.ExtensionNotFound as exc:
        raise CertificateNotValidError("the certificate does not say what it is for") from exc
    except UNREADABLE as exc:
        raise MalformedMessageError("a part of the certificate cannot be read") from exc
    if usage != key_usage(authority=False) or list(extended) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        raise CertificateNotValidError("the certificate is not made for a device")

    # 5
    if names is not None and found != names:
        raise CertificateNotValidError("the certificate names another device")

    assert isinstance(public, mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey)
    return IdentityCertificate(
        der=chain[0],
        fingerprint=fingerprint(chain[0]),
        serial=serial_of(chain[0]),
        device_id=found.device_id,
        dns_name=found.dns_name,
        algorithm=next(name for name in profile.devices if isinstance(public, ALGORITHMS[name].public)),
        public_key=public.public_bytes_raw(),
        not_before_at=leaf.not_valid_before_utc,
        not_after_at=leaf.not_valid_after_utc,
    )


def profile_of(issuing: bytes) -> CertificateProfile:
    """The profile of an issuing authority that the trust anchor vouches for, by the algorithm of its key.

    Raises:
        MalformedMessageError: not a certificate.
        CertificateNotValidError: of an algorithm that no profile has.
    """
    oid = load_certificate(issuing).public_key_algorithm_oid
    for profile in PROFILES.values():
        if ALGORITHMS[profile.issuing].oid == oid:
            return profile
    raise CertificateNotValidError("no profile has an issuing authority of this algorithm")


def names_of(leaf: x509.Certificate) -> DeviceNames:
    """Whom a leaf names, in the common name, one DNS name and one URI alike.

    Raises:
        CertificateNotValidError: nobody, or several.
    """

    def only(oid: x509.ObjectIdentifier) -> str:
        values = [str(item.value) for item in leaf.subject.get_attributes_for_oid(oid)]
        if len(values) != 1 or len(leaf.subject) != 3:
            raise CertificateNotValidError("the certificate's subject is not a device's")
        return values[0]

    names = DeviceNames(
        federation=only(NameOID.ORGANIZATION_NAME),
        site=only(NameOID.ORGANIZATIONAL_UNIT_NAME),
        device_id=only(NameOID.COMMON_NAME),
    )
    alternative = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert isinstance(alternative, x509.SubjectAlternativeName)
    if list(alternative) != [x509.DNSName(names.dns_name), x509.UniformResourceIdentifier(names.uri)]:
        raise CertificateNotValidError("the certificate's names contradict each other")
    return names


def common_name_of(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
