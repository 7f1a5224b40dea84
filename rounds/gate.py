"""Authentication by the batch: whoever arrives while requests are being looked at is looked at together with the next.

A quiet server answers each request at once; a busy one shares the questions to database and Redis, and the hand-over
to a thread, among all that wait. Nothing is ever held back to make a batch larger.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controlplane.throttles import Limit, require_left, spend, spend_by_address
from devices.authentication import Asked, AuthenticatedDevice, authenticate_all
from latticeward.errors import LatticewardError, ProtocolError, VerificationError

LARGEST_BATCH: Final = 32
# A second batch goes on with its signatures while the first waits for the database.
BATCHES: Final = 2

Outcome = AuthenticatedDevice | LatticewardError


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request at the gate and the network address that it came from."""

    asked: Asked
    address: str


class Gate:
    """Admits requests of one event loop; ``in_thread`` runs blocking work for it."""

    def __init__(self, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._in_thread = in_thread
        self._waiting: list[tuple[Arrival, asyncio.Future[Outcome]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_work = 0

    async def admit(self, arrival: Arrival) -> AuthenticatedDevice:
        """Wait for the verdict on one request.

        Raises:
            LatticewardError: the refusal.
        """
        verdict: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, verdict))
        # Not the number of tasks: one that has found nobody waiting is among them until the loop comes round again.
        if self._at_work < BATCHES:
            self._at_work += 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        outcome = await verdict
        if isinstance(outcome, LatticewardError):
            raise outcome
        return outcome

    async def _work(self) -> None:
        try:
            await self._admit_waiting()
        finally:
            self._at_work -= 1

    async def _admit_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
            try:
                outcomes = await self._in_thread(admit_all, [arrival for arrival, _ in batch])
            except BaseException as error:
                for _, verdict in batch:
                    if not verdict.done():
                        verdict.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, verdict), outcome in zip(batch, outcomes, strict=True):
                if not verdict.done():  # a device that hung up
                    verdict.set_result(outcome)


def admit_all(arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Authenticate and count; whoever keeps sending what is refused is refused before any signature is looked at."""
    outcomes: dict[int, Outcome] = {}
    places = []
    for place, arrival in enumerate(arrivals):
        try:
            require_left(Limit.REFUSED, arrival.address)
            places.append(place)
        except LatticewardError as refusal:
            outcomes[place] = refusal
    verdicts = authenticate_all([arrivals[place].asked for place in places])
    for place, verdict in zip(places, verdicts, strict=True):
        try:
            _count(verdict, arrivals[place].address)
            outcomes[place] = verdict
        except LatticewardError as refusal:
            outcomes[place] = refusal
    return [outcomes[place] for place in range(len(arrivals))]


def _count(verdict: Outcome, address: str) -> None:
    if isinstance(verdict, AuthenticatedDevice):
        spend(Limit.DEVICE, str(verdict.device.id))
    elif isinstance(verdict, VerificationError | ProtocolError):
        spend_by_address(Limit.REFUSED, address)
