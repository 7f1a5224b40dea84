"""The X.509 hierarchy: what passes, and everything that must not."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from latticeward.crypto.authentication import ML_DSA_65
from latticeward.crypto.certificate import (
    PROFILES,
    DeviceNames,
    fingerprint,
    key_usage,
    make_csr,
    verify_chain,
    verify_csr,
)
from latticeward.crypto.certificate_keys import ML_DSA_87, CertificateSigningKey
from latticeward.crypto.issuing import DEVICE_LIFETIME, issue_device, make_issuing, make_responder, make_root
from latticeward.errors import CertificateNotValidError, KeyUsageError, MalformedMessageError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NAMES = DeviceNames(federation="heart", site="cleveland", device_id="0b0fb5a2-5f5d-4a0a-9d0a-54d3f1b0c7aa")


class Authority:
    """A hierarchy of one profile, made once for all tests."""

    def __init__(self, profile: str) -> None:
        self.profile = PROFILES[profile]
        self.root_key = CertificateSigningKey.generate(self.profile.root)
        self.root = make_root(self.root_key, name="Latticeward root", now=NOW)
        self.issuing_key = CertificateSigningKey.generate(self.profile.issuing)
        self.issuing = make_issuing(
            self.issuing_key.public_raw,
            algorithm=self.profile.issuing,
            federation="heart",
            root=self.root,
            root_key=self.root_key,
            now=NOW,
        )
        self.device_key = CertificateSigningKey.generate(self.profile.devices[0])

    def issue(self, names: DeviceNames = NAMES, lifetime: timedelta = DEVICE_LIFETIME) -> bytes:
        return issue_device(
            self.device_key.public_raw,
            algorithm=self.profile.devices[0],
            names=names,
            issuing=self.issuing,
            issuing_key=self.issuing_key,
            now=NOW,
            lifetime=lifetime,
        )


@functools.cache
def authority(profile: str = "standard") -> Authority:
    return Authority(profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_chain_of_each_profile_verifies_and_gives_the_device_and_its_key(profile: str) -> None:
    made = authority(profile)
    leaf = made.issue()
    certificate = verify_chain([leaf, made.issuing], root=made.root, now=NOW, names=NAMES, profile=PROFILES[profile])
    assert certificate.device_id == NAMES.device_id
    assert certificate.public_key == made.device_key.public_raw
    assert certificate.fingerprint == fingerprint(leaf)
    assert certificate.not_after_at - NOW == timedelta(days=90)


def test_a_chain_of_the_weaker_profile_is_refused_by_the_stronger() -> None:
    made = authority()
    with pytest.raises(CertificateNotValidError, match="algorithm"):
        verify_chain([made.issue(), made.issuing], root=made.root, now=NOW, profile=PROFILES["cnsa2"])


@pytest.mark.parametrize("now", [NOW - timedelta(minutes=6), NOW + timedelta(days=91)])
def test_a_certificate_outside_its_dates_is_refused(now: datetime) -> None:
    made = authority()
    with pytest.raises(CertificateNotValidError):
        verify_chain([made.issue(), made.issuing], root=made.root, now=now)


def test_a_stranger_root_is_refused() -> None:
    made, key = authority(), CertificateSigningKey.generate(ML_DSA_87)
    with pytest.raises(CertificateNotValidError):
        verify_chain([made.issue(), made.issuing], root=make_root(key, name="Latticeward root", now=NOW), now=NOW)


def test_names_of_another_federation_cannot_be_issued_by_this_authority() -> None:
    made = authority()
    leaf = made.issue(DeviceNames(federation="thyroid", site="svi", device_id=NAMES.device_id))
    with pytest.raises(CertificateNotValidError):
        verify_chain([leaf, made.issuing], root=made.root, now=NOW)


def test_the_certificate_of_another_device_is_refused() -> None:
    made = authority()
    other = DeviceNames(federation="heart", site="cleveland", device_id="5a0b9dc8-1c5d-4b6f-8a3e-aaaaaaaaaaaa")
    with pytest.raises(CertificateNotValidError, match="another device"):
        verify_chain([made.issue(), made.issuing], root=made.root, now=NOW, names=other)


def test_a_status_responder_does_not_pass_for_a_device() -> None:
    made = authority()
    key = CertificateSigningKey.generate(ML_DSA_65)
    responder = make_responder(
        key.public_raw, algorithm=ML_DSA_65, issuing=made.issuing, issuing_key=made.issuing_key, now=NOW
    )
    with pytest.raises(CertificateNotValidError):
        verify_chain([responder, made.issuing], root=made.root, now=NOW)


def test_a_device_cannot_issue() -> None:
    made = authority()
    leaf = made.issue()
    key = CertificateSigningKey.generate(ML_DSA_65)
    forged = issue_device(
        key.public_raw, algorithm=ML_DSA_65, names=NAMES, issuing=leaf, issuing_key=made.device_key, now=NOW
    )
    with pytest.raises(CertificateNotValidError):
        verify_chain([forged, leaf, made.issuing], root=made.root, now=NOW)


def test_the_issuing_authority_cannot_make_another_authority() -> None:
    made = authority()
    key = CertificateSigningKey.generate(ML_DSA_65)
    deeper = make_issuing(
        key.public_raw,
        algorithm=ML_DSA_65,
        federation="heart",
        root=made.issuing,
        root_key=made.issuing_key,
        now=NOW,
    )
    leaf = issue_device(
        made.device_key.public_raw, algorithm=ML_DSA_65, names=NAMES, issuing=deeper, issuing_key=key, now=NOW
    )
    with pytest.raises(CertificateNotValidError):
        verify_chain([leaf, deeper, made.issuing], root=made.root, now=NOW)


def _leaf_with(subject_key: object, usage: list[x509.ObjectIdentifier], stated: x509.KeyUsage | None = None) -> bytes:
    """A leaf that the issuing authority really signed, of a kind that it must never have signed."""
    made = authority()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, NAMES.federation),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, NAMES.site),
            x509.NameAttribute(NameOID.COMMON_NAME, NAMES.device_id),
        ]
    )
    issuer = x509.load_der_x509_certificate(made.issuing)
    names = [x509.DNSName(NAMES.dns_name), x509.UniformResourceIdentifier(NAMES.uri)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(subject_key)  # type: ignore[arg-type]
        .serial_number(7)
        .not_valid_before(NOW - timedelta(minutes=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    if stated is not None:
        builder = builder.add_extension(stated, critical=True)
    return builder.sign(made.issuing_key.private, None).public_bytes(serialization.Encoding.DER)


def test_a_classical_subject_key_is_refused_though_path_validation_lets_it_through() -> None:
    made = authority()
    leaf = _leaf_with(ed25519.Ed25519PrivateKey.generate().public_key(), [ExtendedKeyUsageOID.CLIENT_AUTH])
    with pytest.raises(CertificateNotValidError, match="algorithm"):
        verify_chain([leaf, made.issuing], root=made.root, now=NOW)


def test_a_leaf_without_stated_key_usage_or_with_more_purposes_is_refused() -> None:
    made = authority()
    key = mldsa.MLDSA65PrivateKey.generate().public_key()
    for usage in (
        [ExtendedKeyUsageOID.CLIENT_AUTH],
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
    ):
        with pytest.raises(CertificateNotValidError):
            verify_chain([_leaf_with(key, usage), made.issuing], root=made.root, now=NOW)


def test_a_leaf_that_may_do_more_than_sign_is_refused() -> None:
    made = authority()
    key = mldsa.MLDSA65PrivateKey.generate().public_key()
    right = key_usage(authority=False)
    with pytest.raises(CertificateNotValidError, match=r"path validation|not made for a device"):
        verify_chain(
            [_leaf_with(key, [ExtendedKeyUsageOID.CLIENT_AUTH], key_usage(authority=True)), made.issuing],
            root=made.root,
            now=NOW,
        )
    wider = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    chain = [_leaf_with(key, [ExtendedKeyUsageOID.CLIENT_AUTH], wider), made.issuing]
    with pytest.raises(CertificateNotValidError, match="not made for a device"):
        verify_chain(chain, root=made.root, now=NOW)
    chain[0] = _leaf_with(key, [ExtendedKeyUsageOID.CLIENT_AUTH], right)
    assert verify_chain(chain, root=made.root, now=NOW).device_id == NAMES.device_id


def test_any_flipped_byte_of_the_leaf_is_refused() -> None:
    made = authority()
    leaf = made.issue()
    for position in range(0, len(leaf), 97):
        changed = bytearray(leaf)
        changed[position] ^= 1
        with pytest.raises((CertificateNotValidError, MalformedMessageError)):
            verify_chain([bytes(changed), made.issuing], root=made.root, now=NOW, names=NAMES)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01"),  # version 2, which the library has an error of its own for
        (b"\x55\x1d\x25", b"\x55\x1d\x0f"),  # two extensions of one kind
        (b"cleveland", b"\xffleveland"),  # a subject that is no UTF-8
    ],
)
def test_a_leaf_that_the_library_stumbles_over_is_refused_signed_or_not(old: bytes, new: bytes) -> None:
    made = authority()
    leaf = made.issue()
    assert old in leaf
    broken = leaf.replace(old, new, 1)
    for der in (broken, resigned(broken, made.issuing_key.private.sign)):
        with pytest.raises((CertificateNotValidError, MalformedMessageError)):
            verify_chain([der, made.issuing], root=made.root, now=NOW)


def resigned(der: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The certificate with a signature that holds; both lengths of it have two bytes, and an ML-DSA-65 one has 3309."""
    body_bytes = 4 + int.from_bytes(der[6:8], "big")
    body = der[4 : 4 + body_bytes]
    return der[: len(der) - 3309] + sign(body)


def test_a_certificate_never_outlives_its_issuer() -> None:
    made = authority()
    leaf = made.issue(lifetime=timedelta(days=5000))
    end = x509.load_der_x509_certificate(made.issuing).not_valid_after_utc
    assert x509.load_der_x509_certificate(leaf).not_valid_after_utc == end


def test_a_request_proves_its_key_and_gives_nothing_else() -> None:
    key = CertificateSigningKey.generate(ML_DSA_65)
    assert verify_csr(make_csr(key, common_name="anything at all")) == key.public_raw


def test_a_request_for_another_algorithm_is_refused() -> None:
    key = CertificateSigningKey.generate(ML_DSA_87)
    with pytest.raises(KeyUsageError):
        verify_csr(make_csr(key))


def test_a_changed_or_truncated_request_is_refused() -> None:
    csr = make_csr(CertificateSigningKey.generate(ML_DSA_65))
    of_version_9 = csr.replace(b"\x02\x01\x00", b"\x02\x01\x08", 1)
    for changed in (csr[:-1] + bytes([csr[-1] ^ 1]), csr[:-1], b"", b"\x30" * 20_000, of_version_9):
        with pytest.raises((CertificateNotValidError, MalformedMessageError)):
            verify_csr(changed)


def test_a_secret_key_does_not_show_compare_or_pickle() -> None:
    import pickle

    key = CertificateSigningKey.generate(ML_DSA_65)
    assert key.export_seed().hex() not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
