"""The agent's life: ask for work, take the next step of each round, back off when the server is away, stop when told.

Theory of operation. The server's answer is state, not events, so the loop has no memory of its own: each time round
it compares what the server says with what ``state.py`` remembers and takes at most one step a round. A step that
could not be finished for lack of a connection leaves the token of the answer unused, so that the next question is
answered at once.

Errors end different things. A refusal of a message or a plan ends *this round* for this device. A broken promise of
the server (``LedgerError``), a revoked certificate or unreadable files end *the agent*, with a sentence for people. A
transient transport error ends nothing.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from latticeward.agent.backoff import Backoff
from latticeward.agent.config import AgentConfig
from latticeward.agent.decisions import Step, next_step
from latticeward.agent.interruption import Interruption
from latticeward.agent.ledger_watch import LedgerWatch
from latticeward.agent.rounds import RoundSteps
from latticeward.agent.state import AgentState
from latticeward.agent.transports import Transport
from latticeward.agent.trust_keeper import TrustKeeper
from latticeward.agent.work import Work, WorkRound
from latticeward.errors import (
    CustodyError,
    LatticewardError,
    LedgerError,
    MalformedMessageError,
    PermanentTransportError,
    TransientTransportError,
    UntrustedIssuerError,
)

logger = logging.getLogger(__name__)

SKEW_WARNING_SECONDS: Final = 20.0
OWED_POLL_SECONDS: Final = 3
# The server refused because it has moved on meanwhile: the next answer tells where to.
_OVERTAKEN: Final = frozenset({"wrong_state", "invalid_transition", "replayed"})
# The device itself is not wanted (any more): asking again will not help until somebody acts.
_UNWANTED: Final = frozenset({"certificate_revoked", "certificate_not_valid", "key_usage", "not_authenticated"})
_BARRED: Final = frozenset({"not_permitted"})


class Renewals(Protocol):
    """What keeps the machine's keys current; ``renewal.py`` has the real one.

    Both methods tell whether the identity on the disk has other keys now.
    """

    def resume(self) -> bool:
        """Complete a renewal that only waits for its certificate."""

    def step(self, work: Work) -> bool:
        """Begin a renewal that is due, and take it as far as it goes."""


class AgentLoop:
    """Runs until a stop is asked for, an error ends the agent, or enough rounds are settled."""

    def __init__(
        self,
        *,
        config: AgentConfig,
        state: AgentState,
        transport: Transport,
        steps: RoundSteps,
        trust: TrustKeeper,
        watch: LedgerWatch,
        renewals: Renewals,
        backoff: Backoff,
        interruption: Interruption,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config = config
        self._state = state
        self._transport = transport
        self._steps = steps
        self._trust = trust
        self._watch = watch
        self._renewals = renewals
        self._backoff = backoff
        self._interruption = interruption
        self._clock = clock
        self._token = ""
        self.settled = 0
        self._skew_told = False
        self._barred_told = False

    def run(self, *, rounds: int | None = None) -> bool:
        """Live.

        Args:
            rounds: leave after so many rounds have been settled; None lives on.

        Returns:
            Whether this machine has new keys, so that the agent must be put together anew from its disk.

        Raises:
            StopRequested: a signal came.
            LedgerError: the server broke a promise.
            PermanentTransportError: the server does not know or want this device.
            CustodyError: the agent's own files are damaged.
        """
        while rounds is None or self.settled < rounds:
            try:
                if self.run_once():
                    return True
                self._backoff.reset()
                self._barred_told = False
            except MalformedMessageError as error:
                # A proxy's page or a half answer in place of the work: nothing was believed, so nothing is wrong here.
                self._pause(f"the server's answer cannot be read: {error}")
            except TransientTransportError as error:
                self._pause(str(error), asked_seconds=error.retry_after_seconds)
            except PermanentTransportError as error:
                if error.server_code not in _BARRED:
                    raise
                # Suspended: a person may reinstate the device, and then it should go on by itself.
                self._pause(str(error), tell=not self._barred_told)
                self._barred_told = True
        return False

    def run_once(self) -> bool:
        """Ask once, and take the next step of every round that has one, and of a renewal of this machine's keys.

        Returns:
            Whether this machine has new keys.
        """
        if self._renewals.resume():
            return True
        # The ledger's news does not end a long-poll; while a proof is owed, ask again soon.
        longest = OWED_POLL_SECONDS if self._watch.owes else self._config.poll_seconds
        wait_seconds = min(longest, self._config.poll_seconds)
        work = self._transport.work(after=self._token, wait_seconds=wait_seconds)
        self._tell_skew(work)
        stepped = False
        for seen in sorted(work.rounds, key=lambda row: row.number):
            stepped = self._step(seen) or stepped
        self._token = work.token
        if not stepped:
            self._watch.check_one()
        return self._renewals.step(work)

    def _step(self, seen: WorkRound) -> bool:
        memory = self._state.rounds.get(seen.round_id)
        step = next_step(seen, memory)
        if step is Step.WAIT:
            return False
        try:
            self._act(step, seen)
        except UntrustedIssuerError:
            # A key that we have not heard of: one fresh bundle, one more try, then it is a refusal like any other.
            self._trust.refresh()
            self._guarded(step, seen)
        except LatticewardError as error:
            self._end_round(seen, error)
        return True

    def _guarded(self, step: Step, seen: WorkRound) -> None:
        try:
            self._act(step, seen)
        except LatticewardError as error:
            self._end_round(seen, error)

    def _act(self, step: Step, seen: WorkRound) -> None:
        memory = self._state.rounds.get(seen.round_id)
        if step is Step.TAKE:
            self._steps.take(seen)
        elif memory is None:
            raise RuntimeError(f"the step {step} needs a memory of the round")
        elif step is Step.SEND:
            self._steps.send(memory)
        elif step is Step.SETTLE:
            self._steps.settle(memory, seen)
            self.settled += 1
        else:
            self._steps.leave(memory, seen)
            self.settled += 1

    def _end_round(self, seen: WorkRound, error: LatticewardError) -> None:
        if isinstance(error, TransientTransportError | LedgerError | CustodyError):
            raise error
        code = error.code
        if isinstance(error, PermanentTransportError):
            if error.server_code in _UNWANTED:
                raise error
            if error.server_code in _OVERTAKEN:
                logger.info("round %s moved on: %s", seen.round_id, error)
                return
            code = error.server_code or error.code
        self._steps.refuse(seen, code)
        logger.warning("round %s refused: %s (%s)", seen.round_id, error, code)

    def _pause(self, reason: str, *, tell: bool = True, asked_seconds: float | None = None) -> None:
        seconds = self._backoff.next_seconds(asked_seconds=asked_seconds)
        if tell:
            logger.warning("%s; trying again in %.1f s", reason, seconds)
        self._interruption.pause(seconds)

    def _tell_skew(self, work: Work) -> None:
        ahead = (self._clock() - work.server_time).total_seconds()
        # The answer's own way takes a moment; only what endangers the signatures' window is worth a line.
        if abs(ahead) > SKEW_WARNING_SECONDS and not self._skew_told:
            side = "ahead of" if ahead > 0 else "behind"
            logger.warning("this machine's clock is %.0f s %s the server's", abs(ahead), side)
            self._skew_told = True
