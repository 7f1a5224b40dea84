"""Reading certificates, and believing a path of three; what the leaf says is for ``certificate.py`` to judge."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import verification

from latticeward.errors import CertificateNotValidError, MalformedMessageError

SIZE_LIMIT_BYTES: Final = 16_384  # an ML-DSA-87 certificate with an ML-DSA-87 subject is about 7.7 kB
_CHAIN_LIMIT: Final = 3
# What the X.509 library raises over broken bytes: half of it is no ValueError, and much of it comes after loading,
# since fields are read when they are asked for.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def load_certificate(der: bytes) -> x509.Certificate:
    """Read a certificate; says nothing about who signed it.

    Raises:
        MalformedMessageError
    """
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE as exc:
        raise MalformedMessageError("not a certificate") from exc


def believe_path(
    chain: Sequence[bytes],
    *,
    root: bytes,
    now: datetime,
    keys: frozenset[x509.ObjectIdentifier],
    issuing: x509.ObjectIdentifier,
    anchor: x509.ObjectIdentifier,
) -> x509.Certificate:
    """Believe that a leaf was signed by an issuing authority below the pinned root, or refuse it.

    1. The chain is leaf and issuing authority, within the size limits; the root is the pinned one, never the chain's.
    2. Path, dates, name constraints and path length hold (the library's path validation).
    3. Every key and signature on the path is of the algorithm asked for: path validation lets any leaf key through.

    Args:
        chain: DER, leaf first; a root at the end is ignored.
        root: DER of the pinned root.
        now: aware UTC.
        keys: algorithms that the leaf's key may be of.
        issuing, anchor: the algorithm of the issuing authority's key and of the root's.

    Returns:
        The leaf; what it is for is left to the caller.

    Raises:
        CertificateNotValidError: one of the checks failed; the message says which.
        MalformedMessageError: not certificates.
    """
    # 1
    if not 2 <= len(chain) <= _CHAIN_LIMIT or any(len(der) > SIZE_LIMIT_BYTES for der in chain):
        raise CertificateNotValidError("a chain is leaf, issuing authority and at most a root")
    leaf, middle, top = load_certificate(chain[0]), load_certificate(chain[1]), load_certificate(root)

    # 2
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([top]))
        .time(now)
        .max_chain_depth(1)
        .build_client_verifier()
    )
    try:
        path = verifier.verify(leaf, [middle]).chain
    except verification.VerificationError as exc:
        raise CertificateNotValidError(f"path validation refused the chain: {exc}") from exc
    except UNREADABLE as exc:
        raise MalformedMessageError("a part of the certificate cannot be read") from exc
    if len(path) != 3:
        raise CertificateNotValidError("the leaf must be signed by the issuing authority, that by the root")

    # 3
    for certificate, of_key, of_signer in (
        (leaf, keys, issuing),
        (middle, frozenset({issuing}), anchor),
        (top, frozenset({anchor}), anchor),
    ):
        if certificate.signature_algorithm_oid != of_signer or certificate.public_key_algorithm_oid not in of_key:
            raise CertificateNotValidError("a key or signature on the path is of another algorithm")
    return leaf
