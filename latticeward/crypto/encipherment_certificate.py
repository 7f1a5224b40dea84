"""The X.509 certificate of an encipherment key (RFC 9935): its only use, its file, and how its device believes it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mlkem

from latticeward.crypto.certificate import CertificateProfile, DeviceNames, names_of
from latticeward.crypto.certificate_keys import ALGORITHMS
from latticeward.crypto.certificate_path import UNREADABLE, believe_path, load_certificate
from latticeward.crypto.encipherment import ENCIPHERMENT_ALGORITHMS
from latticeward.errors import CertificateNotValidError, MalformedMessageError


@dataclass(frozen=True, slots=True, kw_only=True)
class EnciphermentCertificate:
    """A certificate whose chain has been verified. Made by ``verify_encipherment_chain`` only.

    Attributes:
        algorithm, public_key: of the subject's key, raw.
        not_after_at: aware UTC.
    """

    algorithm: str
    public_key: bytes
    not_after_at: datetime


def encipherment_usage() -> x509.KeyUsage:
    """``keyEncipherment`` and nothing else: the only key usage of an ML-KEM certificate (RFC 9935, section 5)."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def verify_encipherment_chain(
    chain: Sequence[bytes], *, root: bytes, now: datetime, names: DeviceNames, profile: CertificateProfile
) -> EnciphermentCertificate:
    """Believe the certificate of a device's encipherment key, or refuse it.

    1. The path holds below the pinned root (``believe_path``), and the leaf's key is of ML-KEM.
    2. The leaf is for key encipherment and for nothing else.
    3. It names the expected device.

    Args:
        chain: DER, leaf first.
        root: DER of the pinned root.
        now: aware UTC.
        profile: algorithms of the authorities.

    Raises:
        CertificateNotValidError: one of the checks failed; the message says which.
        MalformedMessageError: not certificates.
    """
    # 1
    leaf = believe_path(
        chain,
        root=root,
        now=now,
        keys=frozenset(row.oid for row in ENCIPHERMENT_ALGORITHMS.values()),
        issuing=ALGORITHMS[profile.issuing].oid,
        anchor=ALGORITHMS[profile.root].oid,
    )

    # 2
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = any(row.oid == x509.ExtendedKeyUsage.oid for row in leaf.extensions)
        found, public = names_of(leaf), leaf.public_key()
    except x509.ExtensionNotFound as exc:
        raise CertificateNotValidError("the certificate does not say what it is for") from exc
    except UNREADABLE as exc:
        raise MalformedMessageError("a part of the certificate cannot be read") from exc
    if usage != encipherment_usage() or extended:
        raise CertificateNotValidError("the certificate is not made for encipherment")

    # 3
    if found != names:
        raise CertificateNotValidError("the certificate names another device")

    assert isinstance(public, mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey)
    return EnciphermentCertificate(
        algorithm=next(row.name for row in ENCIPHERMENT_ALGORITHMS.values() if isinstance(public, row.public)),
        public_key=public.public_bytes_raw(),
        not_after_at=leaf.not_valid_after_utc,
    )


def as_pem(chain: Iterable[bytes]) -> bytes:
    """Certificates (DER) as one PEM file, in their order: what command lines read.

    Raises:
        MalformedMessageError: not certificates.
    """
    return b"".join(load_certificate(der).public_bytes(serialization.Encoding.PEM) for der in chain)
