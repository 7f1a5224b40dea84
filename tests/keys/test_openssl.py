"""The OpenSSL command line (3.5 or later) believes what the authority signs, refuses what was revoked, and encrypts.

Runs where such a program is: the one that ``LATTICEWARD_TEST_OPENSSL`` names, or the one on the path. Where there is
none, ``test_rules.py`` holds the same certificates, lists and answers to the standards' rules.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.test import Client

from devices import services
from devices.models import Site
from keys import renewal
from keys.models import Certificate, Reason, RevocationList
from keys.publication import keep_published
from latticeward.crypto.encipherment import DeciphermentKey, encipherment_algorithm
from latticeward.device_keys import DeviceKeys
from tests.devices.enciphering import Enciphering, certificate_of, enciphered
from tests.devices.machine import Machine, enrolled
from tests.keys.test_publication import leaf_of
from tests.run import find_openssl

OPENSSL = find_openssl()
pytestmark = [
    pytest.mark.openssl,
    pytest.mark.skipif(OPENSSL is None, reason="needs an OpenSSL command line of 3.5 or later"),
]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    assert OPENSSL is not None
    command = [OPENSSL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def knows_kem_recipients() -> bool:
    """Whether its CMS encrypts to ML-KEM, which came with 3.6; certificates and keys it reads since 3.5."""
    found = re.match(r"OpenSSL (\d+)\.(\d+)", run("version").stdout) if OPENSSL else None
    return found is not None and (int(found[1]), int(found[2])) >= (3, 6)


def pem(path: Path, *ders: bytes) -> Path:
    path.write_bytes(
        b"".join(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in ders)
    )
    return path


class Files:
    """What somebody with only files and the command line has: root, intermediates, lists, one leaf."""

    def __init__(self, folder: Path, row: Certificate, *, purpose: str = "sslclient") -> None:
        self.purpose = purpose
        assert row.issuer is not None
        self.folder = folder
        self.root = pem(folder / "root.pem", bytes(Certificate.objects.get(key__purpose="root").der))
        self.issuer = pem(folder / "issuer.pem", bytes(row.issuer.der))
        self.leaf = pem(folder / "leaf.pem", bytes(row.der))
        self.lists = folder / "lists.pem"
        newest = [
            RevocationList.objects.filter(issuer=issuer).order_by("-number")[0]
            for issuer in (row.issuer, row.issuer.issuer)
        ]
        lists = [x509.load_der_x509_crl(bytes(one.der)) for one in newest]
        self.lists.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in lists))

    def verify(self) -> subprocess.CompletedProcess[str]:
        arguments = ["-CAfile", self.root, "-untrusted", self.issuer, "-CRLfile", self.lists, "-purpose", self.purpose]
        return run("verify", "-crl_check_all", "-x509_strict", *arguments, self.leaf)

    def ask(self, client: Client) -> subprocess.CompletedProcess[str]:
        question, answer = self.folder / "question.der", self.folder / "answer.der"
        made = run("ocsp", "-sha256", "-issuer", self.issuer, "-cert", self.leaf, "-no_nonce", "-reqout", question)
        assert made.returncode == 0, made.stderr
        told = client.post("/api/v1/ocsp", question.read_bytes(), content_type="application/ocsp-request")
        answer.write_bytes(told.content)
        arguments = ["-CAfile", self.root, "-verify_other", self.issuer, "-issuer", self.issuer, "-cert", self.leaf]
        return run("ocsp", "-respin", answer, "-sha256", *arguments)


@pytest.mark.parametrize("reissued", [False, True], ids=["first issuer", "after a new issuer"])
def test_a_good_certificate_passes_and_a_revoked_one_does_not(
    site: Site, client: Client, tmp_path: Path, reissued: bool
) -> None:
    machine = enrolled(site)
    if reissued:
        renewal.reissue_authority(actor="user:1")
    keep_published()
    good = Files(tmp_path, leaf_of(machine))
    assert good.verify().returncode == 0, good.verify().stderr
    told = good.ask(client)
    assert "Response verify OK" in told.stderr + told.stdout and ": good" in told.stdout
    assert machine.device is not None
    services.revoke_device(device_id=machine.device.id, actor="user:2", reason=Reason.KEY_COMPROMISE)
    keep_published()
    lost = Files(tmp_path, leaf_of(machine))
    refused = lost.verify()
    assert refused.returncode != 0 and "certificate revoked" in refused.stderr + refused.stdout
    told = lost.ask(client)
    assert ": revoked" in told.stdout and "keyCompromise" in told.stdout


def test_a_suspended_certificate_is_on_hold(site: Site, client: Client, tmp_path: Path) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    services.suspend_device(device_id=machine.device.id, actor="user:1")
    keep_published()
    assert "certificateHold" in Files(tmp_path, leaf_of(machine)).ask(client).stdout


def encrypted(files: Files, plain: Path) -> Path:
    """A CMS message to the leaf, as anybody makes it who has the certificate only."""
    message = files.folder / "message.cms"
    arguments = ["-in", plain, "-out", message, "-outform", "DER", "-recip", files.leaf]
    made = run("cms", "-encrypt", "-binary", "-aes-256-gcm", *arguments)
    assert made.returncode == 0, made.stderr
    return message


def decrypted(files: Files, message: Path, key: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["-in", message, "-inform", "DER", "-recip", files.leaf, "-inkey", key, "-out", files.folder / "read"]
    return run("cms", "-decrypt", "-binary", *arguments)


def written(folder: Path, asking: Enciphering) -> Path:
    path = folder / "key.pem"
    path.write_bytes(asking.key.export_pkcs8())
    return path


@pytest.mark.skipif(not knows_kem_recipients(), reason="needs an OpenSSL command line of 3.6 or later")
@pytest.mark.parametrize("suite", ["hybrid", "high"])
def test_standard_tools_encrypt_to_a_device(site: Site, tmp_path: Path, settings: Any, suite: str) -> None:
    settings.ACCEPTED_SUITES = ("hybrid", "high")
    machine = Machine.with_claim(site)
    machine.keys = DeviceKeys.generate(suite)
    device = machine.finish(machine.begin(machine.transcript(suites=(suite,), floor=suite)))
    services.approve_device(device_id=device.id, actor="user:1")
    services.issue(device_id=device.id)
    asking = enciphered(machine, DeciphermentKey.generate(encipherment_algorithm(suite)))
    keep_published()
    files = Files(tmp_path, certificate_of(asking), purpose="any")
    assert files.verify().returncode == 0, files.verify().stderr
    key, plain = written(tmp_path, asking), tmp_path / "plain"
    plain.write_bytes(b"for the device alone\n" * 1000)
    message = encrypted(files, plain)
    # The recipient is a KEMRecipientInfo (RFC 9629) with the OID of RFC 9936.
    shown = run("cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", message).stdout
    assert "id-smime-ori-kem" in shown and f"algorithm: {asking.key.algorithm.upper()}" in shown
    opened = decrypted(files, message, key)
    assert opened.returncode == 0, opened.stderr
    assert (tmp_path / "read").read_bytes() == plain.read_bytes()
    key.write_bytes(DeciphermentKey.generate(encipherment_algorithm(suite)).export_pkcs8())
    assert decrypted(files, message, key).returncode != 0


def test_the_private_key_that_is_exported_is_the_certificates(site: Site, tmp_path: Path) -> None:
    asking = enciphered(enrolled(site))
    keep_published()
    files, key = Files(tmp_path, certificate_of(asking)), written(tmp_path, asking)
    of_key = run("pkey", "-in", key, "-pubout")
    of_certificate = run("x509", "-in", files.leaf, "-noout", "-pubkey")
    assert of_key.returncode == 0 and of_key.stdout == of_certificate.stdout
    assert "seed" in run("pkey", "-in", key, "-noout", "-text").stdout


@pytest.mark.parametrize("ending", ["superseded", "revoked"])
def test_an_encipherment_certificate_that_is_over_is_refused(
    site: Site, client: Client, tmp_path: Path, ending: str
) -> None:
    machine = enrolled(site)
    asking = enciphered(machine)
    keep_published()
    good = Files(tmp_path, certificate_of(asking), purpose="any")
    assert good.verify().returncode == 0 and ": good" in good.ask(client).stdout
    assert machine.device is not None
    if ending == "superseded":
        enciphered(machine)
    else:
        services.revoke_device(device_id=machine.device.id, actor="user:2", reason=Reason.KEY_COMPROMISE)
    keep_published()
    lost = Files(tmp_path, certificate_of(asking), purpose="any")
    refused = lost.verify()
    assert refused.returncode != 0 and "certificate revoked" in refused.stderr + refused.stdout
    told = lost.ask(client).stdout
    assert ": revoked" in told and ("superseded" if ending == "superseded" else "keyCompromise") in told
