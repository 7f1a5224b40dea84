"""The rules of RFC 5280, 6960, 5019, 9881 and 9935 for everything that the authority signs, field by field."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from django.test import Client

from devices import services
from devices.models import Site
from keys import renewal
from keys.models import Certificate, Reason, RevocationList
from keys.publication import LIST_LIFETIME, ROOT_LIST_LIFETIME, keep_published
from latticeward.crypto.certificate import DeviceNames
from latticeward.crypto.certificate_keys import ALGORITHMS, CertificateSigningKey
from latticeward.crypto.encipherment import DeciphermentKey
from latticeward.crypto.encipherment_certificate import encipherment_usage
from latticeward.crypto.issuing import issue_encipherment
from tests.devices.enciphering import certificate_of, enciphered
from tests.devices.machine import enrolled
from tests.keys.test_publication import ask, leaf_of, question

PLACES = ("root", "issuing", "reissued", "responder", "device", "encipherment")


@pytest.fixture
def made(site: Site) -> dict[str, x509.Certificate]:
    """One certificate of each kind, with two issuing authorities side by side."""
    machine = enrolled(site)
    renewal.reissue_authority(actor="user:1")
    keep_published()
    rows = {
        "root": Certificate.objects.get(key__purpose="root"),
        "issuing": Certificate.objects.get(key__purpose="issuing", key__state="deactivated"),
        "reissued": Certificate.objects.get(key__purpose="issuing", key__state="active"),
        "responder": Certificate.objects.filter(key__purpose="responder").order_by("not_after_at")[0],
        "device": leaf_of(machine),
        "encipherment": certificate_of(enciphered(machine)),
    }
    return {name: x509.load_der_x509_certificate(bytes(row.der)) for name, row in rows.items()}


def extension(certificate: Any, kind: type[Any]) -> x509.Extension[Any]:
    return certificate.extensions.get_extension_for_class(kind)  # type: ignore[no-any-return]


def issuer_of(made: dict[str, x509.Certificate], place: str) -> x509.Certificate:
    name = made[place].issuer
    return next(certificate for certificate in made.values() if certificate.subject == name)


@pytest.mark.parametrize("place", PLACES)
def test_a_certificate_keeps_the_rules_of_every_certificate(made: dict[str, x509.Certificate], place: str) -> None:
    found, above = made[place], issuer_of(made, place)
    assert found.version is x509.Version.v3
    # RFC 5280, 4.1.2.2: positive, at most 20 octets.
    assert 0 < found.serial_number < 2**159
    # 4.1.2.4 and 4.1.2.6: names are there.
    assert len(found.issuer) > 0 and len(found.subject) > 0
    # 4.1.2.5, and the certificate lies within its issuer's life.
    assert found.not_valid_before_utc < found.not_valid_after_utc <= above.not_valid_after_utc
    # 4.2.1.1 and 4.2.1.2: both key identifiers, not critical, and they fit the keys.
    subject, authority = extension(found, x509.SubjectKeyIdentifier), extension(found, x509.AuthorityKeyIdentifier)
    assert not subject.critical and not authority.critical
    assert authority.value.key_identifier == extension(above, x509.SubjectKeyIdentifier).value.digest
    assert subject.value == x509.SubjectKeyIdentifier.from_public_key(found.public_key())
    # Every extension once (4.2), and nothing critical that tools need not know.
    known = {x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.NameConstraints.oid, x509.ExtendedKeyUsage.oid}
    assert {row.oid for row in found.extensions if row.critical} <= known
    found.verify_directly_issued_by(above)


@pytest.mark.parametrize("place", [place for place in PLACES if place != "encipherment"])
def test_algorithms_are_written_as_rfc_9881_asks(made: dict[str, x509.Certificate], place: str) -> None:
    found = made[place]
    names = {row.oid.dotted_string: row for row in ALGORITHMS.values()}
    row = names[found.public_key_algorithm_oid.dotted_string]
    assert found.signature_algorithm_oid.dotted_string in names
    # No parameters: the AlgorithmIdentifier is a SEQUENCE of the OID alone (13 octets in all), three times over.
    oid = {"ml-dsa-65": "0609608648016503040312", "ml-dsa-87": "0609608648016503040313"}
    der = found.public_bytes(serialization.Encoding.DER)
    assert bytes.fromhex("300b" + oid[row.name]) in der
    assert b"\x30\x0d" + bytes.fromhex(oid[row.name]) not in der
    # 9881, section 5: of the key usages only signing ones.
    usage = extension(found, x509.KeyUsage)
    assert usage.critical
    for forbidden in ("key_encipherment", "data_encipherment", "key_agreement"):
        assert not getattr(usage.value, forbidden)


@pytest.mark.parametrize(("name", "oid"), [("ml-kem-768", "02"), ("ml-kem-1024", "03")])
def test_an_encipherment_key_is_written_as_rfc_9935_asks(
    made: dict[str, x509.Certificate], name: str, oid: str
) -> None:
    issuer = made["reissued"]
    key = DeciphermentKey.generate(name).encipherment_key
    signer = CertificateSigningKey.generate("ml-dsa-65")
    found = x509.load_der_x509_certificate(
        issue_encipherment(
            key,
            names=DeviceNames(federation="heart", site="cleveland", device_id="d"),
            issuing=issuer.public_bytes(serialization.Encoding.DER),
            issuing_key=signer,
            now=datetime.now(UTC),
            lifetime=timedelta(days=1),
        )
    )
    # Section 3: no parameters, so the AlgorithmIdentifier is a SEQUENCE of the OID alone.
    # Section 4: the key is the raw bytes of FIPS 203, in a BIT STRING without unused bits.
    algorithm = bytes.fromhex("300b06096086480165030404" + oid)
    bits = b"\x03\x82" + (len(key.raw) + 1).to_bytes(2, "big") + b"\x00" + key.raw
    assert algorithm + bits in found.public_bytes(serialization.Encoding.DER)


def test_an_encipherment_certificate_is_for_encipherment_alone(made: dict[str, x509.Certificate]) -> None:
    found = made["encipherment"]
    # RFC 9935, section 5: if there is a key usage, it is keyEncipherment and nothing else.
    usage = extension(found, x509.KeyUsage)
    assert usage.critical and usage.value == encipherment_usage()
    names = (
        "digital_signature",
        "content_commitment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
    )
    assert usage.value.key_encipherment and not any(getattr(usage.value, name) for name in names)
    basic = extension(found, x509.BasicConstraints)
    assert basic.critical and not basic.value.ca
    with pytest.raises(x509.ExtensionNotFound):
        extension(found, x509.ExtendedKeyUsage)
    # Signed with ML-DSA by the issuing authority, and named like the device's own certificate.
    assert found.signature_algorithm_oid == made["reissued"].public_key_algorithm_oid
    assert found.subject == made["device"].subject
    same = (x509.SubjectAlternativeName, x509.AuthorityInformationAccess)
    assert all(extension(found, kind) == extension(made["device"], kind) for kind in same)
    assert len(list(extension(found, x509.CRLDistributionPoints).value)) == 1


@pytest.mark.parametrize(("place", "path_length"), [("root", 1), ("issuing", 0), ("reissued", 0)])
def test_an_authority_may_sign_and_how_deep(made: dict[str, x509.Certificate], place: str, path_length: int) -> None:
    basic, usage = extension(made[place], x509.BasicConstraints), extension(made[place], x509.KeyUsage)
    assert basic.critical and basic.value.ca and basic.value.path_length == path_length
    assert usage.value.key_cert_sign and usage.value.crl_sign and not usage.value.digital_signature


@pytest.mark.parametrize("place", ["issuing", "reissued"])
def test_an_issuing_authority_is_confined_to_its_federation(made: dict[str, x509.Certificate], place: str) -> None:
    names = extension(made[place], x509.NameConstraints)
    assert names.critical
    assert names.value.permitted_subtrees == [x509.DNSName("heart.latticeward.internal")]
    assert list(extension(made[place], x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_issuing_authorities_differ_in_name_and_key(made: dict[str, x509.Certificate]) -> None:
    assert made["issuing"].subject != made["reissued"].subject
    ids = [extension(made[place], x509.SubjectKeyIdentifier).value.digest for place in ("issuing", "reissued")]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("place", ["responder", "device"])
def test_a_leaf_signs_no_certificates(made: dict[str, x509.Certificate], place: str) -> None:
    basic, usage = extension(made[place], x509.BasicConstraints), extension(made[place], x509.KeyUsage)
    assert basic.critical and not basic.value.ca
    assert usage.value.digital_signature and not usage.value.key_cert_sign and not usage.value.crl_sign


def test_the_responder_is_delegated_as_rfc_6960_asks(made: dict[str, x509.Certificate]) -> None:
    responder = made["responder"]
    assert list(extension(responder, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert not extension(responder, x509.OCSPNoCheck).critical
    # It is not asked about itself, so it lives short.
    assert responder.not_valid_after_utc - responder.not_valid_before_utc <= timedelta(days=31)


def test_a_device_names_itself_its_list_and_its_responder(made: dict[str, x509.Certificate]) -> None:
    device = made["device"]
    assert (
        extension(device, x509.SubjectAlternativeName)
        .value.get_values_for_type(x509.DNSName)[0]
        .endswith(".cleveland.heart.latticeward.internal")
    )
    assert list(extension(device, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    places = extension(device, x509.CRLDistributionPoints)
    assert not places.critical and len(list(places.value)) == 1
    (access,) = extension(device, x509.AuthorityInformationAccess).value
    assert access.access_method == AuthorityInformationAccessOID.OCSP


def test_lists_keep_the_rules_of_rfc_5280_section_5(made: dict[str, x509.Certificate], site: Site) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    since = datetime.now(UTC) - timedelta(days=2)
    services.revoke_device(
        device_id=machine.device.id, actor="user:2", reason=Reason.KEY_COMPROMISE, invalid_from=since
    )
    keep_published()
    numbers: dict[bytes, list[int]] = {}
    for row in RevocationList.objects.select_related("issuer").order_by("number"):
        crl = x509.load_der_x509_crl(bytes(row.der))
        issuer = x509.load_der_x509_certificate(bytes(row.issuer.der))
        public: Any = issuer.public_key()
        lifetime = ROOT_LIST_LIFETIME if issuer.issuer == issuer.subject else LIST_LIFETIME
        assert crl.issuer == issuer.subject and crl.is_signature_valid(public)
        assert crl.signature_algorithm_oid == issuer.public_key_algorithm_oid
        # 5.1.2.5: the end is there. 5.2.1, 5.2.3: key identifier and number, not critical.
        assert crl.next_update_utc is not None and crl.next_update_utc - crl.last_update_utc == lifetime
        authority, number = extension(crl, x509.AuthorityKeyIdentifier), extension(crl, x509.CRLNumber)
        assert not authority.critical and not number.critical
        assert authority.value.key_identifier == extension(issuer, x509.SubjectKeyIdentifier).value.digest
        numbers.setdefault(bytes(row.issuer.der), []).append(number.value.crl_number)
        for entry in crl:
            # 5.3.1: a reason of zero is left out; 5.3.2: the date of the compromise, not critical.
            assert extension(entry, x509.CRLReason).value.reason is not x509.ReasonFlags.unspecified
            assert not extension(entry, x509.InvalidityDate).critical
            assert entry.revocation_date_utc <= crl.last_update_utc
    assert len(numbers) == 3  # the root and two issuing authorities
    assert all(found == sorted(set(found)) for found in numbers.values())


def test_an_unspecified_reason_is_left_out(site: Site) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    services.revoke_device(device_id=machine.device.id, actor="user:2", reason=Reason.UNSPECIFIED)
    keep_published()
    newest = RevocationList.objects.filter(issuer__key__purpose="issuing").order_by("-number")[0]
    (entry,) = x509.load_der_x509_crl(bytes(newest.der))
    with pytest.raises(x509.ExtensionNotFound):
        extension(entry, x509.CRLReason)


@pytest.mark.parametrize("digest", [hashes.SHA1(), hashes.SHA256()], ids=["sha1", "sha256"])
def test_status_answers_keep_the_rules_of_rfc_6960(site: Site, client: Client, digest: hashes.HashAlgorithm) -> None:
    machine = enrolled(site)
    keep_published()
    row = leaf_of(machine)
    assert row.issuer is not None
    issuer = x509.load_der_x509_certificate(bytes(row.issuer.der))
    told = ask(client, question(machine, digest))
    assert told.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    # 4.2.1 and 4.1.1: about the certificate that was asked for, in the digest that was asked with.
    assert f"{told.serial_number:x}" == row.serial and told.hash_algorithm.name == digest.name
    # 4.2.2.1: times in order, the next one within a week.
    assert told.next_update_utc is not None
    assert told.this_update_utc <= datetime.now(UTC) < told.next_update_utc
    assert told.next_update_utc - told.this_update_utc <= timedelta(days=7)
    # 4.2.2.2: signed by a delegate of the very issuer, whose certificate is inside and outlives the answer.
    (responder,) = told.certificates
    responder.verify_directly_issued_by(issuer)
    assert told.next_update_utc <= responder.not_valid_after_utc
    assert told.responder_key_hash is not None and told.responder_name is None
    public: Any = responder.public_key()
    public.verify(told.signature, told.tbs_response_bytes)
    with pytest.raises(InvalidSignature):
        public.verify(told.signature, told.tbs_response_bytes + b"\x00")
