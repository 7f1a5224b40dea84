"""Putting an agent together: the one place that knows which part needs which."""

import random
from collections.abc import Callable
from datetime import UTC, datetime

from latticeward.agent.backoff import Backoff
from latticeward.agent.config import AgentConfig
from latticeward.agent.identity import Identity
from latticeward.agent.interruption import Interruption
from latticeward.agent.ledger_watch import LedgerWatch
from latticeward.agent.loop import AgentLoop
from latticeward.agent.renewal import RenewalKeeper
from latticeward.agent.rounds import Contributor, RoundSteps
from latticeward.agent.state import AgentState
from latticeward.agent.transports import DeviceTransport
from latticeward.agent.trust_keeper import TrustKeeper
from latticeward.device_keys import DeviceKeys


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def assemble(
    *,
    config: AgentConfig,
    identity: Identity,
    contributor: Contributor,
    transport_for: Callable[[DeviceKeys], DeviceTransport],
    interruption: Interruption,
    clock: Callable[[], datetime] = utc_now,
) -> AgentLoop:
    """An agent that goes on where its home directory says that it was.

    Args:
        contributor: turns a round into a submission.
        transport_for: a transport to the server that signs with these keys.
        clock: aware UTC now.

    Raises:
        CustodyError: the home's memory is unreadable.
    """
    transport = transport_for(identity.secrets.keys)
    state = AgentState.load(config.home)
    trust = TrustKeeper(home=config.home, identity=identity, state=state, transport=transport, clock=clock)
    return AgentLoop(
        config=config,
        state=state,
        transport=transport,
        steps=RoundSteps(
            config=config,
            identity=identity,
            state=state,
            transport=transport,
            contributor=contributor,
            trust=trust.current,
            clock=clock,
        ),
        trust=trust,
        watch=LedgerWatch(state=state, transport=transport, trust=trust, clock=clock),
        renewals=RenewalKeeper(
            config=config,
            identity=identity,
            transport=transport,
            transport_for=transport_for,
            trust=trust.current,
            clock=clock,
        ),
        backoff=Backoff(random.SystemRandom()),
        interruption=interruption,
        clock=clock,
    )
