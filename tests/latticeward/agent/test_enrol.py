"""Enrolling a machine against an in-memory authority: once, again after a crash, and against impostors."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from latticeward.agent.enrol import PENDING_FILE, EnrolmentRequest, enrol
from latticeward.agent.identity import Identity, load_or_make_secrets
from latticeward.agent.work import IssuedCertificate
from latticeward.claim_code import ClaimCode, format_code, parse_code
from latticeward.crypto.certificate import fingerprint
from latticeward.crypto.signing import Purpose
from latticeward.device_keys import DevicePublicKeys
from latticeward.enrolment import FinishProofs, make_answer, verify_finish, verify_transcript
from latticeward.errors import (
    CertificateNotValidError,
    ClaimRefusedError,
    KeyUsageError,
    PermanentTransportError,
    TransientTransportError,
    UntrustedIssuerError,
    WrongContextError,
)
from latticeward.statements import sign_statement
from tests.latticeward.peers import (
    AUTHORITY,
    MINUTE,
    NOW,
    SITE,
    Authority,
    authority,
    claim,
    composite_key,
    device_keys,
    key_statement,
    meeting,
)

DEVICE_ID = "d0d0d0d0-0000-4000-8000-000000000001"
ENROLMENT_ID = "e0e0e0e0-0000-4000-8000-000000000001"


@dataclass
class FakeAuthority:
    """The server's side of enrolment, with the real rules and one claim."""

    issuer: Authority = field(default_factory=authority)
    mac_key: bytes = field(default_factory=lambda: claim().mac_key)
    transcripts: list[bytes] = field(default_factory=list)
    answer: bytes = b""
    keys: DevicePublicKeys | None = None
    patience: int = 1
    lose: str = ""
    bend: dict[str, Any] = field(default_factory=dict)

    def _maybe_lose(self, name: str) -> None:
        if self.lose == name:
            self.lose = ""
            raise TransientTransportError("the connection broke")

    def trust(self) -> bytes:
        return self.issuer.bundle()

    def begin_enrolment(self, transcript: bytes, mac: bytes) -> tuple[str, bytes, bytes]:
        verified = verify_transcript(
            transcript, mac, mac_key=self.mac_key, meeting=meeting(), site=SITE, device_class="edge"
        )
        self.transcripts.append(transcript)
        self.answer, answer_mac = make_answer(
            verified,
            enrolment_id=ENROLMENT_ID,
            device_id=DEVICE_ID,
            suite="hybrid",
            server_nonce=b"s" * 32,
            challenge=b"c" * 32,
            expires_at=NOW + 5 * MINUTE,
            mac_key=self.mac_key,
        )
        self._maybe_lose("begin")
        return ENROLMENT_ID, self.answer, answer_mac

    def finish_enrolment(self, enrolment_id: str, proofs: FinishProofs) -> str:
        self._maybe_lose("finish before")
        proven = verify_finish(
            proofs, transcript=self.transcripts[-1], answer=self.answer, challenge=b"c" * 32, now=NOW
        )
        self.keys = proven.transcript.keys
        self._maybe_lose("finish after")
        return "pending"

    def collect_certificate(self, enrolment_id: str, *, wait_seconds: int) -> IssuedCertificate | None:
        if self.keys is None:
            raise PermanentTransportError("not finished", server_code="not_authenticated")
        if self.patience:
            self.patience -= 1
            return None
        values: dict[str, Any] = {"device_id": DEVICE_ID, "public_key": self.keys.authentication.raw, **self.bend}
        leaf = self.issuer.certificate(values["public_key"], device_id=values["device_id"])
        statement = key_statement(
            values.get("keys", self.keys),
            device_id=DEVICE_ID,
            certificate_digest=fingerprint(leaf),
        )
        key = values.get("issuer", self.issuer.purpose_keys[Purpose.KEY_STATEMENT])
        return IssuedCertificate(chain=(leaf, self.issuer.issuing), statement=sign_statement(statement, key=key))


def run(home: Path, server: FakeAuthority, code: ClaimCode | None = None) -> Identity:
    return enrol(
        EnrolmentRequest(claim=code or claim(), server=f"http://{AUTHORITY}", name="ward 3"),
        home=home,
        secrets=load_or_make_secrets(home),
        transport=server,
        authority=AUTHORITY,
        clock=lambda: NOW,
        poll_seconds=0,
    )


def test_a_machine_enrols_and_keeps_its_identity(tmp_path: Path) -> None:
    server = FakeAuthority()
    identity = run(tmp_path, server)
    read = Identity.load(tmp_path)
    assert read is not None and read.device_id == identity.device_id == DEVICE_ID
    assert (read.site, read.epoch, read.anchor) == (SITE, 1, authority().anchor.fingerprint)
    assert not (tmp_path / PENDING_FILE).exists()


def test_the_claims_secret_is_never_written(tmp_path: Path) -> None:
    server = FakeAuthority(lose="finish before")
    with pytest.raises(TransientTransportError):
        run(tmp_path, server)
    run(tmp_path, server)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (claim().secret, claim().mac_key):
                assert secret not in content and secret.hex().encode() not in content


def test_a_typed_code_enrols_too(tmp_path: Path) -> None:
    assert run(tmp_path, FakeAuthority(), parse_code(format_code(claim()))).device_id == DEVICE_ID


@pytest.mark.parametrize("lost", ["begin", "finish before", "finish after"])
def test_an_interrupted_enrolment_goes_on_with_the_same_transcript(tmp_path: Path, lost: str) -> None:
    server = FakeAuthority(lose=lost)
    with pytest.raises(TransientTransportError):
        run(tmp_path, server)
    run(tmp_path, server)
    assert len(set(server.transcripts)) == 1
    assert len(server.transcripts) == (1 if lost == "finish after" else 2)


def test_another_claim_in_the_same_home_begins_afresh(tmp_path: Path) -> None:
    server = FakeAuthority(lose="finish before")
    with pytest.raises(TransientTransportError):
        run(tmp_path, server)
    other = replace(claim(), lookup_id=b"other", secret=b"s" * 16)
    server.mac_key = other.mac_key
    run(tmp_path, server, other)
    assert len(set(server.transcripts)) == 2


def test_an_enrolled_home_does_not_enrol_again(tmp_path: Path) -> None:
    run(tmp_path, FakeAuthority())
    with pytest.raises(KeyUsageError):
        run(tmp_path, FakeAuthority())


def test_an_anchor_other_than_the_claims_ends_it_before_anything_is_sent(tmp_path: Path) -> None:
    server = FakeAuthority()
    for code in (replace(claim(), anchor=bytes(32)), replace(claim(), anchor=bytes(8))):
        with pytest.raises(UntrustedIssuerError):
            run(tmp_path, server, code)
    assert server.transcripts == []


def test_a_wrong_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClaimRefusedError):
        run(tmp_path, FakeAuthority(), replace(claim(), secret=bytes(16)))


@pytest.mark.parametrize(
    ("bend", "error"),
    [
        ({"device_id": "d0d0d0d0-0000-4000-8000-000000000002"}, CertificateNotValidError),
        ({"public_key": device_keys(3).authentication.verify_key.raw}, WrongContextError),
        ({"keys": device_keys(3).public}, WrongContextError),
        ({"issuer": composite_key("stranger")}, UntrustedIssuerError),
    ],
    ids=["certificate of another device", "certificate of another key", "statement of other keys", "another issuer"],
)
def test_an_identity_that_is_not_ours_is_not_kept(tmp_path: Path, bend: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        run(tmp_path, FakeAuthority(bend=bend))
    assert Identity.load(tmp_path) is None
