"""Submissions at the door: what is taken, what is turned away before it is read, and what a refusal leaves behind."""

import asyncio
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as present
from pytest_django import Settings

from controlplane.asgi import application
from controlplane.audit.models import AuditEntry
from latticeward.crypto.signing import parse_signed_message
from latticeward.messages import SubmissionReceipt
from rounds import door, tasks
from rounds.models import Participant, Round, Submission
from rounds.services import coordination, intake
from tests.rounds.cohort import Cohort, Hospital
from tests.rounds.line import HANG_UP, Answer, Line, digest_of

# The door works in threads of its own, which see only what is committed.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def current(cohort: Cohort) -> Round:
    return cohort.collecting(cohort.train())


@pytest.fixture
def hospital(cohort: Cohort) -> Hospital:
    return cohort.hospitals[0]


@pytest.fixture
def line(hospital: Hospital) -> Line:
    return Line(hospital.machine)


@pytest.fixture
def envelope(current: Round, hospital: Hospital) -> bytes:
    return hospital.prepare(current)


def in_pieces(envelope: bytes, size: int) -> list[bytes]:
    return [envelope[start : start + size] for start in range(0, len(envelope), size)]


def sent(line: Line, current: Round, envelope: bytes, pieces: Iterable[bytes | None], declared: int | None) -> Answer:
    return asyncio.run(line.submitting(current.id, envelope, pieces, declared_bytes=declared))


def require_nothing_taken(current: Round, *codes: str) -> None:
    """No submission, no half-written blob, and one audit entry of the round for each refusal."""
    assert not Submission.objects.exists()
    assert not list((Path(present.BLOB_DIR) / "incoming").glob("*"))
    entries = AuditEntry.objects.filter(event="submission.refused").order_by("feed_seq")
    assert [entry.details["code"] for entry in entries] == list(codes)
    assert {entry.feed for entry in entries} <= {current.feed}


def test_an_envelope_is_taken_and_receipted(line: Line, current: Round, envelope: bytes) -> None:
    answer = sent(line, current, envelope, in_pieces(envelope, 1000), len(envelope))
    assert (answer.status, answer.headers["content-type"]) == (201, "application/cbor")
    submission = Submission.objects.get()
    receipt = SubmissionReceipt.from_bytes(parse_signed_message(answer.body).payload)
    assert receipt.submission_id == str(submission.id)
    assert receipt.submission_digest.hex() == submission.digest == digest_of(envelope)
    assert (receipt.size_bytes, receipt.via) == (len(envelope), "http")
    assert receipt.ledger_due_at > receipt.received_at
    entry = AuditEntry.objects.get(event="update.received")
    assert (entry.details["submission"], entry.details["digest"]) == (receipt.submission_id, submission.digest)


def test_a_submission_is_handed_on_to_the_workers(
    line: Line, current: Round, envelope: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[str] = []
    monkeypatch.setattr(tasks.process_update, "delay", handed.append)
    line.submit(current.id, envelope)
    assert handed == [str(Submission.objects.get().id)]


# --- size ------------------------------------------------------------------------------------------------------------


def test_a_body_declared_over_the_limit_is_refused_before_a_byte_is_read(
    line: Line, current: Round, envelope: bytes, settings: Settings
) -> None:
    settings.MAX_UPDATE_BYTES = len(envelope) - 1
    answer = sent(line, current, envelope, [envelope], len(envelope))
    assert answer.refusal == (413, "message_too_large")
    assert answer.pieces_taken == 0
    require_nothing_taken(current, "message_too_large")


@pytest.mark.parametrize("declared", [None, 10], ids=["undeclared", "declared less"])
def test_a_body_over_the_limit_is_read_up_to_the_limit(
    line: Line, current: Round, envelope: bytes, settings: Settings, declared: int | None
) -> None:
    settings.MAX_UPDATE_BYTES = 2500
    answer = sent(line, current, envelope, in_pieces(envelope, 1000), declared)
    assert answer.refusal == (413, "message_too_large")
    assert answer.pieces_taken == 3
    require_nothing_taken(current, "message_too_large")


def test_a_body_of_exactly_the_limit_is_taken(line: Line, current: Round, envelope: bytes, settings: Settings) -> None:
    settings.MAX_UPDATE_BYTES = len(envelope)
    assert line.submit(current.id, envelope).status == 201


# --- content ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["flipped", "cut", "longer", "empty"])
def test_a_body_other_than_the_signed_one_is_refused(line: Line, current: Round, envelope: bytes, change: str) -> None:
    other = bytearray(envelope)
    other[1000] ^= 1
    bodies = {"flipped": bytes(other), "cut": envelope[:-1], "longer": envelope + b"\0", "empty": b""}
    assert line.submit(current.id, envelope, body=bodies[change]).refusal == (403, "wrong_context")
    require_nothing_taken(current, "wrong_context")


@pytest.mark.parametrize("key", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64])
def test_a_submission_without_a_proper_key_is_malformed(line: Line, current: Round, envelope: bytes, key: str) -> None:
    assert line.submit(current.id, envelope, key=key).refusal == (400, "malformed_message")
    require_nothing_taken(current, "malformed_message")


def test_a_key_of_another_envelope_is_refused(line: Line, current: Round, envelope: bytes) -> None:
    assert line.submit(current.id, envelope, key="0" * 64).refusal == (403, "wrong_context")
    require_nothing_taken(current, "wrong_context")


@pytest.mark.parametrize("body", [b"", b"LWENV", b"not an envelope" * 100])
def test_bytes_that_are_no_envelope_are_malformed(line: Line, current: Round, body: bytes) -> None:
    assert line.submit(current.id, body, key="0" * 64).refusal == (400, "malformed_message")
    require_nothing_taken(current, "malformed_message")


def test_a_prefix_that_claims_to_be_huge_is_too_large(line: Line, current: Round) -> None:
    answer = line.submit(current.id, b"LWENV\0\1\0\xff\xff\xff\xff", key="0" * 64)
    assert answer.refusal == (413, "message_too_large")
    require_nothing_taken(current, "message_too_large")


def test_an_envelope_of_a_later_version_says_so(line: Line, current: Round, envelope: bytes) -> None:
    later = envelope[:6] + b"\2" + envelope[7:]
    assert line.submit(current.id, later, key="0" * 64).refusal == (400, "unsupported_version")


def test_what_only_the_worker_sees_is_an_outcome_that_the_device_reads(
    line: Line, current: Round, envelope: bytes
) -> None:
    flipped = bytearray(envelope)
    flipped[-4000] ^= 1  # in the body: another submission digest, under the old signature
    assert line.submit(current.id, bytes(flipped)).status == 201
    submission = Submission.objects.get()
    intake.process_update(submission.id)
    assert line.ask("GET", f"/api/v1/submissions/{submission.id}", "wait=5").json == {
        "submission": str(submission.id),
        "state": "rejected",
        "code": "invalid_signature",
        "round_state": "collecting",
        "participant": "joined",
    }
    assert line.submit(current.id, envelope).status == 201  # and may try again


# --- repetition ------------------------------------------------------------------------------------------------------


def test_the_same_bytes_again_get_the_same_receipt(line: Line, current: Round, envelope: bytes) -> None:
    first = line.submit(current.id, envelope)
    again = sent(line, current, envelope, in_pieces(envelope, 900), None)
    assert (first.status, again.status) == (201, 200)
    assert again.body == first.body
    intake.process_update(Submission.objects.get().id)
    Round.objects.filter(pk=current.pk).update(state="published")
    assert line.submit(current.id, envelope).body == first.body  # also long after
    assert not AuditEntry.objects.filter(event="submission.refused").exists()


def test_other_bytes_under_the_same_key_are_refused(line: Line, current: Round, envelope: bytes) -> None:
    first = line.submit(current.id, envelope)
    altered = envelope[:-1] + bytes([envelope[-1] ^ 1])  # the signature stands outside the submission digest
    assert digest_of(altered) == digest_of(envelope)
    assert line.submit(current.id, altered).refusal == (422, "idempotency_mismatch")
    assert line.submit(current.id, envelope).body == first.body
    assert Submission.objects.count() == 1


def test_a_second_submission_in_one_round_is_a_replay(
    line: Line, current: Round, hospital: Hospital, envelope: bytes
) -> None:
    line.submit(current.id, envelope)
    second = line.submit(current.id, hospital.prepare(current))
    assert second.refusal == (409, "replayed")
    intake.process_update(Submission.objects.get().id)
    assert line.submit(current.id, hospital.prepare(current)).refusal == (409, "replayed")
    assert Submission.objects.count() == 1
    assert [entry.details["code"] for entry in AuditEntry.objects.filter(event="submission.refused")] == [
        "replayed"
    ] * 2


# --- the wrong time --------------------------------------------------------------------------------------------------


def test_a_device_that_has_not_joined_is_refused_unread(cohort: Cohort, line: Line, hospital: Hospital) -> None:
    current = cohort.open_round(cohort.train())
    for other in cohort.hospitals[1:]:
        other.join(current)
    Round.objects.filter(pk=current.pk).update(recruiting_due_at=current.opened_at, state_due_at=current.opened_at)
    assert coordination.advance_round(current.id) == "begin_collecting"
    envelope = hospital.prepare(current)
    answer = line.submit(current.id, envelope)
    assert answer.refusal == (409, "wrong_state")
    assert answer.pieces_taken == 0
    require_nothing_taken(current, "wrong_state")


def test_a_submission_to_a_closed_round_is_refused_unread(line: Line, current: Round, envelope: bytes) -> None:
    Round.objects.filter(pk=current.pk).update(state="aggregating")
    answer = line.submit(current.id, envelope)
    assert answer.refusal == (409, "wrong_state")
    assert answer.pieces_taken == 0
    require_nothing_taken(current, "wrong_state")


def test_a_round_that_closes_while_the_body_arrives_takes_it_no_more(
    line: Line, current: Round, envelope: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = intake.require_submitter

    def look_and_close(**named: object) -> Submission | None:
        found = look(**named)  # type: ignore[arg-type]
        Round.objects.filter(pk=current.pk).update(state="aggregating")
        return found

    monkeypatch.setattr("rounds.endpoints.require_submitter", look_and_close)
    assert line.submit(current.id, envelope).refusal == (409, "wrong_state")
    require_nothing_taken(current, "wrong_state")


# --- the line breaks -------------------------------------------------------------------------------------------------


def test_a_device_that_hangs_up_in_the_middle_leaves_nothing(line: Line, current: Round, envelope: bytes) -> None:
    pieces = [*in_pieces(envelope, 1000)[:3], HANG_UP]
    answer = sent(line, current, envelope, pieces, len(envelope))
    assert (answer.status, answer.pieces_taken) == (0, 3)
    require_nothing_taken(current)  # and it is no refusal either
    assert Participant.objects.get(round=current, device=line.machine.device).state == "joined"
    assert line.submit(current.id, envelope).status == 201


async def receive_slowly(line: Line, current: Round, envelope: bytes, pieces: list[bytes]) -> Answer:
    """Some pieces, and then a device that keeps the connection and says nothing."""
    answer = Answer()
    left = list(pieces)
    headers = [("content-type", "application/octet-stream"), ("idempotency-key", digest_of(envelope))]
    path = f"/api/v1/rounds/{current.id}/submissions"
    lines = line.headers("POST", path, digest=hashlib.sha256(envelope).digest(), headers=headers)

    async def receive() -> dict[str, object]:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message["body"]

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in lines],
    }
    await application(scope, receive, send)
    return answer


@pytest.mark.parametrize("pieces", [0, 3])
def test_a_body_that_stops_coming_is_ended_with_an_answer_and_leaves_nothing(
    line: Line, current: Round, envelope: bytes, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    monkeypatch.setattr(door, "BODY_SECONDS", 0.0)
    monkeypatch.setattr(door, "SLOWEST_BYTES_PER_SECOND", 10**7)
    answer = asyncio.run(receive_slowly(line, current, envelope, in_pieces(envelope, 1000)[:pieces]))
    assert answer.refusal == (408, "request_too_slow")
    assert answer.json["retryable"] is True
    assert answer.headers["connection"] == "close"
    require_nothing_taken(current, "request_too_slow")
    monkeypatch.undo()
    assert line.submit(current.id, envelope).status == 201


def test_a_refusal_is_told_in_the_rounds_feed_with_its_hospital(
    line: Line, current: Round, hospital: Hospital, envelope: bytes
) -> None:
    line.submit(current.id, envelope, key="0" * 64)
    entry = AuditEntry.objects.get(event="submission.refused")
    place = Participant.objects.get(round=current, device=hospital.device)
    assert (entry.feed, entry.actor) == (current.feed, f"device:{hospital.device.id}")
    assert (entry.subject_kind, entry.subject_id) == ("participant", str(place.id))
    assert entry.details == {
        "device": str(hospital.device.id),
        "site": hospital.device.site.name,
        "code": "wrong_context",
    }
    assert place.state == "joined"
