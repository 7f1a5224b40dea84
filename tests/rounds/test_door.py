"""Who is let in at the devices' door, and what everybody else is told: the real application, message by message."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from controlplane.audit.models import AuditEntry
from devices import services
from devices.models import Site
from keys.models import Reason
from keys.rotation import server_address
from rounds import tasks
from rounds.models import Participant, Round
from rounds.services import coordination
from tests.devices.conftest import federation, site
from tests.devices.machine import Machine, enrolled
from tests.rounds.cohort import Cohort
from tests.rounds.line import Answer, Line, exchange

__all__ = ["federation", "site"]
# The door works in threads of its own, which see only what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

WORK = "/api/v1/work"


def address(name: str, identity: object = "00000000-0000-4000-8000-000000000000") -> str:
    return f"/api/v1/{name}".replace("<id>", str(identity))


@pytest.fixture
def line(site: Site) -> Line:
    return Line(enrolled(site))


@pytest.fixture
def recruiting(cohort: Cohort) -> Round:
    return cohort.open_round(cohort.train())


def send(lines: list[tuple[str, str]], method: str = "GET", path: str = WORK, query: str = "") -> Answer:
    return asyncio.run(exchange(method, path, query, lines, [b""]))


def without_instance(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in answer.json.items() if name != "instance"}


# --- who is asking ---------------------------------------------------------------------------------------------------


def test_a_signed_request_is_answered_and_never_kept_by_caches(line: Line) -> None:
    answer = line.ask("GET", WORK)
    assert answer.status == 200
    assert answer.json.keys() == {"token", "server_time", "rounds", "models", "renewal"}
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_request_without_signatures_is_told_to_sign(line: Line) -> None:
    answer = send([("host", server_address())])
    assert answer.refusal == (401, "not_authenticated")
    assert answer.headers["www-authenticate"] == "Signature"


def test_a_machine_that_never_enrolled_is_nobody(line: Line) -> None:
    assert Line(Machine.with_claim(line.machine.site)).ask("GET", WORK).refusal == (401, "not_authenticated")


def test_another_enrolled_device_cannot_sign_for_this_one(line: Line) -> None:
    other = enrolled(line.machine.site)
    assert line.ask("GET", WORK, signer=other).refusal == (403, "invalid_signature")


@pytest.mark.parametrize("half", [0, 1], ids=["pq", "cl"])
def test_one_good_signature_is_not_enough(line: Line, half: int) -> None:
    nonce = bytes(16)
    own = dict(line.headers("GET", WORK, nonce=nonce))
    foreign = dict(line.headers("GET", WORK, nonce=nonce, signer=enrolled(line.machine.site)))
    mixed = own["signature"].split(", ")
    mixed[half] = foreign["signature"].split(", ")[half]
    assert send([*({**own, "signature": ", ".join(mixed)}).items()]).refusal == (403, "invalid_signature")


@pytest.mark.parametrize("name", ["signature", "signature-input", "content-digest", "idempotency-key"])
def test_a_header_that_steers_and_comes_twice_is_refused(line: Line, name: str) -> None:
    path = address("rounds/<id>/submissions")
    lines = line.headers("POST", path, digest=bytes(32), headers=[("idempotency-key", "0" * 64)])
    twice = next(pair for pair in lines if pair[0] == name)
    assert send([*lines, twice], "POST", path).refusal == (400, "malformed_message")


def test_what_was_not_signed_cannot_be_added_or_changed(line: Line) -> None:
    lines = line.headers("GET", WORK, "wait=0")
    assert send([*lines, ("idempotency-key", "0" * 64)], query="wait=0").refusal == (400, "malformed_message")
    assert send(lines, query="wait=1").refusal == (403, "invalid_signature")


def test_a_request_for_another_server_is_refused(line: Line) -> None:
    lines = [(name, value) for name, value in line.headers("GET", WORK) if name != "host"]
    assert send([("host", "elsewhere.example.org"), *lines]).refusal == (403, "wrong_context")


def test_a_nonce_works_once(line: Line) -> None:
    lines = line.headers("GET", WORK)
    assert send(lines).status == 200
    assert send(lines).refusal == (409, "replayed")


def test_a_revoked_device_is_out_from_the_next_request_on(line: Line) -> None:
    assert line.ask("GET", WORK).status == 200
    assert line.machine.device is not None
    services.revoke_device(device_id=line.machine.device.id, actor="user:1", reason=Reason.KEY_COMPROMISE)
    for path in (WORK, address("models/<id>/body")):
        assert line.ask("GET", path).refusal == (403, "certificate_revoked")


def test_a_suspended_device_is_out_until_it_is_reinstated(line: Line) -> None:
    assert line.machine.device is not None
    services.suspend_device(device_id=line.machine.device.id, actor="user:1")
    assert line.ask("GET", WORK).refusal == (403, "not_permitted")
    services.reinstate_device(device_id=line.machine.device.id, actor="user:1")
    assert line.ask("GET", WORK).status == 200


def test_a_machine_that_nobody_approved_may_ask_for_its_certificate_only(site: Site) -> None:
    machine = Machine.with_claim(site)
    machine.finish(machine.begin())
    answer = Line(machine).ask("GET", address("enrolments/<id>/certificate", machine.enrolment_id))
    assert (answer.status, answer.json) == (202, {"state": "pending"})
    assert Line(machine).ask("GET", WORK).refusal == (403, "not_permitted")
    # And nobody else may ask for it.
    other = Line(enrolled(site)).ask("GET", address("enrolments/<id>/certificate", machine.enrolment_id))
    assert other.refusal == (404, "not_found")


# --- the form of a request -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", WORK, "GET"),
        ("HEAD", WORK, "GET"),
        ("GET", address("rounds/<id>/join"), "POST"),
        ("PUT", address("rounds/<id>/submissions"), "POST"),
        ("DELETE", address("models/<id>/body"), "GET"),
    ],
)
def test_a_wrong_method_is_refused_with_the_right_one(method: str, path: str, allowed: str) -> None:
    answer = send([("host", server_address())], method, path)
    assert answer.refusal == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


def test_what_is_not_a_door_address_is_not_answered_by_the_door() -> None:
    for path in ("/api/v1/work/", "/api/v1/rounds/7/join", address("rounds/<id>/join") + "\n", "/nothing"):
        assert send([("host", "127.0.0.1")], path=path).status == 404, path


@pytest.mark.parametrize("query", ["wait=soon", "wait=nan", "wait=", "&".join(f"f{i}=1" for i in range(17))])
def test_a_query_that_cannot_be_meant_is_malformed(line: Line, query: str) -> None:
    assert line.ask("GET", WORK, query).refusal == (400, "malformed_message")


@pytest.mark.parametrize("query", ["wait=-1", "wait=1e999&after=", "other=1"])
def test_a_query_out_of_range_is_bounded(line: Line, query: str) -> None:
    assert line.ask("GET", WORK, query).status == 200


def test_bytes_beyond_ascii_are_malformed(line: Line) -> None:
    lines = line.headers("GET", WORK)
    assert send([*lines, ("x-ward", "Kreißsaal")]).refusal == (400, "malformed_message")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 60_000, b"{}{}"], ids=lambda body: repr(body[:8])
)
def test_malformed_json_on_join_is_refused(line: Line, body: bytes) -> None:
    assert line.ask("POST", address("rounds/<id>/join"), body=body).refusal == (400, "malformed_message")


def test_a_body_that_the_signature_does_not_cover_is_refused(line: Line) -> None:
    path = address("rounds/<id>/join")
    lines = line.headers("POST", path, digest=bytes(32))
    assert asyncio.run(exchange("POST", path, "", lines, [b"{}"])).refusal == (403, "wrong_context")


def test_a_post_without_a_digest_is_refused(line: Line) -> None:
    path = address("rounds/<id>/join")
    lines = line.headers("POST", path, digest=bytes(32))
    bare = [(name, value) for name, value in lines if name != "content-digest"]
    assert send(bare, "POST", path).refusal == (400, "malformed_message")


def test_a_small_body_has_a_small_limit(line: Line) -> None:
    path = address("rounds/<id>/join")
    lines = line.headers("POST", path, digest=bytes(32))
    answer = asyncio.run(exchange("POST", path, "", lines, [b" " * 40_000] * 50))
    assert answer.refusal == (413, "message_too_large")
    assert answer.pieces_taken == 2


# --- what a device may see -------------------------------------------------------------------------------------------


def test_an_unknown_round_and_a_foreign_one_look_alike(cohort: Cohort, recruiting: Round) -> None:
    newcomer = Line(enrolled(cohort.hospitals[0].machine.site))  # enrolled after the invitations
    refusals: list[tuple[str, str, bytes | None, tuple[int, str]]] = [
        ("POST", "rounds/<id>/join", b"{}", (403, "not_permitted")),
        ("POST", "rounds/<id>/submissions", b"any", (403, "not_permitted")),
        ("GET", "rounds/<id>/assignment", None, (404, "not_found")),
        ("GET", "rounds/<id>/record", None, (404, "not_found")),
    ]
    for method, name, body, refusal in refusals:
        headers = [("idempotency-key", "0" * 64)] if body else []
        unknown = newcomer.ask(method, address(name, uuid4()), body=body, headers=headers)
        foreign = newcomer.ask(method, address(name, recruiting.id), body=body, headers=headers)
        assert foreign.refusal == refusal
        assert without_instance(foreign) == without_instance(unknown)
    assert not AuditEntry.objects.filter(event="submission.refused").exists()  # it is nobody of this round


def test_what_belongs_to_others_does_not_exist(cohort: Cohort) -> None:
    published = cohort.whole_round(cohort.train())
    assert published.model is not None
    member, newcomer = Line(cohort.hospitals[0].machine), Line(enrolled(cohort.hospitals[0].machine.site))
    first = published.participants.get(device=member.machine.device).submissions.get()
    seen = {
        address("models/<id>/manifest", published.model.id): "application/cbor",
        address("models/<id>/body", published.model.id): "application/octet-stream",
        address("rounds/<id>/record", published.id): "application/cbor",
        address("rounds/<id>/assignment", published.id): "application/cbor",
        address("submissions/<id>", first.id): "application/json",
    }
    for path, content_type in seen.items():
        answer = member.ask("GET", path)
        assert (answer.status, answer.headers["content-type"]) == (200, content_type)
        assert newcomer.ask("GET", path).refusal == (404, "not_found")
    assert member.ask("GET", address("submissions/<id>/proof", first.id)).status == 202  # nothing numbers entries here
    assert newcomer.ask("GET", address("submissions/<id>/proof", first.id)).refusal == (404, "not_found")
    assert newcomer.ask("GET", WORK).json["models"] == []


def test_the_token_of_work_changes_with_news_and_not_with_the_devices_own_steps(
    cohort: Cohort, recruiting: Round
) -> None:
    lines = [Line(hospital.machine) for hospital in cohort.hospitals]
    invited = lines[0].ask("GET", WORK).json
    assert [(row["round"], row["participant"]) for row in invited["rounds"]] == [(str(recruiting.id), "invited")]
    for line in lines:
        joined = line.ask("POST", address("rounds/<id>/join", recruiting.id), body=b"{}")
        assert (joined.status, joined.json) == (200, {"participant": "joined", "round_state": "recruiting"})
    after = lines[0].ask("GET", WORK).json
    assert after["rounds"][0]["participant"] == "joined"
    assert after["token"] == invited["token"]
    coordination.advance_round(recruiting.id)
    collecting = lines[0].ask("GET", WORK).json
    assert collecting["rounds"][0]["state"] == "collecting"
    assert collecting["token"] != after["token"]
    Participant.objects.filter(round=recruiting, device=lines[0].machine.device).update(state="dropped")
    assert lines[0].ask("GET", WORK).json["token"] != collecting["token"]


def test_joining_again_is_harmless_and_joining_too_late_is_refused(cohort: Cohort, recruiting: Round) -> None:
    path = address("rounds/<id>/join", recruiting.id)
    lines = [Line(hospital.machine) for hospital in cohort.hospitals]
    assert [line.ask("POST", path, body=b"").status for line in (*lines[:3], lines[0])] == [200] * 4
    Round.objects.filter(pk=recruiting.pk).update(state="aggregating")
    assert lines[3].ask("POST", path, body=b"{}").refusal == (409, "wrong_state")


def test_a_join_is_handed_on_to_the_workers(cohort: Cohort, recruiting: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[str] = []
    monkeypatch.setattr(tasks.advance_round, "delay", handed.append)
    Line(cohort.hospitals[0].machine).ask("POST", address("rounds/<id>/join", recruiting.id), body=b"{}")
    assert handed == [str(recruiting.id)]
