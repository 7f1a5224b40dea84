"""Long polls: answered at once with news, else when news comes, at the end of the wait, or when the server stops."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from controlplane.live import hub
from devices import services
from devices.models import Site
from rounds import door
from rounds.door import in_thread
from rounds.models import Round, Submission
from rounds.services import coordination, intake
from tests.devices.conftest import federation, site
from tests.devices.machine import Machine
from tests.rounds.cohort import Cohort
from tests.rounds.line import Answer, Line

__all__ = ["federation", "site"]
# The door works in threads of its own, which see only what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

WORK = "/api/v1/work"
# Far longer than anything here takes, and shorter than a wait that nothing ends.
SOON = 6.0


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # SQLite in memory refuses what two threads do at once; here the test writes while the door waits.
    with ThreadPoolExecutor(max_workers=1) as alone:
        monkeypatch.setattr(door, "_threads", alone)
        yield
    assert not hub._subscriptions, "a poll that has ended still listens"


@pytest.fixture
def recruiting(cohort: Cohort) -> Round:
    return cohort.open_round(cohort.train())


async def while_it_waits(poll: Awaitable[Answer], do: Callable[[], object] | None = None) -> tuple[Answer, float]:
    """Let a poll begin, do something, and say what it answered and how many seconds after."""
    asking = asyncio.ensure_future(poll)
    while not asking.done() and not (hub._subscriptions and await _has_looked()):
        await asyncio.sleep(0.01)
    started = time.monotonic()
    if do is not None:
        await in_thread(do)
    answer = await asyncio.wait_for(asking, 30)
    return answer, time.monotonic() - started


async def _has_looked() -> bool:
    # The door's look was queued before this, in the same single thread.
    await in_thread(lambda: None)
    await asyncio.sleep(0)
    return True


async def test_a_device_that_has_not_seen_the_answer_gets_it_at_once(cohort: Cohort, recruiting: Round) -> None:
    line = Line(cohort.hospitals[0].machine)
    for query in ("wait=20", "wait=20&after=", "wait=20&after=0123"):
        answer, seconds = await while_it_waits(line.asking("GET", WORK, query))
        assert answer.json["rounds"][0]["round"] == str(recruiting.id)
        assert seconds < SOON


async def test_without_news_the_same_answer_comes_at_the_end_of_the_wait(cohort: Cohort, recruiting: Round) -> None:
    line = Line(cohort.hospitals[0].machine)
    token = (await line.asking("GET", WORK)).json["token"]
    started = time.monotonic()
    answer = await line.asking("GET", WORK, f"wait=0.4&after={token}")
    assert (answer.status, answer.json["token"]) == (200, token)
    assert 0.4 <= time.monotonic() - started < SOON


async def test_nobody_waits_longer_than_the_door_allows(
    cohort: Cohort, recruiting: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "LONGEST_WAIT_SECONDS", 0.1)
    line = Line(cohort.hospitals[0].machine)
    token = (await line.asking("GET", WORK)).json["token"]
    for wait in ("1000000", "inf", "1e999"):
        _, seconds = await while_it_waits(line.asking("GET", WORK, f"wait={wait}&after={token}"))
        assert seconds < SOON


async def test_a_waiting_device_hears_of_a_new_state_of_its_round(cohort: Cohort, recruiting: Round) -> None:
    line = Line(cohort.hospitals[0].machine)
    token = (await line.asking("GET", WORK)).json["token"]

    def join_and_begin() -> None:
        for hospital in cohort.hospitals:
            hospital.join(recruiting)
        assert coordination.advance_round(recruiting.id) == "begin_collecting"

    answer, seconds = await while_it_waits(line.asking("GET", WORK, f"wait=20&after={token}"), join_and_begin)
    assert answer.json["token"] != token
    assert seconds < SOON


async def test_what_happens_to_other_devices_wakes_nobody(cohort: Cohort, recruiting: Round) -> None:
    line = Line(cohort.hospitals[0].machine)
    token = (await line.asking("GET", WORK)).json["token"]
    poll = line.asking("GET", WORK, f"wait=0.5&after={token}")
    answer, seconds = await while_it_waits(poll, lambda: cohort.hospitals[1].join(recruiting))
    assert answer.json["token"] == token
    assert seconds > 0.3


async def test_a_device_that_waits_for_an_outcome_hears_of_it(cohort: Cohort, recruiting: Round) -> None:
    hospital = cohort.hospitals[0]
    line = Line(hospital.machine)

    def submit() -> Submission:
        for member in cohort.hospitals:
            member.join(recruiting)
        coordination.advance_round(recruiting.id)
        return hospital.submit(recruiting, hospital.prepare(recruiting))

    submission = await in_thread(submit)
    path = f"/api/v1/submissions/{submission.id}"
    assert (await line.asking("GET", path)).json["state"] == "received"
    poll = line.asking("GET", path, "wait=20")
    answer, seconds = await while_it_waits(poll, lambda: intake.process_update(submission.id))
    assert (answer.json["state"], answer.json["code"]) == ("accepted", None)
    assert seconds < SOON


async def test_a_machine_that_waits_to_be_approved_gets_its_certificate(site: Site) -> None:
    def ask_to_enrol() -> Machine:
        machine = Machine.with_claim(site)
        machine.finish(machine.begin())
        return machine

    machine = await in_thread(ask_to_enrol)
    assert machine.device is not None
    device_id = machine.device.id
    path = f"/api/v1/enrolments/{machine.enrolment_id}/certificate"
    waiting = await Line(machine).asking("GET", path, "wait=0.1")
    assert (waiting.status, waiting.json) == (202, {"state": "pending"})

    def approve() -> None:
        services.approve_device(device_id=device_id, actor="user:1")
        services.issue(device_id=device_id)

    answer, seconds = await while_it_waits(Line(machine).asking("GET", path, "wait=20"), approve)
    assert (answer.status, answer.json["state"]) == (200, "active")
    assert answer.json.keys() == {"state", "certificate_chain", "statement"}
    assert seconds < SOON


async def test_waiting_devices_are_let_go_when_the_server_stops(cohort: Cohort, recruiting: Round) -> None:
    line = Line(cohort.hospitals[0].machine)
    token = (await line.asking("GET", WORK)).json["token"]
    answer, seconds = await while_it_waits(line.asking("GET", WORK, f"wait=20&after={token}"), hub.end)
    assert (answer.status, answer.json["token"]) == (200, token)
    assert seconds < SOON
