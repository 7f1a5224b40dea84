"""An encipherment certificate for this machine: a key and a certificate as files, for other tools of the hospital.

1. Refuse to write over anything, before anything is asked.
2. Make the key and the request, and write both, before anything about them is sent.
3. Send the request; prove the key by the challenge that comes back.
4. Wait for the certificate; check that it is of this device, of this key and for encipherment alone.
5. Write the private key and the chain where people want them, and forget both here: the agent opens nothing with them.

A crash after 2 sends the same request again, which the server takes as a repetition. What the server has refused for
good is forgotten, so that the next call begins with another key.
"""

import base64
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from latticeward.agent.files import read_json, require_private, write_json, write_new
from latticeward.agent.identity import Identity
from latticeward.agent.renewal import own_statement
from latticeward.agent.transports import EnciphermentTransport
from latticeward.crypto.certificate import DeviceNames, profile_of
from latticeward.crypto.encipherment import DeciphermentKey, encipherment_algorithm
from latticeward.crypto.encipherment_certificate import EnciphermentCertificate, as_pem, verify_encipherment_chain
from latticeward.encipherment import EnciphermentRequest, prove_encipherment
from latticeward.enrolment_messages import NONCE_BYTES, Meeting
from latticeward.errors import CustodyError, LatticewardError, PermanentTransportError, WrongContextError
from latticeward.lifecycle import EnciphermentState
from latticeward.trust import TrustStore

logger = logging.getLogger(__name__)

PENDING_FILE: Final = "encipherment.json"
# These say nothing about the request: the device as a whole may not act now, or a certificate is being made already.
_NOT_ABOUT_THIS: Final = frozenset(
    {"not_permitted", "not_authenticated", "certificate_revoked", "certificate_not_valid", "wrong_state"}
)
# The challenge has run out: the same request gets another one.
_COME_AGAIN: Final = frozenset({"clock_skew", "key_usage"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where the files go; neither may be there yet."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pending:
    """A request under way."""

    key: DeciphermentKey
    request: bytes

    def save(self, home: Path) -> None:
        values = {
            "v": 1,
            "algorithm": self.key.algorithm,
            "seed": self.key.export_seed().hex(),
            "request": base64.b64encode(self.request).decode("ascii"),
        }
        write_json(home / PENDING_FILE, values)

    @classmethod
    def load(cls, home: Path) -> "_Pending | None":
        path = home / PENDING_FILE
        values = read_json(path)
        if values is None:
            return None
        require_private(path)
        try:
            return cls(
                key=DeciphermentKey.from_seed(bytes.fromhex(values["seed"]), values["algorithm"]),
                request=base64.b64decode(values["request"]),
            )
        except (KeyError, TypeError, ValueError, LatticewardError) as exc:
            raise CustodyError(f"{path} does not hold what the agent wrote") from exc


def is_pending(home: Path) -> bool:
    """Whether a request was made that is not settled."""
    return (home / PENDING_FILE).exists()


def ask_certificate(
    destination: Destination,
    *,
    home: Path,
    identity: Identity,
    transport: EnciphermentTransport,
    trust: TrustStore,
    clock: Callable[[], datetime],
    poll_seconds: int,
) -> EnciphermentCertificate:
    """Get an encipherment certificate, or go on with a request that was interrupted; blocks until it is settled.

    Args:
        destination: where private key and chain are written, readable by their owner only.
        trust: of the present.
        clock: aware UTC now.
        poll_seconds: how long one question for the certificate may be held open.

    Raises:
        CustodyError: a file is in the way or cannot be written; nothing was asked, or the same call may be repeated.
        PermanentTransportError: the server refused.
        VerificationError, ProtocolError: an answer is not to be believed.
        TransientTransportError: call again later.
    """
    # 1
    pending = _resume(home, identity)
    _refuse_files(destination, pending)

    # 2
    pending = pending or _prepare(home, identity, transport.authority)

    # 3 and 4
    try:
        encipherment_id = _prove(pending, transport, clock)
        chain = _collect(transport, encipherment_id, poll_seconds)
    except PermanentTransportError as error:
        if error.server_code not in _NOT_ABOUT_THIS:
            (home / PENDING_FILE).unlink(missing_ok=True)
        raise
    certificate = verify_encipherment_chain(
        chain,
        root=trust.root_certificate,
        now=trust.now,
        names=DeviceNames(federation=trust.statement.federation, site=identity.site, device_id=identity.device_id),
        profile=profile_of(trust.statement.certificates[0]),
    )
    own = pending.key.encipherment_key
    if (certificate.algorithm, certificate.public_key) != (own.algorithm, own.raw):
        raise WrongContextError("the certificate that came back is for another key")

    # 5: the key first, since a certificate without its key would be of use to senders and to nobody here.
    write_new(destination.key, pending.key.export_pkcs8())
    write_new(destination.certificate, as_pem(chain))
    (home / PENDING_FILE).unlink(missing_ok=True)
    logger.info("encipherment certificate until %s", certificate.not_after_at.isoformat())
    return certificate


def _resume(home: Path, identity: Identity) -> _Pending | None:
    pending = _Pending.load(home)
    if pending is None:
        return None
    if EnciphermentRequest.from_bytes(pending.request).epoch == identity.epoch:
        return pending
    # The device has renewed its keys since: the server takes this request no more.
    (home / PENDING_FILE).unlink(missing_ok=True)
    return None


def _refuse_files(destination: Destination, pending: _Pending | None) -> None:
    if destination.key.absolute() == destination.certificate.absolute():
        raise CustodyError("private key and certificate are two files")
    for path in (destination.key, destination.certificate):
        if not path.parent.is_dir():
            raise CustodyError(f"{path.parent} is not a directory")
    # An earlier life may have got as far as writing; what it wrote is found to be the same by ``write_new``.
    if pending is not None and destination.key.exists() and destination.key.read_bytes() == pending.key.export_pkcs8():
        return
    for path in (destination.key, destination.certificate):
        if path.exists():
            raise CustodyError(f"{path} is there already and is not replaced")


def _prepare(home: Path, identity: Identity, authority: str) -> _Pending:
    key = DeciphermentKey.generate(encipherment_algorithm(identity.secrets.suite))
    request = EnciphermentRequest(
        meeting=Meeting(federation_id=identity.federation_id, authority=authority, anchor=identity.anchor),
        device_id=identity.device_id,
        epoch=identity.epoch,
        statement_digest=own_statement(identity).digest,
        device_nonce=os.urandom(NONCE_BYTES),
        key=key.encipherment_key,
    )
    pending = _Pending(key=key, request=request.to_bytes())
    pending.save(home)
    return pending


def _prove(pending: _Pending, transport: EnciphermentTransport, clock: Callable[[], datetime]) -> str:
    """Begin and finish; returns the request's id. A challenge that ran out in between is asked for once more."""
    try:
        return _prove_once(pending, transport, clock)
    except PermanentTransportError as error:
        if error.server_code not in _COME_AGAIN:
            raise
        logger.info("the challenge was not met in time (%s); asking for another", error.server_code)
        return _prove_once(pending, transport, clock)


def _prove_once(pending: _Pending, transport: EnciphermentTransport, clock: Callable[[], datetime]) -> str:
    encipherment_id, answer = transport.begin_encipherment(pending.request)
    state, _ = transport.collect_encipherment(encipherment_id, wait_seconds=0)
    # An earlier life may have proven it; its challenge is over then, and there is nothing to prove twice.
    if state == EnciphermentState.BEGUN:
        mac = prove_encipherment(request=pending.request, answer=answer, key=pending.key, now=clock())
        state = transport.finish_encipherment(encipherment_id, mac)
    logger.info("the encipherment key is proven; the request is %s", state)
    return encipherment_id


def _collect(transport: EnciphermentTransport, encipherment_id: str, poll_seconds: int) -> tuple[bytes, ...]:
    while True:
        _, chain = transport.collect_encipherment(encipherment_id, wait_seconds=poll_seconds)
        if chain is not None:
            return chain
