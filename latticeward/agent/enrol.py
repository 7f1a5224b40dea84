"""Enrolling a machine: from a claim code to an identity on the disk, resumable at every point.

1. Fetch the trust bundle; its anchor must be the one that the claim code names.
2. Make keys and transcript, and write both, before anything about them is sent.
3. ``begin``: send the transcript with its MAC; believe the answer by its own MAC.
4. ``finish``: prove all four keys.
5. ``collect``: wait until people or policy have decided; check certificate and statement; write the identity.

A crash after 2 begins again at 3 with the same transcript, which the server takes as a repetition; a crash after 4
goes on at 5. Neither the claim's secret nor a key derived from it is ever written.
"""

import base64
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from latticeward.agent.files import read_json, write_atomically, write_json
from latticeward.agent.identity import DeviceSecrets, Identity
from latticeward.agent.transports import EnrolmentTransport
from latticeward.agent.trust_keeper import TRUST_FILE
from latticeward.agent.verification import verify_issued
from latticeward.agent.work import IssuedCertificate
from latticeward.claim_code import ClaimCode, lookup_text
from latticeward.crypto.certificate import make_csr
from latticeward.enrolment import finish_proofs, transcript_mac, verify_answer
from latticeward.enrolment_messages import EnrolmentTranscript, Meeting
from latticeward.errors import CustodyError, KeyUsageError, PermanentTransportError
from latticeward.trust import TrustStore, read_anchor

logger = logging.getLogger(__name__)

PENDING_FILE: Final = "enrolment.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """What people hand in: the claim, where the server is, and what this machine is called here."""

    claim: ClaimCode
    server: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """An enrolment under way. ``enrolment_id`` and ``device_id`` are empty until ``finish`` has been answered."""

    transcript: bytes
    enrolment_id: str = ""
    device_id: str = ""

    def save(self, home: Path) -> None:
        write_json(
            home / PENDING_FILE,
            {
                "v": 1,
                "transcript": base64.b64encode(self.transcript).decode("ascii"),
                "enrolment_id": self.enrolment_id,
                "device_id": self.device_id,
            },
        )

    @classmethod
    def load(cls, home: Path) -> "_Pending | None":
        values = read_json(home / PENDING_FILE)
        if values is None:
            return None
        try:
            return cls(
                transcript=base64.b64decode(values["transcript"]),
                enrolment_id=values["enrolment_id"],
                device_id=values["device_id"],
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise CustodyError(f"{home / PENDING_FILE} does not hold what the agent wrote") from exc


def enrol(
    request: EnrolmentRequest,
    *,
    home: Path,
    secrets: DeviceSecrets,
    transport: EnrolmentTransport,
    authority: str,
    clock: Callable[[], datetime],
    poll_seconds: int,
) -> Identity:
    """Enrol this machine, or go on with an enrolment that was interrupted; blocks until it is decided.

    Args:
        request: from the command line.
        home: the agent's directory, without an identity.
        secrets: written before.
        transport: to ``request.server``.
        authority: the server's host or host:port as requests will name it.
        clock: aware UTC now.
        poll_seconds: how long one question for the certificate may be held open.

    Returns:
        The identity, already on the disk.

    Raises:
        KeyUsageError: this home has an identity; a second one would be another device.
        UntrustedIssuerError: the server's anchor is not the claim's.
        ClaimRefusedError: the server does not know the claim, or refused it.
        VerificationError, ProtocolError: an answer is not to be believed.
        TransportError
    """
    if Identity.load(home) is not None:
        raise KeyUsageError(f"{home} holds an enrolled identity already; use another directory")
    # 1
    bundle = transport.trust()
    anchor = read_anchor(bundle).fingerprint
    request.claim.verify_anchor(anchor)
    trust = TrustStore.from_signed(bundle, anchor_fingerprint=anchor, now=clock(), authority=authority)
    meeting = Meeting(federation_id=trust.federation_id, authority=authority, anchor=anchor)

    # 2
    pending = _resume(home, request, meeting) or _Pending(transcript=_transcript(request, secrets, meeting))
    pending.save(home)

    if pending.enrolment_id:
        issued = _collect_again(transport, pending, poll_seconds)
        if issued is not None:
            return _complete(issued, pending, request, home, secrets, trust.at(clock()), bundle)

    # 3
    mac_key = request.claim.mac_key
    mac = transcript_mac(pending.transcript, mac_key=mac_key)
    enrolment_id, raw, answer_mac = transport.begin_enrolment(pending.transcript, mac)
    answer = verify_answer(raw, answer_mac, transcript=pending.transcript, mac_key=mac_key, now=clock())
    pending = replace(pending, enrolment_id=enrolment_id, device_id=answer.answer.device_id)
    # Before the proofs leave: if their answer is lost, the next life finds out by asking for the certificate.
    pending.save(home)
    logger.info("claim %s taken: device %s", lookup_text(request.claim.lookup_id), pending.device_id)

    # 4
    state = transport.finish_enrolment(enrolment_id, finish_proofs(answer, keys=secrets.keys))
    logger.info("all four keys proven; the device is %s", state)

    # 5
    issued = _collect(transport, pending, poll_seconds)
    return _complete(issued, pending, request, home, secrets, trust.at(clock()), bundle)


def _collect(transport: EnrolmentTransport, pending: _Pending, poll_seconds: int) -> IssuedCertificate:
    while True:
        issued = transport.collect_certificate(pending.enrolment_id, wait_seconds=poll_seconds)
        if issued is not None:
            return issued


def _collect_again(transport: EnrolmentTransport, pending: _Pending, poll_seconds: int) -> IssuedCertificate | None:
    try:
        return _collect(transport, pending, poll_seconds)
    except PermanentTransportError as error:
        logger.info("the earlier enrolment was not finished (%s): beginning again", error.server_code)
        return None


def _complete(
    issued: IssuedCertificate,
    pending: _Pending,
    request: EnrolmentRequest,
    home: Path,
    secrets: DeviceSecrets,
    trust: TrustStore,
    bundle: bytes,
) -> Identity:
    identity = _identity(issued, pending, request, secrets, trust)
    write_atomically(home / TRUST_FILE, bundle)
    identity.save(home)
    (home / PENDING_FILE).unlink(missing_ok=True)
    logger.info("enrolled: device %s of site %s, key epoch %d", identity.device_id, identity.site, identity.epoch)
    return identity


def _resume(home: Path, request: EnrolmentRequest, meeting: Meeting) -> _Pending | None:
    pending = _Pending.load(home)
    if pending is None:
        return None
    transcript = EnrolmentTranscript.from_bytes(pending.transcript)
    # Another claim, or another server: what was begun there is not ours to go on with, and the keys are still unused.
    return pending if (transcript.meeting, transcript.claim_id) == (meeting, request.claim.lookup_id) else None


def _transcript(request: EnrolmentRequest, secrets: DeviceSecrets, meeting: Meeting) -> bytes:
    return EnrolmentTranscript(
        operation="enrol",
        meeting=meeting,
        claim_id=request.claim.lookup_id,
        site=request.claim.site,
        device_class=request.claim.device_class,
        name=request.name,
        device_nonce=os.urandom(32),
        suites=(secrets.suite,),
        floor=secrets.suite,
        keys=secrets.keys.public,
        csr=make_csr(secrets.keys.authentication),
        epoch=1,
        renews=None,
    ).to_bytes()


def _identity(
    issued: IssuedCertificate,
    pending: _Pending,
    request: EnrolmentRequest,
    secrets: DeviceSecrets,
    trust: TrustStore,
) -> Identity:
    statement = verify_issued(issued, device_id=pending.device_id, keys=secrets.keys.public, trust=trust)
    return Identity(
        device_id=pending.device_id,
        federation_id=trust.federation_id,
        site=statement.site,
        server=request.server,
        anchor=trust.anchor.fingerprint,
        epoch=statement.epoch,
        secrets=secrets,
        certificate_chain=issued.chain,
        statement=issued.statement,
    )
