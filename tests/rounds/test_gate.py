"""The gate: requests that come together are looked at together, and each gets its own verdict."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from devices.authentication import Asked, AuthenticatedDevice
from latticeward.errors import LatticewardError, ReplayError
from rounds import gate
from rounds.gate import Arrival, Gate

pytestmark = pytest.mark.filterwarnings("error")


def arrival(name: str) -> Arrival:
    return Arrival(Asked(SimpleNamespace(name=name)), "192.0.2.1")  # type: ignore[arg-type]


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def device() -> AuthenticatedDevice:
    return AuthenticatedDevice(SimpleNamespace(id=uuid4()), SimpleNamespace(at=datetime.now(UTC)))  # type: ignore[arg-type]


def test_arrivals_during_a_batch_share_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, first_batches = [], Event()

    def admit_all(arrivals: list[Arrival]) -> list[AuthenticatedDevice]:
        sizes.append(len(arrivals))
        assert first_batches.wait(5)
        return [device() for _ in arrivals]

    async def scene() -> None:
        door = Gate(in_thread)
        early = []
        for number in range(gate.BATCHES):  # one request each for the batches that may run at once
            early.append(asyncio.create_task(door.admit(arrival(f"early {number}"))))
            while len(sizes) <= number:
                await asyncio.sleep(0.001)
        late = [asyncio.create_task(door.admit(arrival(f"late {number}"))) for number in range(10)]
        await asyncio.sleep(0)
        first_batches.set()
        assert all(isinstance(outcome, AuthenticatedDevice) for outcome in await asyncio.gather(*early, *late))

    monkeypatch.setattr(gate, "admit_all", admit_all)
    asyncio.run(scene())
    assert sizes == [1] * gate.BATCHES + [10]


def test_a_refusal_reaches_the_one_who_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def admit_all(arrivals: list[Arrival]) -> list[AuthenticatedDevice | LatticewardError]:
        return [ReplayError("seen") if one.asked.facts.name == "bad" else device() for one in arrivals]  # type: ignore[attr-defined]

    async def scene() -> list[object]:
        door = Gate(in_thread)
        names = ("good", "bad", "good")
        return await asyncio.gather(*(door.admit(arrival(name)) for name in names), return_exceptions=True)

    monkeypatch.setattr(gate, "admit_all", admit_all)
    first, second, third = asyncio.run(scene())
    assert isinstance(first, AuthenticatedDevice) and isinstance(third, AuthenticatedDevice)
    assert isinstance(second, ReplayError)


def test_a_fault_ends_the_wait_of_its_batch_and_the_next_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def admit_all(arrivals: list[Arrival]) -> list[AuthenticatedDevice]:
        if arrivals[0].asked.facts.name == "first":  # type: ignore[attr-defined]
            raise RuntimeError("the database is away")
        return [device() for _ in arrivals]

    async def scene() -> None:
        door = Gate(in_thread)
        with pytest.raises(RuntimeError, match="away"):
            await door.admit(arrival("first"))
        assert isinstance(await door.admit(arrival("second")), AuthenticatedDevice)

    monkeypatch.setattr(gate, "admit_all", admit_all)
    asyncio.run(scene())


def test_whoever_hangs_up_leaves_the_others_their_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    go = Event()

    def admit_all(arrivals: list[Arrival]) -> list[AuthenticatedDevice]:
        assert go.wait(5)
        return [device() for _ in arrivals]

    async def scene() -> None:
        door = Gate(in_thread)
        first, second = (asyncio.create_task(door.admit(arrival(name))) for name in ("first", "second"))
        await asyncio.sleep(0.01)
        first.cancel()
        go.set()
        assert isinstance(await second, AuthenticatedDevice)

    monkeypatch.setattr(gate, "admit_all", admit_all)
    asyncio.run(scene())


def test_a_request_that_comes_when_the_last_batch_ends_is_not_left_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[asyncio.Future[None]] = []

    async def held(function: Callable[..., Any], *arguments: Any) -> Any:
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ends.append(end)
        if len(ends) <= gate.BATCHES:
            await end
        return function(*arguments)

    async def scene() -> None:
        door = Gate(held)
        early = []
        for number in range(gate.BATCHES):
            early.append(asyncio.create_task(door.admit(arrival(f"early {number}"))))
            while len(ends) <= number:
                await asyncio.sleep(0)
        for end in ends:
            end.set_result(None)
        # Runs right behind the last steps of the batches, before the loop has told anybody that they are done.
        late = asyncio.create_task(door.admit(arrival("late")))
        for _ in range(20):
            await asyncio.sleep(0)
        assert late.done()
        await asyncio.gather(*early, late)

    monkeypatch.setattr(gate, "admit_all", lambda arrivals: [device() for _ in arrivals])
    asyncio.run(scene())
