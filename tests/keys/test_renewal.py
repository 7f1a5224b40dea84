"""The server's own keys before they end: renewed by the clock and by hand, the issuing authority with overlap."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from devices import services
from devices.models import Federation, Site
from keys import offline, renewal, rotation
from keys.models import Certificate, Key, Reason, RevocationList
from keys.publication import keep_published
from keys.selectors import issuers_in_use, server_keys, trust_anchor, trust_document
from keys.services import forget_loaded_keys, sign_with
from latticeward.agent.identity import DeviceSecrets, Identity
from latticeward.agent.state import AgentState
from latticeward.agent.trust_keeper import REFRESH_EVERY, TrustKeeper
from latticeward.crypto.certificate import DeviceNames, verify_chain
from latticeward.crypto.revocation import verify_revocation_list
from latticeward.crypto.signing import Purpose, verify_message
from latticeward.errors import CertificateNotValidError, CustodyError, StateError, TransientTransportError
from latticeward.trust import TrustStore
from tests.devices.machine import Machine, enrolled
from tests.keys.test_authority import PASSPHRASE
from tests.keys.test_publication import ask, leaf_of, question


def chain_of(machine: Machine) -> list[bytes]:
    leaf = leaf_of(machine)
    assert leaf.issuer is not None
    return [bytes(leaf.der), bytes(leaf.issuer.der)]


def believed() -> TrustStore:
    return TrustStore.from_signed(
        trust_document(), anchor_fingerprint=trust_anchor().fingerprint, now=datetime.now(UTC)
    )


def take_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root and anchor out of service, in a file whose passphrase commands find."""
    file, words = tmp_path / "root.locked", tmp_path / "passphrase"
    words.write_text(PASSPHRASE)
    monkeypatch.setenv("LATTICEWARD_PASSPHRASE_FILE", str(words))
    file.write_bytes(offline.export_offline(passphrase=PASSPHRASE, actor="system"))
    offline.remove_offline(file=file.read_bytes(), passphrase=PASSPHRASE, actor="system")
    return file


class Server:
    """What the agent's transport gives: the trust bundle of this installation, unless the line is cut."""

    def __init__(self) -> None:
        self.cut = False
        self.asked = 0

    def trust(self) -> bytes:
        self.asked += 1
        if self.cut:
            raise TransientTransportError("no line")
        return trust_document()


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def agent(site: Site, tmp_path: Path) -> tuple[TrustKeeper, Server, Clock]:
    machine = enrolled(site)
    assert machine.device is not None
    identity = Identity(
        device_id=str(machine.device.id),
        federation_id=str(site.federation_id),
        site=site.slug,
        server="http://127.0.0.1:8750",
        anchor=trust_anchor().fingerprint,
        epoch=1,
        secrets=DeviceSecrets(keys=machine.keys, local_seed=bytes(32)),
        certificate_chain=tuple(chain_of(machine)),
        statement=b"",
    )
    server, clock = Server(), Clock()
    keeper = TrustKeeper(
        home=tmp_path,
        identity=identity,
        state=AgentState.load(tmp_path),
        transport=server,  # type: ignore[arg-type]
        clock=clock,
    )
    return keeper, server, clock


# --- the issuing authority ---------------------------------------------------------------------------------------


def test_a_reissued_authority_issues_from_then_on_and_the_old_one_still_verifies(site: Site) -> None:
    before = enrolled(site)
    old = Certificate.objects.get(key__purpose="issuing")
    new = renewal.reissue_authority(actor="user:1")
    after = enrolled(site)
    assert chain_of(before)[1] == bytes(old.der) and chain_of(after)[1] == bytes(new.der)
    store = believed()
    root = bytes(Certificate.objects.get(key__purpose="root").der)
    assert store.statement.certificates == (bytes(new.der), bytes(old.der), root)
    for machine in (before, after):
        found = verify_chain(
            chain_of(machine),
            root=store.root_certificate,
            now=store.now,
            names=DeviceNames(federation="heart", site="cleveland", device_id=str(machine.device.id)),  # type: ignore[union-attr]
        )
        assert found.public_key == machine.keys.authentication.verify_key.raw
    with pytest.raises(CertificateNotValidError):
        verify_chain([chain_of(before)[0], bytes(new.der)], root=root, now=store.now)
    old.key.refresh_from_db()
    assert (old.key.state, server_keys("issuing").get().pk) == ("deactivated", new.key_id)
    assert AuditEntry.objects.filter(event="authority.reissued").count() == 1


def test_both_issuers_sign_what_is_said_about_their_own_certificates(site: Site, client: Client) -> None:
    before = enrolled(site)
    keep_published()
    old = Certificate.objects.get(key__purpose="issuing")
    new = renewal.reissue_authority(actor="user:1")
    after = enrolled(site)
    for machine in (before, after):
        assert machine.device is not None
        services.revoke_device(device_id=machine.device.id, actor="user:2", reason=Reason.SUPERSEDED)
    keep_published()
    now = datetime.now(UTC)
    for issuer, machine in ((old, before), (new, after)):
        newest = RevocationList.objects.filter(issuer=issuer).order_by("-number")[0]
        found = verify_revocation_list(bytes(newest.der), issuing=bytes(issuer.der), now=now)
        assert found.serials == {leaf_of(machine).serial}
        leaf = x509.load_der_x509_certificate(chain_of(machine)[0])
        (place,) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        (name,) = place.full_name or []
        assert client.get(name.value.removeprefix("http://127.0.0.1:8750")).content == bytes(newest.der)
        told = ask(client, question(machine))
        assert told.certificate_status is ocsp.OCSPCertStatus.REVOKED
        told.certificates[0].verify_directly_issued_by(x509.load_der_x509_certificate(bytes(issuer.der)))
        responder: Any = told.certificates[0].public_key()
        responder.verify(told.signature, told.tbs_response_bytes)
    assert client.get("/api/v1/revocations.crl").content == bytes(
        RevocationList.objects.filter(issuer=new).order_by("-number")[0].der
    )


def test_the_old_issuer_leaves_with_its_last_certificate(site: Site) -> None:
    enrolled(site)
    new = renewal.reissue_authority(actor="user:1")
    now = timezone.now()
    assert len(issuers_in_use(now)) == 2
    assert [row.pk for row in issuers_in_use(now + timedelta(days=91))] == [new.pk]


def test_a_fourth_issuer_in_use_at_once_is_refused(site: Site) -> None:
    for _ in range(2):
        enrolled(site)
        renewal.reissue_authority(actor="user:1")
    enrolled(site)
    with pytest.raises(StateError, match="still answer for certificates"):
        renewal.reissue_authority(actor="user:1")
    assert believed().sequence == 3


def test_without_the_root_nothing_of_a_new_issuer_remains(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_offline(tmp_path, monkeypatch)
    keys, entries = Key.objects.count(), AuditEntry.objects.count()
    with pytest.raises(CustodyError, match="kept offline"):
        renewal.reissue_authority(actor="user:1")
    assert (Key.objects.count(), AuditEntry.objects.count()) == (keys, entries)
    assert server_keys("issuing").count() == 1


# --- by the clock ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", renewal.RENEWABLE)
def test_every_server_key_is_renewed_before_it_ends(site: Site, purpose: str) -> None:
    keep_published()
    before = renewal.SCHEDULES[purpose].renew_before
    assert before is not None
    old = server_keys(purpose).get()
    Key.objects.filter(pk=old.pk).update(not_after_at=timezone.now() + before + timedelta(minutes=1))
    assert renewal.keep_renewed() == [] and server_keys(purpose).get() == old
    Key.objects.filter(pk=old.pk).update(not_after_at=timezone.now() + before - timedelta(minutes=1))
    assert renewal.keep_renewed() == []
    assert server_keys(purpose).get() != old
    assert Key.objects.get(pk=old.pk).state == "deactivated"
    assert renewal.due_purposes() == []


def test_what_cannot_be_renewed_does_not_keep_the_rest_from_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_published()
    take_offline(tmp_path, monkeypatch)
    Key.objects.filter(owner="authority", state="active").update(not_after_at=timezone.now() + timedelta(hours=1))
    forget_loaded_keys()
    left = renewal.keep_renewed()
    assert set(left) == {"issuing", *rotation.ANCHORED}
    assert set(renewal.due_purposes()) == set(left)


def test_root_and_anchor_are_not_renewed(federation: Federation) -> None:
    for purpose in ("root", "trust", "anything"):
        with pytest.raises(StateError, match="is not renewed"):
            renewal.renew(purpose, actor="user:1")


# --- by hand -----------------------------------------------------------------------------------------------------


def test_one_command_shows_and_renews_every_key(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("renew_keys", skip_checks=True)
    shown = capsys.readouterr().out
    assert all(f"{purpose} " in shown for purpose in ("root", "issuing", "plan", "checkpoint", "submission-receipt"))
    before = {row.purpose: row.key_id for row in Key.objects.filter(owner="authority", state="active")}
    call_command("renew_keys", "--all", skip_checks=True)
    after = {row.purpose: row.key_id for row in Key.objects.filter(owner="authority", state="active")}
    assert {purpose for purpose in after if after[purpose] == before.get(purpose)} == {"root", "trust"}
    assert RevocationList.objects.filter(issuer__key__in=server_keys("issuing")).exists()


def test_the_command_brings_root_and_anchor_for_as_long_as_it_needs_them(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = take_offline(tmp_path, monkeypatch)
    with pytest.raises(CommandError, match="kept offline"):
        call_command("renew_keys", "--purpose", "issuing", skip_checks=True)
    call_command("renew_keys", "--purpose", "issuing", "--purpose", "plan", "--offline", str(file), skip_checks=True)
    assert Certificate.objects.filter(key__purpose="issuing").count() == 2
    offline_now = Key.objects.filter(purpose__in=("root", "trust")).values_list("wrapped_secret", flat=True)
    assert list(offline_now) == [None, None]
    (tmp_path / "passphrase").write_text("another passphrase")
    with pytest.raises(CommandError):
        call_command("renew_keys", "--purpose", "plan", "--offline", str(file), skip_checks=True)
    assert Key.objects.filter(purpose="plan").count() == 2


# --- the agent ---------------------------------------------------------------------------------------------------


def test_an_agent_verifies_across_every_renewal_without_a_gap(agent: tuple[TrustKeeper, Server, Clock]) -> None:
    keeper, _, clock = agent
    for purpose in rotation.ANCHORED:
        old = sign_with(purpose, b"old")
        first = keeper.current()
        renewal.renew(str(purpose), actor="user:1")
        new = sign_with(purpose, b"new")
        clock.ahead += REFRESH_EVERY
        later = keeper.current()
        assert later.sequence == first.sequence + 1
        for signed in (old, new):
            verified = [
                verify_message(signed, purpose=purpose, key=key)
                for key in later.verify_keys(purpose)
                if key.key_id in signed
            ]
            assert len(verified) == 1


def test_an_agent_asks_again_after_some_hours_and_lives_on_when_nobody_answers(
    agent: tuple[TrustKeeper, Server, Clock],
) -> None:
    keeper, server, clock = agent
    first = keeper.current()
    assert keeper.current().sequence == first.sequence and server.asked == 1
    clock.ahead = REFRESH_EVERY
    server.cut = True
    assert keeper.current().sequence == first.sequence and server.asked == 2
    assert keeper.current().sequence == first.sequence and server.asked == 2  # not at every question
    clock.ahead = timedelta(days=364)
    assert keeper.current().sequence == first.sequence
    clock.ahead = timedelta(days=366)
    with pytest.raises(TransientTransportError):
        keeper.current()


def test_a_compromised_server_key_is_not_named_any_more(agent: tuple[TrustKeeper, Server, Clock]) -> None:
    from keys.services import revoke_keys

    keeper, _, clock = agent
    old = server_keys(Purpose.EXPORT).get()
    federation = Federation.objects.get()
    Key.objects.exclude(pk=old.pk).filter(owner="authority").update(subject_id="elsewhere")
    revoke_keys(subject_id=str(federation.id), reason=Reason.KEY_COMPROMISE, actor="user:2", feed=federation.feed)
    Key.objects.filter(subject_id="elsewhere").update(subject_id=str(federation.id))
    rotation.publish_trust(actor="user:1")
    clock.ahead = REFRESH_EVERY
    assert bytes.fromhex(old.key_id) not in {entry.key.key_id for entry in keeper.current().statement.keys}
