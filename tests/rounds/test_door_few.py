"""What one device may hold open at the door: bodies that never end fill neither memory nor disk, and hinder nobody."""

import asyncio
from pathlib import Path

import pytest
from django.conf import settings as present

from rounds import door
from rounds.few import BODIES, Few
from rounds.models import Round, Submission
from tests.rounds.cohort import Cohort, Hospital
from tests.rounds.line import Answer, Line, digest_of
from tests.rounds.test_door_submissions import current, envelope, hospital, in_pieces, line, receive_slowly

__all__ = ["current", "envelope", "hospital", "line"]
pytestmark = pytest.mark.django_db(transaction=True)


async def with_bodies_held(line: Line, current: Round, envelope: bytes, *then: tuple[Line, bytes]) -> list[Answer]:
    """What the calls in ``then`` get while the device holds as many bodies as it may."""
    held = [
        asyncio.create_task(receive_slowly(line, current, envelope, in_pieces(envelope, 1000)[:2]))
        for _ in range(BODIES.limit)
    ]
    assert line.machine.device is not None
    while BODIES.held(line.machine.device.id) < BODIES.limit:
        assert not any(task.done() for task in held)
        await asyncio.sleep(0.01)
    answers = [await one.submitting(current.id, raw, [raw]) for one, raw in then]
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    return answers


def test_a_device_that_holds_bodies_open_gets_no_more_and_hinders_no_other(
    line: Line, current: Round, envelope: bytes, cohort: Cohort
) -> None:
    other = cohort.hospitals[1]
    theirs = other.prepare(current)
    mine, others = asyncio.run(
        with_bodies_held(line, current, envelope, (line, envelope), (Line(other.machine), theirs))
    )
    assert mine.refusal == (429, "too_many_requests") and mine.json["retryable"] is True
    assert others.status == 201
    assert Submission.objects.get().digest == digest_of(theirs)
    # When the lines are gone nothing of them is left, and the device is served again.
    assert not list((Path(present.BLOB_DIR) / "incoming").glob("*"))
    assert line.submit(current.id, envelope).status == 201


def test_a_body_that_pauses_is_ended_however_much_of_it_had_come(
    line: Line, current: Round, envelope: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(door, "SLOWEST_BYTES_PER_SECOND", 1)  # by what has come alone it would have hours

    async def patiently() -> Answer:
        async with asyncio.timeout(60):
            return await receive_slowly(line, current, envelope, in_pieces(envelope, 1000)[:3])

    assert asyncio.run(patiently()).refusal == (408, "request_too_slow")


def test_what_was_held_is_given_back_even_when_it_ends_in_an_error(hospital: Hospital) -> None:
    few = Few(1, "things")
    device = hospital.device.id

    def hold() -> None:
        with few.one_more(device):
            assert few.held(device) == 1
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            hold()
    assert few.held(device) == 0
