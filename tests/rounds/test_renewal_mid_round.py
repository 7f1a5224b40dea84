"""Devices renew their keys through the door, and in the middle of rounds, which go on."""

import json
from typing import Any

import pytest

from devices.renewal_issuing import issue_renewals
from latticeward.base64url import decode_base64url, encode_base64url
from latticeward.errors import DecryptionError
from latticeward.renewal import RenewalProofs, read_renewal_answer, renewal_proofs
from rounds import selectors
from rounds.services import intake
from rounds.services.publication import seal_for_newcomers
from tests.devices.renewing import Renewing, ask, device_of, renewed
from tests.rounds.cohort import Cohort, Hospital
from tests.rounds.line import Line
from tests.rounds.test_whole_round import _open_at

pytestmark = pytest.mark.django_db(transaction=True)


def post(line: Line, path: str, body: dict[str, Any]) -> Any:
    raw = json.dumps(body).encode()
    return line.ask("POST", path, body=raw, headers=[("content-type", "application/json")])


def as_json(proofs: RenewalProofs) -> dict[str, Any]:
    text = encode_base64url
    return {
        "challenge_mac": text(proofs.finish.challenge_mac),
        "signatures": {name: text(getattr(proofs.finish, name)) for name in ("authentication", "classical", "signing")},
        "continuity": text(proofs.continuity),
    }


def switch(hospital: Hospital) -> None:
    hospital.machine = renewed(hospital.machine)


def test_a_device_renews_through_the_door(cohort: Cohort) -> None:
    machine = cohort.hospitals[0].machine
    line, renewing = Line(machine), Renewing(machine)
    renewing.sent = renewing.transcript()
    body = {"transcript": encode_base64url(renewing.sent)}
    assert post(line, "/api/v1/renewals", body).refusal == (409, "wrong_state")
    ask(machine)
    work = line.ask("GET", "/api/v1/work").json
    assert work["renewal"] == {"suite": "hybrid", "reason": "rotation"}
    begun = post(line, "/api/v1/renewals", body)
    assert begun.status == 201
    answer = read_renewal_answer(
        decode_base64url(begun.json["answer"]), transcript=renewing.sent, now=device_of(machine).requested_at
    )
    proofs = as_json(renewal_proofs(answer, keys=renewing.keys, parent=machine.keys.signing))
    path = f"/api/v1/renewals/{begun.json['renewal']}"
    after = Line(renewing.switched())
    assert after.ask("GET", f"{path}/certificate").refusal == (401, "not_authenticated")
    finished = post(line, f"{path}/finish", proofs)
    assert (finished.status, finished.json["renewal"]) == (202, begun.json["renewal"])
    issue_renewals()
    collected = after.ask("GET", f"{path}/certificate")
    assert (collected.status, collected.json["state"]) == (200, "issued")
    assert after.ask("GET", "/api/v1/work").json["renewal"] is None
    assert line.ask("GET", "/api/v1/work").status == 200  # the overlap


@pytest.mark.parametrize("body", [{}, {"transcript": 7}, {"transcript": "=="}, {"transcript": "AA"}])
def test_what_is_no_transcript_is_refused(cohort: Cohort, body: dict[str, Any]) -> None:
    line = Line(cohort.hospitals[0].machine)
    assert post(line, "/api/v1/renewals", body).refusal == (400, "malformed_message")


def test_a_second_renewal_through_the_door_is_told_apart_and_closes_it(cohort: Cohort) -> None:
    machine = cohort.hospitals[0].machine
    copy = Renewing(machine)
    body = {"transcript": encode_base64url(copy.transcript())}
    renewed(machine)
    assert post(Line(machine), "/api/v1/renewals", body).refusal == (409, "renewal_conflict")
    assert Line(machine).ask("GET", "/api/v1/work").refusal == (403, "not_permitted")
    assert device_of(machine).state == "suspended"


def test_an_update_signed_before_a_renewal_counts_in_its_round(cohort: Cohort) -> None:
    training = cohort.train()
    current = cohort.collecting(training)
    prepared = {hospital.site: hospital.prepare(current) for hospital in cohort.hospitals}
    first, second, *others = cohort.hospitals
    switch(first)  # between preparing and sending
    submission = first.submit(current, prepared[first.site])
    waiting = second.submit(current, prepared[second.site])
    switch(second)  # between sending and being taken in
    for hospital in others:
        intake.process_update(hospital.submit(current, prepared[hospital.site]).id)
    for one in (submission, waiting):
        one.refresh_from_db()
        assert one.outcome == "accepted"
    published = cohort.publish(current)
    assert published.state == "published"


def test_a_superseded_key_counts_in_no_round_that_was_opened_afterwards(cohort: Cohort) -> None:
    hospital = cohort.hospitals[0]
    before = hospital.machine
    switch(hospital)
    current = cohort.collecting(cohort.train())
    after, hospital.machine = hospital.machine, before
    envelope = hospital.prepare(current)
    hospital.machine = after
    submission = hospital.submit(current, envelope)
    intake.process_update(submission.id)
    submission.refresh_from_db()
    assert (submission.outcome, submission.code) == ("refused", "key_usage")
    assert hospital.contribute(current).outcome == "accepted"


def test_models_are_sealed_to_the_new_key_only_and_the_old_one_opens_what_was_sealed_before(cohort: Cohort) -> None:
    published = cohort.whole_round(cohort.train())
    hospital = cohort.hospitals[0]
    before = selectors.manifest_for(published.model.id, hospital.device)
    opened = _open_at(hospital, published, before[1])
    old = hospital.machine
    switch(hospital)
    assert seal_for_newcomers(published.model) == 1
    after = selectors.manifest_for(published.model.id, hospital.device)
    assert (_open_at(hospital, published, after[1]) == opened).all()
    hospital.machine = old
    with pytest.raises(DecryptionError):
        _open_at(hospital, published, after[1])
    assert seal_for_newcomers(published.model) == 0


def test_a_whole_training_goes_on_while_devices_renew_in_every_round(cohort: Cohort) -> None:
    training = cohort.train()
    base = None
    for number in range(3):
        current = cohort.collecting(training)
        for index, hospital in enumerate(cohort.hospitals):
            if index % 3 == number:
                switch(hospital)
            assert hospital.contribute(current, base).outcome == "accepted"
        base = cohort.weights(cohort.publish(current))
    assert all(hospital.device.key_epoch > 1 for hospital in cohort.hospitals)
