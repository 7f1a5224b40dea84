"""The agent's command line: ``enrol``, ``run``, ``certificate`` and ``status``.

Exit codes: 0 done or stopped as asked, 1 the server or a message was refused, 2 wrong use (argparse's), 3 the agent's
own files are missing or damaged.
"""

import argparse
import logging
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from latticeward.agent.assembly import assemble, utc_now
from latticeward.agent.backoff import Backoff
from latticeward.agent.config import AgentConfig
from latticeward.agent.contribution import SiteContributor, find_job
from latticeward.agent.encipherment import Destination, ask_certificate, is_pending
from latticeward.agent.enrol import EnrolmentRequest, enrol
from latticeward.agent.identity import Identity, load_or_make_secrets
from latticeward.agent.interruption import Interruption, StopRequested
from latticeward.agent.renewal import PENDING_FILE, own_renewal_at, own_statement
from latticeward.agent.state import AgentState
from latticeward.agent.transports import TRANSPORTS, DeviceTransport
from latticeward.claim_code import parse_claim
from latticeward.crypto.encipherment_certificate import EnciphermentCertificate
from latticeward.device_keys import DeviceKeys
from latticeward.errors import CustodyError, LatticewardError, NotFoundError, TransientTransportError
from latticeward.instants import from_unix_milliseconds
from latticeward.trust import TrustStore

logger = logging.getLogger("latticeward.agent")
T = TypeVar("T")

REFUSED: Final = 1
FILES: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    interruption = Interruption()
    try:
        names = ("job", "site", "transport", "ca_file", "log_file")
        config = AgentConfig.load(options.home, given={name: getattr(options, name, "") for name in names})
        _start_logging(config)
        interruption.install()
        match options.command:
            case "enrol":
                _enrol(options, config, interruption)
            case "run":
                _run(options, config, interruption)
            case "certificate":
                _certificate(options, config, interruption)
            case _:
                _status(config)
    except StopRequested:
        logger.info("stopped as asked")
    except CustodyError as error:
        logger.error("%s", error)
        return FILES
    except LatticewardError as error:
        logger.error("%s (%s)", error, error.code)
        return REFUSED
    return 0


def _enrol(options: argparse.Namespace, config: AgentConfig, interruption: Interruption) -> None:
    claim = parse_claim(options.claim_file.read_text(encoding="utf-8") if options.claim_file else sys.stdin.readline())
    server = options.server or claim.server
    if not server:
        raise NotFoundError("the typed form of a claim names no server: give --server")
    secrets = load_or_make_secrets(config.home, suite=config.suite)
    # The console shows the same words to whoever approves this machine.
    print(f"Fingerprint of this machine, for the approval: {secrets.keys.signing.verify_key.fingerprint}", flush=True)
    transport = TRANSPORTS[config.transport](config, server, secrets.keys, interruption)
    _patiently(
        partial(
            enrol,
            EnrolmentRequest(claim=claim, server=server, name=options.name),
            home=config.home,
            secrets=secrets,
            transport=transport,
            authority=transport.authority,
            clock=utc_now,
            poll_seconds=config.poll_seconds,
        ),
        interruption,
    )


def _certificate(options: argparse.Namespace, config: AgentConfig, interruption: Interruption) -> None:
    identity = _identity_of(config)
    transport = _transport(config, identity.server, interruption, identity.secrets.keys)
    destination = Destination(certificate=options.certificate, key=options.key)

    def ask() -> EnciphermentCertificate:
        trust = TrustStore.from_signed(
            transport.trust(),
            anchor_fingerprint=identity.anchor,
            now=utc_now(),
            least_sequence=AgentState.load(config.home).trust_sequence,
        )
        return ask_certificate(
            destination,
            home=config.home,
            identity=identity,
            transport=transport,
            trust=trust,
            clock=utc_now,
            poll_seconds=config.poll_seconds,
        )

    certificate = _patiently(ask, interruption)
    print(f"certificate {destination.certificate}, {certificate.algorithm}, until {certificate.not_after_at:%Y-%m-%d}")
    print(f"private key {destination.key}, readable by you alone; nobody has another copy")


def _patiently(act: Callable[[], T], interruption: Interruption) -> T:
    """Do it, again and again while the server cannot be reached."""
    backoff = Backoff(random.SystemRandom())
    while True:
        try:
            return act()
        except TransientTransportError as error:
            seconds = backoff.next_seconds(asked_seconds=error.retry_after_seconds)
            logger.warning("%s; trying again in %.1f s", error, seconds)
            interruption.pause(seconds)


def _run(options: argparse.Namespace, config: AgentConfig, interruption: Interruption) -> None:
    identity = _identity_of(config)
    job = find_job(config.job)
    site = config.site or identity.site
    data = job.load_site(site)
    logger.info("device %s runs the job %s with the rows of %s", identity.device_id, job.name, site)
    rounds = options.once_round
    while True:
        secrets = identity.secrets
        loop = assemble(
            config=config,
            identity=identity,
            contributor=SiteContributor(
                job=job, data=data, signing_key=secrets.keys.signing, local_seed=secrets.local_seed
            ),
            transport_for=partial(_transport, config, identity.server, interruption),
            interruption=interruption,
        )
        if not loop.run(rounds=rounds):
            return
        # New keys: from here on as after a restart, which is the one way of taking an identity up.
        rounds = None if rounds is None else rounds - loop.settled
        identity = _identity_of(config)


def _transport(config: AgentConfig, server: str, interruption: Interruption, keys: DeviceKeys) -> DeviceTransport:
    return TRANSPORTS[config.transport](config, server, keys, interruption)


def _identity_of(config: AgentConfig) -> Identity:
    identity = Identity.load(config.home)
    if identity is None:
        raise CustodyError(f"{config.home} holds no identity yet: run enrol first")
    return identity.forget_earlier(config.home, now=utc_now())


def _status(config: AgentConfig) -> None:
    identity = Identity.load(config.home)
    if identity is None:
        print("not enrolled")
        return
    state = AgentState.load(config.home)
    print(f"device     {identity.device_id}, site {identity.site}, key epoch {identity.epoch}")
    statement = own_statement(identity)
    ends, renews = from_unix_milliseconds(statement.not_after), own_renewal_at(identity)
    under_way = ", under way" if (config.home / PENDING_FILE).exists() else ""
    print(f"keys       suite {identity.secrets.suite}, end {ends:%Y-%m-%d %H:%M} UTC")
    print(f"renewal    from {renews:%Y-%m-%d %H:%M} UTC, or when the server asks{under_way}")
    if is_pending(config.home):
        print("asked      an encipherment certificate that is not here yet: `certificate` goes on with the request")
    for one in identity.earlier:
        print(f"earlier    epoch {one.epoch} opens until {one.until:%Y-%m-%d %H:%M} UTC")
    print(f"signing    {identity.secrets.keys.signing.verify_key.fingerprint}")
    print(f"server     {identity.server}, trust statement {state.trust_sequence}")
    print(f"anchor     {identity.anchor.hex()}")
    model = state.model
    print("model      none" if model is None else f"model      {model.model_id}, number {model.number}")
    print(f"unproven   {len(state.unproven)} submissions wait for their ledger proof")
    for row in sorted(state.rounds.values(), key=lambda memory: memory.number):
        own = "" if row.own_metric is None else f"(its base model at this hospital: {row.own_metric:.3f})"
        result = " ".join(part for part in (row.outcome, row.code, own) if part)
        print(f"round      {row.round_id}, number {row.number}, {row.kind}: {row.stage} {result}".rstrip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m latticeward.agent", description="The edge agent of a hospital.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, words: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=words, description=words)
        made.add_argument("--home", type=Path, required=True, help="directory of keys, state and models")
        made.add_argument("--log-file", default="", help="write the log here too")
        return made

    enrolling = command("enrol", "Turn a claim code into an identity.")
    enrolling.add_argument("--claim-file", type=Path, help="file with the claim; without it, typed on standard input")
    enrolling.add_argument("--server", default="", help="address, if the claim does not name it")
    enrolling.add_argument("--name", default="", help="what this machine is called here")
    enrolling.add_argument("--ca-file", default="", help="PEM file of the authorities for the server's certificate")
    running = command("run", "Take part in rounds until stopped.")
    running.add_argument("--job", default="", help="learning job")
    running.add_argument("--site", default="", help="whose rows to load; the identity's site by default")
    running.add_argument("--transport", default="", choices=["", *TRANSPORTS], help=argparse.SUPPRESS)
    running.add_argument("--ca-file", default="", help="PEM file of the authorities for the server's certificate")
    running.add_argument("--once-round", type=int, metavar="N", help="leave after N settled rounds")
    asking = command("certificate", "Get a key and a certificate that standard tools encrypt to (OpenSSL, CMS).")
    asking.add_argument("--certificate", type=Path, required=True, help="new file for the certificate chain, PEM")
    asking.add_argument("--key", type=Path, required=True, help="new file for the private key, PKCS #8 in PEM")
    asking.add_argument("--ca-file", default="", help="PEM file of the authorities for the server's certificate")
    command("status", "Say what this machine is and has done.")
    return parser


def _start_logging(config: AgentConfig) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if config.log_file:
        handlers.append(logging.FileHandler(config.log_file))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=handlers, force=True
    )
