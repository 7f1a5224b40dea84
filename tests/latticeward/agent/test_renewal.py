"""The agent renews its keys: by itself, when asked, and through a kill at every step, always with the same bytes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from latticeward.agent.config import AgentConfig
from latticeward.agent.identity import Identity, load_secrets, make_secrets
from latticeward.agent.renewal import PENDING_FILE, RenewalKeeper, own_renewal_at
from latticeward.agent.work import IssuedCertificate, Work, WorkRenewal
from latticeward.crypto.certificate import fingerprint
from latticeward.crypto.signing import Purpose
from latticeward.device_keys import DeviceKeys
from latticeward.errors import LatticewardError, PermanentTransportError, TransientTransportError, WrongContextError
from latticeward.renewal import RenewalProofs, make_renewal_answer, verify_renewal, verify_renewal_finish
from latticeward.statements import KeyStatement, sign_statement
from latticeward.trust import TrustStore
from tests.latticeward.peers import (
    AUTHORITY,
    FEDERATION_ID,
    MINUTE,
    NOW,
    SITE,
    Authority,
    authority,
    key_statement,
    meeting,
)

DEVICE_ID = "d0d0d0d0-0000-4000-8000-000000000001"
RENEWAL_ID = "e0e0e0e0-0000-4000-8000-000000000001"
CHALLENGE = b"c" * 32


class Killed(BaseException):
    """The process ends here; nothing of it runs any more."""


@dataclass
class RenewalServer:
    """The server's side with the real checks, and a place to be killed at for each call."""

    parent: KeyStatement
    issuer: Authority = field(default_factory=authority)
    now: datetime = NOW
    begun: list[bytes] = field(default_factory=list)
    proven: KeyStatement | None = None
    issued: IssuedCertificate | None = None
    slow: int = 0
    refuse_begin: str = ""
    die: dict[str, str] = field(default_factory=dict)
    signer: DeviceKeys | None = None

    def at(self, place: str) -> None:
        how = self.die.pop(place, "")
        if how == "kill":
            raise Killed
        if how == "cut":
            raise TransientTransportError("the connection broke")

    def begin(self, transcript: bytes) -> tuple[str, bytes]:
        if self.refuse_begin:
            raise PermanentTransportError("refused", server_code=self.refuse_begin)
        self.at("before begin")
        verified = verify_renewal(transcript, meeting=meeting(), parent=self.parent)
        if self.begun and self.begun[0] != transcript:
            raise PermanentTransportError("a copy", server_code="renewal_conflict")
        self.begun.append(transcript)
        self.answer = make_renewal_answer(
            verified,
            renewal_id=RENEWAL_ID,
            suite=verified.transcript.suites[0],
            server_nonce=b"s" * 32,
            challenge=CHALLENGE,
            expires_at=self.now + 5 * MINUTE,
        )
        self.at("after begin")
        return RENEWAL_ID, self.answer

    def finish(self, proofs: RenewalProofs) -> str:
        self.at("before finish")
        proven = verify_renewal_finish(
            proofs,
            transcript=self.begun[-1],
            answer=self.answer,
            challenge=CHALLENGE,
            parent=self.parent.keys.signing,
            now=self.now,
        ).enrolment
        keys = proven.transcript.keys
        leaf = self.issuer.certificate(keys.authentication.raw, device_id=DEVICE_ID, now=self.now)
        self.proven = key_statement(
            keys, device_id=DEVICE_ID, certificate_digest=fingerprint(leaf), epoch=proven.transcript.epoch
        )
        signed = sign_statement(self.proven, key=self.issuer.purpose_keys[Purpose.KEY_STATEMENT])
        self.issued = IssuedCertificate(chain=(leaf, self.issuer.issuing), statement=signed)
        self.at("after finish")
        return "proven"

    def collect(self, keys: DeviceKeys) -> IssuedCertificate | None:
        self.at("before collect")
        if self.proven is None or self.proven.keys.authentication.raw != keys.authentication.verify_key.raw:
            raise PermanentTransportError("nobody has this key", server_code="not_authenticated")
        if self.slow:
            self.slow -= 1
            return None
        self.at("after collect")
        return self.issued


@dataclass
class Signing:
    """A transport that signs with one set of keys."""

    server: RenewalServer
    keys: DeviceKeys
    authority: str = AUTHORITY

    def begin_renewal(self, transcript: bytes) -> tuple[str, bytes]:
        return self.server.begin(transcript)

    def finish_renewal(self, renewal_id: str, proofs: RenewalProofs) -> str:
        assert renewal_id == RENEWAL_ID
        return self.server.finish(proofs)

    def collect_renewal(self, renewal_id: str, *, wait_seconds: int) -> IssuedCertificate | None:
        return self.server.collect(self.keys)


def work(suite: str = "", reason: str = "rotation") -> Work:
    renewal = WorkRenewal(suite=suite, reason=reason) if suite else None
    return Work(token="t", server_time=NOW, rounds=(), models=(), renewal=renewal)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An enrolled machine of epoch 1."""
    home = tmp_path / "home"
    secrets = make_secrets(home, suite="hybrid", epoch=1, local_seed=bytes(range(32)))
    statement = key_statement(secrets.keys.public, device_id=DEVICE_ID)
    Identity(
        device_id=DEVICE_ID,
        federation_id=FEDERATION_ID,
        site=SITE,
        server=f"http://{AUTHORITY}",
        anchor=authority().anchor.fingerprint,
        epoch=1,
        secrets=secrets,
        certificate_chain=(b"leaf", b"issuing"),
        statement=sign_statement(statement, key=authority().purpose_keys[Purpose.KEY_STATEMENT]),
    ).save(home)
    return home


@pytest.fixture
def server(home: Path) -> RenewalServer:
    return RenewalServer(parent=key_statement(identity(home).secrets.keys.public, device_id=DEVICE_ID))


def identity(home: Path) -> Identity:
    found = Identity.load(home)
    assert found is not None
    return found


def keeper(home: Path, server: RenewalServer, **settings: Any) -> RenewalKeeper:
    """A new life of the agent in this home."""
    here = identity(home)
    trust: Callable[[], TrustStore] = lambda: TrustStore.from_signed(  # noqa: E731
        server.issuer.bundle(), anchor_fingerprint=here.anchor, now=server.now, authority=AUTHORITY
    )
    return RenewalKeeper(
        config=AgentConfig(home=home, poll_seconds=0, **settings),
        identity=here,
        transport=Signing(server, here.secrets.keys),
        transport_for=lambda keys: Signing(server, keys),
        trust=trust,
        clock=lambda: server.now,
    )


def live(home: Path, server: RenewalServer, asked: Work) -> bool:
    """One time round of the loop, in a life of its own."""
    life = keeper(home, server)
    return life.resume() or life.step(asked)


def test_a_machine_that_is_asked_renews_and_begins_anew_with_its_new_keys(home: Path, server: RenewalServer) -> None:
    old = identity(home)
    assert live(home, server, work("hybrid"))
    new = identity(home)
    assert (new.epoch, new.device_id, new.anchor) == (2, old.device_id, old.anchor)
    assert not new.secrets.keys.public.matches(old.secrets.keys.public)
    assert new.secrets.local_seed == old.secrets.local_seed
    assert not (home / PENDING_FILE).exists()


def test_a_young_machine_that_nobody_asks_does_nothing(home: Path, server: RenewalServer) -> None:
    assert not live(home, server, work())
    assert not server.begun and not (home / PENDING_FILE).exists()


def test_a_machine_renews_by_itself_in_the_tenth_after_two_thirds_of_its_time(
    home: Path, server: RenewalServer
) -> None:
    begins = own_renewal_at(identity(home))
    life = timedelta(days=90) + MINUTE
    assert NOW - MINUTE + life * 2 / 3 <= begins <= NOW - MINUTE + life * (2 / 3 + 1 / 10)
    assert own_renewal_at(identity(home)) == begins
    server.now = begins - MINUTE
    assert not live(home, server, work())
    server.now, server.die = begins, {"before finish": "cut"}
    with pytest.raises(TransientTransportError):
        live(home, server, work())
    assert len(server.begun) == 1


@pytest.mark.parametrize("how", ["kill", "cut"])
@pytest.mark.parametrize(
    "place", ["before begin", "after begin", "before finish", "after finish", "before collect", "after collect"]
)
def test_a_machine_that_dies_at_any_step_goes_on_with_the_same_transcript(
    home: Path, server: RenewalServer, place: str, how: str
) -> None:
    server.die = {place: how}
    with pytest.raises((Killed, TransientTransportError)):
        live(home, server, work("hybrid"))
    assert identity(home).epoch == 1
    assert any(live(home, server, work("hybrid")) for _ in range(3))
    assert identity(home).epoch == 2
    assert len(set(server.begun)) == 1


@pytest.mark.parametrize("written", ["keys", "transcript", "identity"])
def test_a_machine_that_dies_between_two_writes_loses_nothing(
    home: Path, server: RenewalServer, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if written == "keys":
        monkeypatch.setattr("latticeward.agent.renewal._Pending.save", killer)
    elif written == "transcript":
        server.die = {"before begin": "kill"}
    else:
        unlink = Path.unlink

        def until_pending(path: Path, missing_ok: bool = False) -> None:
            if path.name == PENDING_FILE:
                raise Killed
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", until_pending)
    with pytest.raises(Killed):
        live(home, server, work("hybrid"))
    monkeypatch.undo()
    if written == "identity":
        assert identity(home).epoch == 2  # the switch was the write of the identity
        assert not live(home, server, work())
        assert [one.epoch for one in identity(home).earlier] == [1]
        assert not (home / PENDING_FILE).exists()
        return
    assert identity(home).epoch == 1
    assert live(home, server, work("hybrid"))
    assert len(set(server.begun)) == 1


def killer(*_: Any, **__: Any) -> None:
    raise Killed


def test_keys_and_transcript_are_on_the_disk_before_the_first_byte_leaves(home: Path, server: RenewalServer) -> None:
    server.die = {"before begin": "kill"}
    with pytest.raises(Killed):
        live(home, server, work("hybrid"))
    assert load_secrets(home, epoch=2) is not None
    assert (home / PENDING_FILE).exists() and not server.begun
    assert (home / "keys-2.json").stat().st_mode & 0o077 == 0


def test_rounds_go_on_while_the_certificate_is_being_made(home: Path, server: RenewalServer) -> None:
    server.slow = 2
    assert not live(home, server, work("hybrid"))
    assert not live(home, server, work("hybrid"))
    assert live(home, server, work("hybrid"))
    assert len(server.begun) == 1


def test_the_old_encapsulation_key_opens_until_its_certificate_would_have_ended(
    home: Path, server: RenewalServer
) -> None:
    old = identity(home)
    assert live(home, server, work("hybrid"))
    new = identity(home)
    old_id = old.secrets.keys.decapsulation.encapsulation_key.key_id
    epoch, key = new.opener(old_id)
    assert (epoch, key.encapsulation_key.key_id) == (1, old_id)
    new_id = new.secrets.keys.decapsulation.encapsulation_key.key_id
    assert new.opener(new_id)[0] == 2
    kept = new.forget_earlier(home, now=NOW + timedelta(days=89))
    assert kept.earlier == new.earlier
    forgotten = new.forget_earlier(home, now=NOW + timedelta(days=91))
    assert forgotten.earlier == () and identity(home).earlier == ()
    assert not (home / "keys.json").exists()
    assert identity(home).epoch == 2


def test_a_machine_takes_the_stronger_suite_that_the_server_asks_for_and_no_weaker_one_than_its_own_floor(
    home: Path, server: RenewalServer
) -> None:
    assert keeper(home, server)._wanted(work("high")) == "high"
    for weaker in ("constrained", "classical", "nothing-of-the-kind"):
        assert keeper(home, server)._wanted(work(weaker)) == "hybrid"
    assert keeper(home, server, suite="constrained")._wanted(work("constrained")) == "constrained"


def test_keys_of_another_suite_are_made_and_loaded_again(home: Path) -> None:
    made = make_secrets(home, suite="high", epoch=2, local_seed=bytes(32))
    loaded = load_secrets(home, epoch=2)
    assert loaded is not None and loaded.suite == "high"
    assert loaded.keys.public.matches(made.keys.public)
    assert loaded.keys.signing.verify_key.algorithm == "mldsa87-p384"


def test_a_refused_transcript_is_thrown_away_with_its_keys_and_not_at_once_replaced(
    home: Path, server: RenewalServer
) -> None:
    server.refuse_begin = "wrong_state"
    life = keeper(home, server)
    assert not life.step(work("hybrid"))
    assert not (home / PENDING_FILE).exists() and load_secrets(home, epoch=2) is None
    server.refuse_begin = ""
    assert not life.step(work("hybrid")) and not server.begun
    server.now += timedelta(minutes=16)
    assert life.step(work("hybrid"))


@pytest.mark.parametrize("code", ["not_permitted", "certificate_revoked"])
def test_a_device_that_may_not_act_keeps_its_transcript(home: Path, server: RenewalServer, code: str) -> None:
    server.refuse_begin = code
    with pytest.raises(PermanentTransportError):
        live(home, server, work("hybrid"))
    kept = (home / PENDING_FILE).read_bytes()
    server.refuse_begin = ""
    assert live(home, server, work("hybrid"))
    assert b"transcript" in kept and len(server.begun) == 1


def test_a_conflict_is_told_to_people(home: Path, server: RenewalServer) -> None:
    server.begun.append(b"what a copy of the keys has sent")
    with pytest.raises(PermanentTransportError) as refused:
        live(home, server, work("hybrid"))
    assert refused.value.server_code == "renewal_conflict"
    assert identity(home).epoch == 1


def test_a_statement_of_another_epoch_or_of_other_keys_is_not_believed(home: Path, server: RenewalServer) -> None:
    server.slow = 1
    live(home, server, work("hybrid"))
    assert server.proven is not None and server.issued is not None
    issuer = server.issuer.purpose_keys[Purpose.KEY_STATEMENT]
    skipped = sign_statement(replace(server.proven, epoch=9), key=issuer)
    foreign = sign_statement(replace(server.proven, keys=server.parent.keys), key=issuer)
    good = server.issued
    for signed in (skipped, foreign):
        server.issued = IssuedCertificate(chain=good.chain, statement=signed)
        with pytest.raises(WrongContextError):
            live(home, server, work("hybrid"))
        assert identity(home).epoch == 1
    server.issued = good
    assert live(home, server, work("hybrid"))


def test_a_pending_renewal_without_its_keys_is_a_matter_for_people(home: Path, server: RenewalServer) -> None:
    server.slow = 1
    live(home, server, work("hybrid"))
    (home / "keys-2.json").unlink()
    with pytest.raises(LatticewardError, match="without its keys"):
        live(home, server, work("hybrid"))
