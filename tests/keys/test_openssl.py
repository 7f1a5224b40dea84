"""The OpenSSL command line (3.5 or later) believes what the authority signs, and refuses what was revoked.

Runs where such a program is: the one that ``LATTICEWARD_TEST_OPENSSL`` names, or the one on the path. Where there is
none, ``test_rules.py`` holds the same certificates, lists and answers to the standards' rules.
"""

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.test import Client

from devices import services
from devices.models import Site
from keys import renewal
from keys.models import Certificate, Reason, RevocationList
from keys.publication import keep_published
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


def pem(path: Path, *ders: bytes) -> Path:
    path.write_bytes(
        b"".join(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in ders)
    )
    return path


class Files:
    """What somebody with only files and the command line has: root, intermediates, lists, one leaf."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        row = leaf_of(machine)
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
        arguments = ["-CAfile", self.root, "-untrusted", self.issuer, "-CRLfile", self.lists, "-purpose", "sslclient"]
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
    good = Files(tmp_path, machine)
    assert good.verify().returncode == 0, good.verify().stderr
    told = good.ask(client)
    assert "Response verify OK" in told.stderr + told.stdout and ": good" in told.stdout
    assert machine.device is not None
    services.revoke_device(device_id=machine.device.id, actor="user:2", reason=Reason.KEY_COMPROMISE)
    keep_published()
    lost = Files(tmp_path, machine)
    refused = lost.verify()
    assert refused.returncode != 0 and "certificate revoked" in refused.stderr + refused.stdout
    told = lost.ask(client)
    assert ": revoked" in told.stdout and "keyCompromise" in told.stdout


def test_a_suspended_certificate_is_on_hold(site: Site, client: Client, tmp_path: Path) -> None:
    machine = enrolled(site)
    assert machine.device is not None
    services.suspend_device(device_id=machine.device.id, actor="user:1")
    keep_published()
    assert "certificateHold" in Files(tmp_path, machine).ask(client).stdout
