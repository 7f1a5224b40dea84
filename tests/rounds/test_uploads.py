"""Submissions in chunks at the door: any order, any repetition, any restart; and what every wrong chunk gets."""

import asyncio
import base64
import hashlib
import json
import os
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings as present
from django.utils import timezone
from pytest_django import Settings

from controlplane.audit.models import AuditEntry
from latticeward.crypto.signing import parse_signed_message
from latticeward.messages import SubmissionReceipt
from rounds import chunks, ingress
from rounds.models import Participant, Round, Submission, Upload
from rounds.services import intake, uploads
from rounds.services.retention import sweep_orphaned_blobs
from tests.rounds.cohort import Cohort, Hospital
from tests.rounds.line import Answer, Line, digest_of, exchange

# The door works in threads of its own, which see only what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

CHUNK = 2000
NAMES = ("latticeward.uploads", "rounds.upload_endpoints")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setattr(f"{name}.CHUNK_BYTES", CHUNK)


@pytest.fixture
def current(cohort: Cohort) -> Round:
    return cohort.collecting(cohort.train())


@pytest.fixture
def hospital(cohort: Cohort) -> Hospital:
    return cohort.hospitals[0]


class Sender:
    """One device's side of an upload, call by call."""

    def __init__(self, line: Line, current: Round, envelope: bytes) -> None:
        self.line = line
        self.current = current
        self.envelope = envelope
        self.digest = digest_of(envelope)
        self.address = ""

    @property
    def pieces(self) -> list[bytes]:
        return [self.envelope[start : start + CHUNK] for start in range(0, len(self.envelope), CHUNK)]

    def open(self, **changes: Any) -> Answer:
        told = {
            "digest": self.digest,
            "sha256": hashlib.sha256(self.envelope).hexdigest(),
            "size_bytes": len(self.envelope),
        }
        answer = self.post(f"/api/v1/rounds/{self.current.id}/uploads", {**told, **changes})
        if answer.status < 300 and answer.json["upload"]:
            self.address = f"/api/v1/uploads/{answer.json['upload']}"
        return answer

    def post(self, address: str, value: object) -> Answer:
        return self.line.ask("POST", address, body=json.dumps(value).encode())

    def put(self, number: int, body: bytes | None = None, **changes: object) -> Answer:
        values = {
            "upload-offset": number * CHUNK,
            "upload-length": len(self.envelope),
            "idempotency-key": self.digest,
        } | {name.replace("_", "-"): value for name, value in changes.items()}
        headers = [
            ("content-type", "application/octet-stream"),
            *((name, str(value)) for name, value in values.items()),
        ]
        return self.line.ask("PUT", self.address, body=self.pieces[number] if body is None else body, headers=headers)

    def finish(self) -> Answer:
        return self.post(f"{self.address}/submission", {})

    def whole(self) -> Answer:
        missing = self.open().json["missing"]
        for number in missing:
            self.put(number)
        return self.finish()


@pytest.fixture
def sender(hospital: Hospital, current: Round) -> Sender:
    return Sender(Line(hospital.machine), current, hospital.prepare(current))


def receipt_of(answer: Answer) -> bytes:
    text = answer.json["receipt"]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def files() -> list[str]:
    return [path.name for path in (Path(present.BLOB_DIR) / chunks.FOLDER).rglob("*") if path.is_file()]


# --- the way it should go --------------------------------------------------------------------------------------------


def test_chunks_in_any_order_become_one_submission_that_counts(sender: Sender) -> None:
    opened = sender.open()
    count = len(sender.pieces)
    assert count >= 4
    assert (opened.status, opened.json["missing"], opened.json["receipt"]) == (201, list(range(count)), None)
    order = list(range(count))
    random.Random(3).shuffle(order)
    for number in order[:-1]:
        assert number not in sender.put(number).json["missing"]
    incomplete = sender.finish()
    assert (incomplete.status, incomplete.json["missing"], incomplete.json["receipt"]) == (200, [order[-1]], None)
    assert not Submission.objects.exists()
    sender.put(order[-1])
    done = sender.finish()
    assert done.status == 201
    submission = Submission.objects.get()
    receipt = SubmissionReceipt.from_bytes(parse_signed_message(receipt_of(done)).payload)
    assert (receipt.submission_id, receipt.size_bytes) == (str(submission.id), len(sender.envelope))
    assert receipt.submission_digest.hex() == sender.digest
    intake.process_update(submission.id)
    submission.refresh_from_db()
    assert submission.outcome == "accepted"
    assert not files() and not Upload.objects.exists()


def test_a_chunk_that_comes_ten_times_is_stored_once(sender: Sender) -> None:
    sender.open()
    for _ in range(10):
        assert sender.put(1).status == 200
    assert files() == ["1"]
    assert 1 not in sender.line.ask("GET", sender.address).json["missing"]


def test_opening_again_finds_what_has_come(sender: Sender) -> None:
    first = sender.open()
    sender.put(2)
    again = sender.open()  # a device that was restarted remembers nothing but its envelope
    assert (again.status, again.json["upload"]) == (200, first.json["upload"])
    assert 2 not in again.json["missing"]
    assert Upload.objects.count() == 1


def test_a_whole_upload_gives_the_same_receipt_for_ever(sender: Sender) -> None:
    receipt = receipt_of(sender.whole())
    assert receipt_of(sender.open()) == receipt
    assert sender.finish().refusal == (404, "not_found")  # the upload is gone, opening finds the submission
    assert sender.line.submit(sender.current.id, sender.envelope).body == receipt  # and so does sending it whole
    Round.objects.filter(pk=sender.current.pk).update(state="published")
    assert receipt_of(sender.open()) == receipt


def test_a_submission_in_one_piece_is_found_by_an_upload_of_the_same(sender: Sender) -> None:
    whole = sender.line.submit(sender.current.id, sender.envelope)
    opened = sender.open()
    assert (opened.status, opened.json["upload"], opened.json["missing"]) == (200, None, [])
    assert receipt_of(opened) == whole.body


def test_a_server_that_dies_between_making_the_submission_and_cleaning_up_says_the_same_after_its_restart(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(uploads, "forget_upload", lambda upload: (_ for _ in ()).throw(RuntimeError("power cut")))
        assert sender.whole().status == 500
    assert Submission.objects.count() == 1
    answer = sender.finish()
    assert (answer.status, answer.json["missing"]) == (200, [])
    assert receipt_of(answer) == bytes(Submission.objects.get().receipt)
    Round.objects.filter(pk=sender.current.pk).update(state="aggregating")
    assert uploads.sweep_uploads() == 1
    assert not files()


def test_a_server_that_dies_while_it_assembles_has_lost_nothing(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(**_: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(ingress, "receive_update", die)
        assert sender.whole().status == 500
    assert not Submission.objects.exists()
    assert sender.open().json["missing"] == []
    assert sender.finish().status == 201


def test_a_chunk_that_was_being_written_when_the_server_died_is_still_missing(sender: Sender) -> None:
    opened = sender.open()
    folder = Path(present.BLOB_DIR) / chunks.FOLDER / opened.json["upload"].replace("-", "")
    folder.mkdir(parents=True)
    (folder / "0123456789abcdef.part").write_bytes(b"half a chunk")
    assert 0 in sender.open().json["missing"]
    assert sender.whole().status == 201
    assert not files()


# --- chunks that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-1, 1, CHUNK // 2])
def test_a_chunk_that_overlaps_others_is_malformed(sender: Sender, shift: int) -> None:
    sender.open()
    assert sender.put(1, upload_offset=CHUNK + shift).refusal == (400, "malformed_message")
    assert not files()


@pytest.mark.parametrize("change", ["shorter", "longer", "empty"])
def test_a_chunk_of_another_length_is_refused(sender: Sender, change: str) -> None:
    sender.open()
    piece = sender.pieces[0]
    body = {"shorter": piece[:-1], "longer": piece + b"\0", "empty": b""}[change]
    code = (413, "message_too_large") if change == "longer" else (400, "malformed_message")
    assert sender.put(0, body).refusal == code
    assert not files()


def test_a_chunk_beyond_the_declared_size_is_malformed(sender: Sender) -> None:
    sender.open()
    beyond = len(sender.pieces) * CHUNK
    assert sender.put(0, upload_offset=beyond).refusal == (400, "malformed_message")
    assert sender.put(len(sender.pieces) - 1, sender.pieces[0]).refusal == (400, "malformed_message")
    assert not files()


@pytest.mark.parametrize("value", ["-1", "0x10", "1e3", "00", "9" * 30])
@pytest.mark.parametrize("name", ["upload_offset", "upload_length"])
def test_headers_that_are_no_numbers_are_malformed(sender: Sender, name: str, value: str) -> None:
    sender.open()
    assert sender.put(0, **{name: value}).refusal == (400, "malformed_message")


def test_a_chunk_of_another_total_or_another_submission_is_malformed(sender: Sender) -> None:
    sender.open()
    assert sender.put(0, upload_length=len(sender.envelope) + 1).refusal == (400, "malformed_message")
    assert sender.put(0, idempotency_key="0" * 64).refusal == (400, "malformed_message")


def test_a_chunk_other_than_the_signed_one_is_refused_and_not_kept(sender: Sender) -> None:
    sender.open()
    headers = [
        ("content-type", "application/octet-stream"),
        ("upload-offset", "0"),
        ("upload-length", str(len(sender.envelope))),
        ("idempotency-key", sender.digest),
    ]
    digest = hashlib.sha256(sender.pieces[0]).digest()
    lines = sender.line.headers("PUT", sender.address, digest=digest, headers=headers)
    answer = asyncio.run(exchange("PUT", sender.address, "", lines, [sender.pieces[1]]))
    assert answer.refusal == (403, "wrong_context")
    moved = [(name, "2000" if name == "upload-offset" else value) for name, value in lines]
    answer = asyncio.run(exchange("PUT", sender.address, "", moved, [sender.pieces[0]]))
    assert answer.refusal == (403, "invalid_signature")
    assert not files()


def test_other_bytes_for_a_chunk_that_came_are_refused(sender: Sender) -> None:
    sender.open()
    sender.put(0)
    assert sender.put(0, bytes(CHUNK)).refusal == (422, "idempotency_mismatch")
    assert sender.whole().status == 201


def test_a_chunk_of_another_upload_spoils_the_whole_and_the_upload_is_gone(sender: Sender, hospital: Hospital) -> None:
    other = hospital.prepare(sender.current)
    sender.open()
    sender.put(1, other[CHUNK : 2 * CHUNK])
    for number in range(len(sender.pieces)):
        if number != 1:
            sender.put(number)
    assert sender.finish().refusal == (403, "wrong_context")
    assert not Submission.objects.exists() and not Upload.objects.exists() and not files()
    assert AuditEntry.objects.get(event="submission.refused").details["code"] == "wrong_context"
    assert sender.whole().status == 201  # and may begin anew


def test_chunks_of_something_that_is_no_envelope_leave_nothing(sender: Sender) -> None:
    sender.envelope = b"nonsense" * 1000
    assert sender.whole().refusal == (400, "malformed_message")
    assert not Submission.objects.exists() and not Upload.objects.exists() and not files()


# --- who and when ----------------------------------------------------------------------------------------------------


def test_an_upload_does_not_exist_for_another_device(sender: Sender, cohort: Cohort) -> None:
    sender.open()
    thief = Sender(Line(cohort.hospitals[1].machine), sender.current, sender.envelope)
    thief.address = sender.address
    answers = [thief.put(0), thief.line.ask("GET", thief.address), thief.finish()]
    assert {answer.refusal for answer in answers} == {(404, "not_found")}
    assert thief.open().json["upload"] != sender.open().json["upload"]  # the same digest is another upload


def test_an_unknown_upload_is_not_found(sender: Sender) -> None:
    sender.address = f"/api/v1/uploads/{uuid4()}"
    assert sender.put(0).refusal == (404, "not_found")


def test_a_device_outside_the_round_may_not_open_one(sender: Sender, hospital: Hospital) -> None:
    Participant.objects.filter(round=sender.current, device=hospital.device).delete()
    assert sender.open().refusal == (403, "not_permitted")


def test_after_the_close_nothing_is_taken_and_the_sweep_cleans_up(sender: Sender) -> None:
    sender.open()
    sender.put(0)
    Round.objects.filter(pk=sender.current.pk).update(state="aggregating")
    for answer in (sender.put(1), sender.finish(), sender.open()):
        assert answer.refusal == (409, "wrong_state")
    assert uploads.sweep_uploads() == 1
    assert not files()
    assert sender.put(1).refusal == (404, "not_found")


def test_an_upload_expires_and_can_be_opened_anew(sender: Sender) -> None:
    first = sender.open().json["upload"]
    sender.put(0)
    Upload.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert sender.put(1).refusal == (404, "not_found")
    again = sender.open()
    assert (again.status, again.json["upload"] != first) == (201, True)
    assert 0 in again.json["missing"]
    assert sender.whole().status == 201


def test_two_uploads_of_a_device_are_open_at_most(sender: Sender, hospital: Hospital) -> None:
    line = sender.line
    senders = [Sender(line, sender.current, hospital.prepare(sender.current)) for _ in range(3)]
    answers = [each.open() for each in senders]
    assert [answer.status for answer in answers] == [201, 201, 429]
    assert answers[2].refusal == (429, "too_many_requests")
    assert senders[0].open().status == 200
    assert senders[0].whole().status == 201
    assert senders[2].open().refusal == (409, "replayed")  # one submission a round


def test_the_room_of_the_server_is_bounded_by_what_is_declared(
    sender: Sender, cohort: Cohort, settings: Settings
) -> None:
    settings.MAX_OPEN_UPLOAD_BYTES = len(sender.envelope) + 10
    other = cohort.hospitals[1]
    assert sender.open().status == 201
    second = Sender(Line(other.machine), sender.current, other.prepare(sender.current))
    assert second.open().refusal == (429, "too_many_requests")
    assert sender.whole().status == 201
    assert second.open().status == 201


@pytest.mark.parametrize("size", [0, -1, 10**9])
def test_a_declared_size_out_of_bounds_is_too_large(sender: Sender, size: int) -> None:
    assert sender.open(size_bytes=size).refusal == (413, "message_too_large")
    assert not Upload.objects.exists()


@pytest.mark.parametrize(
    "changes", [{"digest": "x"}, {"sha256": None}, {"size_bytes": "7"}, {"size_bytes": True}, {"more": 1}], ids=str
)
def test_a_declaration_of_another_form_is_malformed(sender: Sender, changes: dict[str, object]) -> None:
    assert sender.open(**changes).refusal == (400, "malformed_message")


def test_the_same_digest_declared_with_other_bytes_is_refused(sender: Sender) -> None:
    sender.open()
    assert sender.open(sha256="0" * 64).refusal == (422, "idempotency_mismatch")
    sender.whole()
    assert sender.open(sha256="0" * 64).refusal == (422, "idempotency_mismatch")


def test_folders_that_no_upload_names_are_swept_when_they_are_old(sender: Sender) -> None:
    sender.open()
    sender.put(0)
    chunks.write_chunk(uuid4(), 0, b"orphan")
    assert sweep_orphaned_blobs() == 0
    for folder in (Path(present.BLOB_DIR) / chunks.FOLDER).iterdir():
        os.utime(folder, (time.time() - 7200,) * 2)
    assert sweep_orphaned_blobs() == 1
    assert files() == ["0"]


def test_a_file_that_vanishes_under_the_sweep_does_not_stop_it(sender: Sender) -> None:
    incoming = Path(present.BLOB_DIR) / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    (incoming / "moved").symlink_to(incoming / "away")  # listed, and not there when it is looked at
    chunks.write_chunk(uuid4(), 0, b"orphan")
    for folder in (Path(present.BLOB_DIR) / chunks.FOLDER).iterdir():
        os.utime(folder, (time.time() - 7200,) * 2)
    assert sweep_orphaned_blobs() == 1
