"""Renewing this machine's keys: by itself when two thirds of their time are over, or at once when the server asks.

1. Make new keys and T1, and write both, before anything about them is sent.
2. Send T1, signed with the present keys; write the renewal's id before the proofs leave.
3. Prove the new keys, and the present signing key.
4. Ask for the certificate, signed with the new keys; check certificate and statement.
5. Write the identity, which names the new epoch: this one write is the switch, and the agent then begins anew from
   its disk, exactly as after a kill.

A crash after 1 sends the same T1 again, which the server takes as a repetition; a *second* T1 from the same keys would
look like a copy of them and have the device suspended. So T1 is thrown away only when the server itself has refused it
or ended it. What is waited for is asked again each time round: rounds go on meanwhile.
"""

import base64
import hmac
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from latticeward.agent.config import AgentConfig
from latticeward.agent.files import read_json, write_json
from latticeward.agent.identity import (
    DeviceSecrets,
    EarlierKeys,
    Identity,
    load_secrets,
    make_secrets,
    remove_secrets,
)
from latticeward.agent.transports import RenewalTransport
from latticeward.agent.verification import verify_issued
from latticeward.agent.work import Work
from latticeward.crypto.certificate import make_csr
from latticeward.crypto.signing import parse_signed_message
from latticeward.crypto.suites import SUITES, get_suite
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment_messages import EnrolmentTranscript, Meeting
from latticeward.errors import CustodyError, PermanentTransportError, WrongContextError
from latticeward.instants import from_unix_milliseconds
from latticeward.renewal import read_renewal_answer, renewal_begins_at, renewal_proofs, replaces
from latticeward.statements import KeyStatement
from latticeward.trust import TrustStore

logger = logging.getLogger(__name__)

PENDING_FILE: Final = "renewal.json"
# After a refusal: long enough not to be a nuisance, short enough to be back well within the last third.
PATIENCE: Final = timedelta(minutes=15)
COLLECT_WAIT_SECONDS: Final = 5
# These say nothing about T1: the device as a whole may not act (now), and T1 is kept for when it may.
_NOT_ABOUT_THIS: Final = frozenset(
    {"not_permitted", "not_authenticated", "certificate_revoked", "certificate_not_valid"}
)
# The challenge has run out: the same T1 gets another one.
_COME_AGAIN: Final = frozenset({"clock_skew", "key_usage", "stale_state"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A renewal under way. ``renewal_id`` is empty until T1 has been answered."""

    epoch: int
    transcript: bytes
    renewal_id: str = ""

    def save(self, home: Path) -> None:
        transcript = base64.b64encode(self.transcript).decode("ascii")
        values = {"v": 1, "epoch": self.epoch, "transcript": transcript, "renewal_id": self.renewal_id}
        write_json(home / PENDING_FILE, values)

    @classmethod
    def load(cls, home: Path) -> "_Pending | None":
        values = read_json(home / PENDING_FILE)
        if values is None:
            return None
        try:
            return cls(
                epoch=int(values["epoch"]),
                transcript=base64.b64decode(values["transcript"]),
                renewal_id=values["renewal_id"],
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise CustodyError(f"{home / PENDING_FILE} does not hold what the agent wrote") from exc


def own_statement(identity: Identity) -> KeyStatement:
    """The device's own key statement, which was verified before it was written."""
    return KeyStatement.from_bytes(parse_signed_message(identity.statement).payload)


def own_renewal_at(identity: Identity) -> datetime:
    """When this machine begins to renew by itself: the same instant after every restart."""
    label = f"latticeward/renewal-spread/v1/{identity.epoch}".encode("ascii")
    drawn = int.from_bytes(hmac.digest(identity.secrets.local_seed, label, "sha256")[:8], "big")
    return renewal_begins_at(own_statement(identity), spread=drawn / 2**64)


class RenewalKeeper:
    """Takes a renewal as far as it goes each time it is asked.

    Args:
        transport: to the server, signing with the present keys.
        transport_for: the same, signing with the keys given.
        authority: the server as signed requests name it.
        trust: gives the trust store judged at the present.
        clock: aware UTC now.
    """

    def __init__(
        self,
        *,
        config: AgentConfig,
        identity: Identity,
        transport: RenewalTransport,
        transport_for: Callable[[DeviceKeys], RenewalTransport],
        trust: Callable[[], TrustStore],
        clock: Callable[[], datetime],
    ) -> None:
        self._config = config
        self._home = config.home
        self._identity = identity
        self._transport = transport
        self._transport_for = transport_for
        self._trust = trust
        self._clock = clock
        self._not_before: datetime | None = None

    def resume(self) -> bool:
        """Fetch the certificate of keys that have been proven, if there are any: the present keys may be over by now.

        Returns, raises:
            As ``step``.
        """
        pending = self._pending()
        if pending is None or not pending.renewal_id:
            return False
        return self._guarded(pending, self._collect)

    def step(self, work: Work) -> bool:
        """Begin a renewal that is due, or go on with one whose keys are not proven yet.

        Args:
            work: the server's answer; it may ask for new keys. What it asks is not signed, so it decides when this
                machine renews and never what it accepts.

        Returns:
            Whether the identity on the disk has other keys now, so that the agent must begin anew from it.

        Raises:
            TransientTransportError: go on later.
            PermanentTransportError: this device may not act, or a copy of its keys was used.
            VerificationError, ProtocolError: certificate or statement is not to be believed.
        """
        if self._not_before is not None and self._clock() < self._not_before:
            return False
        pending = self._pending()
        if pending is None:
            suite = self._wanted(work)
            if suite is None:
                return False
            pending = self._prepare(suite)
        return False if pending.renewal_id else self._guarded(pending, self._prove)

    def _pending(self) -> _Pending | None:
        pending = _Pending.load(self._home)
        if pending is not None and pending.epoch <= self._identity.epoch:
            # The switch was written, and the life ended before this file was gone.
            (self._home / PENDING_FILE).unlink(missing_ok=True)
            return None
        return pending

    def _guarded(self, pending: _Pending, act: Callable[[_Pending, DeviceSecrets], bool]) -> bool:
        secrets = load_secrets(self._home, epoch=pending.epoch)
        if secrets is None:
            raise CustodyError(f"{self._home} holds a renewal without its keys; restore them from a copy")
        try:
            return act(pending, secrets)
        except PermanentTransportError as error:
            if error.server_code in _NOT_ABOUT_THIS:
                raise
            kept = _Pending.load(self._home)
            if error.server_code in _COME_AGAIN and kept is not None and kept.renewal_id:
                logger.info("the renewal's challenge was not met in time (%s); asking for another", error.server_code)
                replace(kept, renewal_id="").save(self._home)
                return False
            self._give_up(pending, error.server_code)
            if error.server_code == "renewal_conflict":
                raise
            return False

    def _wanted(self, work: Work) -> str | None:
        """The suite of new keys that are due now; None if none are."""
        own = self._identity.secrets.suite
        if work.renewal is not None:
            asked = SUITES.get(work.renewal.suite)
            # Asked to be weaker than people here allow, this machine renews as it is, and the server may refuse that.
            acceptable = asked is not None and asked.strength >= get_suite(self._config.suite).strength
            return asked.id if asked is not None and acceptable else own
        return own if self._clock() >= own_renewal_at(self._identity) else None

    def _prepare(self, suite: str) -> _Pending:
        epoch = self._identity.epoch + 1
        # Keys without a transcript are from a life that ended between the two writes: they were never sent.
        remove_secrets(self._home, epoch=epoch)
        secrets = make_secrets(self._home, suite=suite, epoch=epoch, local_seed=self._identity.secrets.local_seed)
        transcript = EnrolmentTranscript(
            operation="renew",
            meeting=Meeting(
                federation_id=self._identity.federation_id,
                authority=self._transport.authority,
                anchor=self._identity.anchor,
            ),
            claim_id=b"",
            site="",
            device_class="",
            name="",
            device_nonce=os.urandom(32),
            suites=(suite,),
            floor=suite,
            keys=secrets.keys.public,
            csr=make_csr(secrets.keys.authentication),
            epoch=epoch,
            renews=replaces(own_statement(self._identity)),
        )
        pending = _Pending(epoch=epoch, transcript=transcript.to_bytes())
        pending.save(self._home)
        logger.info("new keys made for epoch %d, suite %s", epoch, suite)
        return pending

    def _prove(self, pending: _Pending, secrets: DeviceSecrets) -> bool:
        renewal_id, raw = self._transport.begin_renewal(pending.transcript)
        answer = read_renewal_answer(raw, transcript=pending.transcript, now=self._clock())
        pending = replace(pending, renewal_id=renewal_id)
        # Before the proofs leave: if their answer is lost, the next life finds out by asking for the certificate.
        pending.save(self._home)
        proofs = renewal_proofs(answer, keys=secrets.keys, parent=self._identity.secrets.keys.signing)
        state = self._transport.finish_renewal(renewal_id, proofs)
        logger.info("new keys of epoch %d proven; the renewal is %s", pending.epoch, state)
        return self._collect(pending, secrets)

    def _collect(self, pending: _Pending, secrets: DeviceSecrets) -> bool:
        try:
            collector = self._transport_for(secrets.keys)
            issued = collector.collect_renewal(pending.renewal_id, wait_seconds=self._wait_seconds())
        except PermanentTransportError as error:
            if error.server_code != "not_authenticated":
                raise
            # The server does not know the new keys: the proofs never arrived. The same T1 gets its answer again.
            replace(pending, renewal_id="").save(self._home)
            return False
        if issued is None:
            return False
        statement = verify_issued(
            issued, device_id=self._identity.device_id, keys=secrets.keys.public, trust=self._trust()
        )
        if statement.epoch != pending.epoch:
            raise WrongContextError("the key statement that came back is of another epoch")
        old = own_statement(self._identity)
        earlier = EarlierKeys(
            epoch=self._identity.epoch,
            until=from_unix_milliseconds(old.not_after),
            decapsulation=self._identity.secrets.keys.decapsulation,
        )
        replace(
            self._identity,
            epoch=statement.epoch,
            secrets=secrets,
            certificate_chain=issued.chain,
            statement=issued.statement,
            earlier=(*self._identity.earlier, earlier),
        ).save(self._home)
        (self._home / PENDING_FILE).unlink(missing_ok=True)
        logger.info("keys renewed: epoch %d", statement.epoch)
        return True

    def _wait_seconds(self) -> int:
        return min(COLLECT_WAIT_SECONDS, self._config.poll_seconds)

    def _give_up(self, pending: _Pending, code: str) -> None:
        (self._home / PENDING_FILE).unlink(missing_ok=True)
        remove_secrets(self._home, epoch=pending.epoch)
        self._not_before = self._clock() + PATIENCE
        logger.warning("the renewal was refused (%s); the present keys stay in use", code)
