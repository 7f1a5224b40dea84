"""The agent's life against an in-memory server: what it does, repeats, refuses, and when it stops."""

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from latticeward.agent.backoff import Backoff
from latticeward.agent.floor import Floor
from latticeward.agent.interruption import StopRequested
from latticeward.agent.models import load_newest
from latticeward.agent.state import AgentState, Stage
from latticeward.agent.work import SubmissionOutcome
from latticeward.errors import (
    InclusionProofError,
    LatticewardError,
    LedgerError,
    MalformedMessageError,
    PermanentTransportError,
    TransientTransportError,
)
from latticeward.updates.tensors import weights_digest
from tests.latticeward.agent.fakes import FakeServer, Life, entry_of, heart_plan, stranger, uuid_of
from tests.latticeward.peers import MINUTE, NOW, device_keys


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def life(tmp_path: Path, server: FakeServer) -> Life:
    return Life(tmp_path / "home", server)


def play(life: Life, number: int, *, base: str | None = None, kind: str = "training") -> str:
    """One whole round."""
    round_id = life.server.open_round(number, base=base, kind=kind)
    life.once()
    life.server.see(round_id, state="collecting")
    life.once()
    life.server.publish(round_id)
    life.once()
    return round_id


def test_a_round_from_invitation_to_the_new_model(life: Life, server: FakeServer) -> None:
    round_id = server.open_round(1)
    life.once()
    assert server.calls == ["work", "assignment", "trust", "join"]
    assert life.state.rounds[round_id].stage is Stage.PREPARED
    life.once()
    assert server.submitted == []
    server.see(round_id, state="collecting")
    life.once()
    assert life.state.rounds[round_id].stage is Stage.SENT
    assert (life.home / "rounds" / round_id / "receipt.cbor").exists()
    server.see(round_id, participant="accepted", state="aggregating")
    life.once()
    server.publish(round_id)
    life.once()
    memory = life.state.rounds[round_id]
    assert (memory.stage, memory.outcome) == (Stage.SETTLED, "accepted")
    assert (life.home / "rounds" / round_id / "record.cbor").exists()
    np.testing.assert_array_equal(load_newest(life.home), np.ones(36, dtype=np.float32))
    with np.load(life.home / "model.npz", allow_pickle=False) as arrays:
        assert (int(arrays["number"]), str(arrays["model_id"])) == (1, uuid_of(0xA0, 1))


def test_the_next_round_starts_from_the_held_model_without_fetching_it(life: Life, server: FakeServer) -> None:
    play(life, 1)
    server.calls.clear()
    server.open_round(2, base=uuid_of(0xA0, 1))
    life.once()
    assert server.calls == ["work", "assignment", "join"]


def test_a_model_that_is_not_held_is_fetched(tmp_path: Path, server: FakeServer) -> None:
    model = server.make_model(4, np.full(36, 4, dtype=np.float32))
    server.open_round(5, base=model)
    life = Life(tmp_path, server)
    life.once()
    assert server.calls == ["work", "assignment", "trust", "manifest", "body", "join"]
    assert life.state.highest_model == {heart_plan().training_id: 4}


def test_an_evaluation_round_ends_without_a_model(life: Life, server: FakeServer) -> None:
    play(life, 1)
    round_id = play(life, 2, base=uuid_of(0xA0, 1), kind="evaluation")
    assert life.state.rounds[round_id].stage is Stage.SETTLED
    assert life.state.model is not None and life.state.model.number == 1


def test_a_restart_repeats_the_same_bytes(life: Life, server: FakeServer) -> None:
    round_id = server.open_round(1)
    life.once()
    server.see(round_id, state="collecting")
    server.drop_receipts = 1
    with pytest.raises(TransientTransportError):
        life.once()
    again = life.restarted()
    again.once()
    assert again.contributor.made == 0
    assert [raw for _, raw in server.submitted] == [server.submitted[0][1]] * 2
    assert len(server.receipts) == 1
    assert again.state.rounds[round_id].stage is Stage.SENT


def test_a_restart_before_sending_sends_what_was_prepared(life: Life, server: FakeServer) -> None:
    round_id = server.open_round(1)
    life.once()
    prepared = (life.home / "rounds" / round_id / "submission.bin").read_bytes()
    server.see(round_id, state="collecting")
    again = life.restarted()
    again.once()
    assert server.submitted == [(round_id, prepared)]
    assert again.contributor.made == 0


def test_a_lost_receipt_is_fetched_even_after_collecting(life: Life, server: FakeServer) -> None:
    round_id = server.open_round(1)
    life.once()
    server.see(round_id, state="collecting")
    server.drop_receipts = 1
    with pytest.raises(TransientTransportError):
        life.once()
    server.see(round_id, participant="accepted", state="aggregating")
    life.once()
    assert life.state.rounds[round_id].stage is Stage.SENT


def test_a_refused_submission_is_not_sent_again(life: Life, server: FakeServer) -> None:
    round_id = server.open_round(1)
    life.once()
    server.see(round_id, state="collecting")
    life.once()
    server.outcomes[uuid_of(0x50, 1)] = SubmissionOutcome(state="rejected", code="norm_exceeded")
    server.see(round_id, participant="joined")
    life.once(3)
    memory = life.state.rounds[round_id]
    assert (memory.stage, memory.outcome, memory.code) == (Stage.SETTLED, "rejected", "norm_exceeded")
    assert len(server.submitted) == 1


def test_after_a_failed_round_the_same_plan_may_start_from_the_same_model_again(life: Life, server: FakeServer) -> None:
    first = server.open_round(1)
    life.once()
    server.see(first, state="collecting")
    life.once()
    server.see(first, state="failed", participant="dropped")
    second = server.open_round(2)
    life.once()
    assert life.state.rounds[second].stage is Stage.PREPARED


def test_a_base_model_that_was_given_to_under_another_plan_is_refused(life: Life, server: FakeServer) -> None:
    base = server.make_model(1, np.full(36, 3, dtype=np.float32))
    life.state.contributed[weights_digest(server.models[base][3]).hex()] = bytes(32).hex()
    second = server.open_round(2, base=base)
    life.once()
    assert life.state.rounds[second].stage is Stage.REFUSED
    assert life.state.rounds[second].code == "replayed"
    assert life.contributor.made == 0


def test_a_base_model_that_nothing_was_sent_to_is_still_free(life: Life, server: FakeServer) -> None:
    first = server.open_round(1)
    life.once()
    server.see(first, state="aborted", participant="dropped")
    second = server.open_round(2)
    life.once()
    assert life.state.rounds[first].stage is Stage.SETTLED
    assert life.state.rounds[second].stage is Stage.PREPARED


def test_a_round_behind_the_highest_seen_is_refused(life: Life, server: FakeServer) -> None:
    server.see(server.open_round(5), state="recruiting")
    life.once()
    older = server.open_round(4)
    life.once()
    assert life.state.rounds[older].code == "replayed"


def test_an_older_model_than_one_held_is_refused(life: Life, server: FakeServer) -> None:
    play(life, 5)
    older = server.make_model(3, np.full(36, 3, dtype=np.float32))
    round_id = server.open_round(6, base=older)
    life.once()
    assert life.state.rounds[round_id].code == "replayed"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"plan_digest": bytes(32)}, "wrong_context"),
        ({"federation_id": "another"}, "wrong_context"),
        ({"round_id": uuid_of(0xF0, 99)}, "wrong_context"),
        ({"training_id": uuid_of(0x70, 99)}, "wrong_context"),
        ({"base_model_digest": bytes(32)}, "wrong_context"),
        ({"kind": "inference"}, "incompatible_plan"),
        ({"collecting_due_at": 0}, "wrong_context"),
        ({"recipient_key": b"short"}, "malformed_message"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_an_assignment_that_does_not_fit_is_refused(
    life: Life, server: FakeServer, changes: dict[str, object], code: str
) -> None:
    round_id = server.open_round(1)
    server.assignments[round_id] = replace(server.assignments[round_id], **changes)  # type: ignore[arg-type]
    life.once()
    assert life.state.rounds[round_id].code == code
    assert "join" not in server.calls
    server.calls.clear()
    life.once(2)
    assert server.calls == ["work", "work"]


def test_a_plan_by_a_key_that_the_anchor_does_not_know_is_refused_after_one_look(
    life: Life, server: FakeServer
) -> None:
    server.plan_key = stranger()
    round_id = server.open_round(1)
    life.once()
    assert life.state.rounds[round_id].code == "untrusted_issuer"
    assert server.calls.count("trust") == 2


def test_a_plan_below_the_hospitals_floor_is_refused(tmp_path: Path, server: FakeServer) -> None:
    life = Life(tmp_path, server, Floor(quorum=4))
    round_id = server.open_round(1)
    life.once()
    assert life.state.rounds[round_id].code == "plan_below_floor"
    assert "join" not in server.calls


def test_a_plan_for_another_job_is_refused(tmp_path: Path) -> None:
    server = FakeServer(plan=heart_plan(job="thyroid"))
    life = Life(tmp_path, server)
    round_id = server.open_round(1)
    life.once()
    assert life.state.rounds[round_id].code == "incompatible_plan"


def test_a_receipt_for_other_bytes_stops_the_agent(life: Life, server: FakeServer) -> None:
    round_id = server.open_round(1)
    life.once()
    server.see(round_id, state="collecting")
    digest = bytes.fromhex(life.state.rounds[round_id].submission_digest)
    server.submit(round_id, b"something else", submission_digest=bytes(32))
    server.receipts[digest] = server.receipts[bytes(32)]
    with pytest.raises(LedgerError, match="another submission than ours"):
        life.once()


def test_a_record_that_counts_what_was_not_sent_stops_the_agent(life: Life, server: FakeServer) -> None:
    round_id = server.open_round(1)
    life.once()
    server.see(round_id, state="collecting")
    life.once()
    server.publish(round_id, digest=bytes(32))
    with pytest.raises(LedgerError, match="did not send"):
        life.once()


def test_a_record_without_this_device_stops_the_agent(life: Life, server: FakeServer) -> None:
    round_id = server.open_round(1)
    life.once()
    server.see(round_id, state="collecting")
    life.once()
    server.publish(round_id)
    server.records[round_id] = replace(server.records[round_id], participants=())
    with pytest.raises(LedgerError, match="lists this device 0 times"):
        life.once()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: {"accepted": record.accepted + 1}, "count is not that of its rows"),
        (
            lambda record: {
                "participants": (*record.participants, {**record.participants[0], "device_id": uuid_of(0x99, 1)}),
                "accepted": 2,
            },
            "other devices than were invited",
        ),
    ],
)
def test_a_record_that_does_not_add_up_stops_the_agent(life: Life, server: FakeServer, change: Any, says: str) -> None:
    round_id = server.open_round(1)
    life.once()
    server.see(round_id, state="collecting")
    life.once()
    server.publish(round_id)
    server.records[round_id] = replace(server.records[round_id], **change(server.records[round_id]))
    with pytest.raises(LedgerError, match=says):
        life.once()


def test_submissions_are_proven_between_rounds(life: Life, server: FakeServer) -> None:
    play(life, 1)
    assert list(life.state.unproven) == [uuid_of(0x50, 1)]
    life.once()
    assert life.state.unproven == {}
    assert server.calls[-1] == "proof"
    life.once()
    assert server.calls[-1] == "work"


def test_an_entry_that_is_late_is_asked_for_again(life: Life, server: FakeServer) -> None:
    play(life, 1)
    entry = server.entries.pop(uuid_of(0x50, 1))
    life.once()
    server.now = NOW + 2 * MINUTE
    life.once()
    assert life.state.unproven
    server.entries[uuid_of(0x50, 1)] = entry
    life.once()
    assert not life.state.unproven


@pytest.mark.parametrize(
    "details",
    [
        {"submission": uuid_of(0x50, 1), "digest": "00" * 32},
        {"submission": uuid_of(0x50, 2), "digest": "right"},
        {},
    ],
    ids=["other bytes", "other submission", "nothing"],
)
def test_a_ledger_that_tells_something_else_stops_the_agent(
    life: Life, server: FakeServer, details: dict[str, str]
) -> None:
    round_id = play(life, 1)
    if details.get("digest") == "right":
        details = {**details, "digest": life.state.rounds[round_id].submission_digest}
    server.entries[uuid_of(0x50, 1)] = entry_of(details)
    with pytest.raises(InclusionProofError, match="tells of other bytes"):
        life.once()
    assert life.restarted().state.unproven


def test_a_model_sealed_to_another_device_ends_the_round_and_not_the_agent(life: Life, server: FakeServer) -> None:
    model = server.make_model(4, np.full(36, 4, dtype=np.float32), sealed_to=device_keys(1).decapsulation)
    round_id = server.open_round(5, base=model)
    life.once()
    assert life.state.rounds[round_id].code == "decryption_failed"


@pytest.mark.parametrize("part", ["body", "weights"])
def test_a_model_that_was_changed_is_refused(life: Life, server: FakeServer, part: str) -> None:
    model = server.make_model(4, np.full(36, 4, dtype=np.float32))
    round_id = server.open_round(5, base=model)
    manifest, stanza, body, vector = server.models[model]
    if part == "body":
        server.models[model] = manifest, stanza, body[:-1] + bytes([body[-1] ^ 1]), vector
    else:
        server.models[model] = replace(manifest, weights_digest=bytes(32)), stanza, body, vector
    life.once()
    assert life.state.rounds[round_id].stage is Stage.REFUSED
    assert not (life.home / "model.npz").exists()


def test_an_unreachable_server_is_met_with_longer_and_longer_pauses(life: Life, server: FakeServer) -> None:
    server.unreachable = 100
    with pytest.raises(StopRequested):
        life.loop.run()
    pauses = life.interruption.pauses
    assert len(pauses) == 21 and max(pauses) <= 30.0 and max(pauses[:2]) <= 1.0 and max(pauses) > 5.0


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks_and_a_random_part_more(
    life: Life, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = TransientTransportError("throttled", server_code="throttled", retry_after_seconds=60.0)
    monkeypatch.setattr(server, "work", mock.Mock(side_effect=busy))
    with pytest.raises(StopRequested):
        life.loop.run()
    pauses = life.interruption.pauses
    assert min(pauses) > 60.0 and max(pauses) <= 90.0 and len(set(pauses)) == 21


def test_no_server_silences_an_agent_for_longer_than_ten_minutes_and_a_bit() -> None:
    backoff = Backoff(random.Random(3))
    assert 600.0 < backoff.next_seconds(asked_seconds=86_400.0) <= 660.0
    assert backoff.next_seconds(asked_seconds=0.0) <= 1.0


@pytest.mark.parametrize(
    "error",
    [
        MalformedMessageError("the server's answer is not JSON"),
        TransientTransportError("the server answered 403 clock_skew: This device's clock is 412 s behind the server's"),
    ],
    ids=["malformed", "clock"],
)
def test_what_may_pass_does_not_end_the_agent_and_is_told(
    life: Life,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: LatticewardError,
) -> None:
    monkeypatch.setattr(server, "work", mock.Mock(side_effect=error))
    with pytest.raises(StopRequested):
        life.loop.run()
    assert len(life.interruption.pauses) == 21
    assert f"{error}; trying again in" in caplog.text


def test_a_device_that_the_server_does_not_know_stops(life: Life, server: FakeServer) -> None:
    def refuse(**_: object) -> None:
        raise PermanentTransportError("who are you", server_code="not_authenticated")

    server.work = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(PermanentTransportError):
        life.loop.run()


def test_a_suspended_device_waits_for_its_reinstatement(life: Life, server: FakeServer) -> None:
    def refuse(**_: object) -> None:
        raise PermanentTransportError("suspended", server_code="not_permitted")

    server.work = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(StopRequested):
        life.loop.run()


def test_a_round_that_moved_on_meanwhile_is_not_held_against_anybody(life: Life, server: FakeServer) -> None:
    def refuse(round_id: str) -> None:
        raise PermanentTransportError("not recruiting", server_code="wrong_state")

    round_id = server.open_round(1)
    server.join = refuse  # type: ignore[method-assign]
    life.once()
    assert life.state.rounds[round_id].stage is Stage.ACCEPTED
    server.see(round_id, state="failed", participant="dropped")
    life.once()
    assert life.state.rounds[round_id].stage is Stage.SETTLED


def test_a_round_that_does_not_want_this_device_is_refused(life: Life, server: FakeServer) -> None:
    def refuse(round_id: str) -> None:
        raise PermanentTransportError("not invited", server_code="not_permitted")

    round_id = server.open_round(1)
    server.join = refuse  # type: ignore[method-assign]
    life.once()
    assert life.state.rounds[round_id].code == "not_permitted"


def test_an_agent_may_leave_after_so_many_rounds(life: Life, server: FakeServer) -> None:
    round_id = server.open_round(1)
    life.once()
    server.see(round_id, state="collecting")
    life.once()
    server.publish(round_id)
    life.loop.run(rounds=1)
    assert life.state.rounds[round_id].stage is Stage.SETTLED


def test_the_memory_survives_and_forgets_only_old_rounds(life: Life, server: FakeServer) -> None:
    base = None
    for number in range(1, 14):
        round_id = play(life, number, base=base)
        life.once()
        base = uuid_of(0xA0, number)
        del server.rounds[round_id]
    read = AgentState.load(life.home)
    assert read == life.state
    assert len(read.rounds) == 10
    assert len(read.contributed) == 13
    assert len(list((life.home / "rounds").iterdir())) == 10
    assert len(list((life.home / "models").iterdir())) == 3


def test_a_wrong_clock_is_told_once(life: Life, server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    life.loop._clock = lambda: server.now + timedelta(seconds=90)
    with caplog.at_level("WARNING"):
        life.once(3)
    assert [record.getMessage() for record in caplog.records] == ["this machine's clock is 90 s ahead of the server's"]
