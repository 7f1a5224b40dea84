"""A record in one file: checked without a server, said in words, and refused when anything in it is touched."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse

from keys.ledger import keep_ledger
from keys.selectors import trust_anchor
from keys.services import sign_with
from latticeward.crypto.signing import Purpose, parse_signed_message
from latticeward.errors import (
    InclusionProofError,
    LatticewardError,
    LedgerError,
    StateError,
    UntrustedIssuerError,
)
from latticeward.messages import RoundRecord
from latticeward.plan_parts import MetricRelease
from latticeward.record_file import RecordFile, verify_record_file
from latticeward.record_words import say_record
from latticeward.records import require_promises
from latticeward.starts import NamedVersion
from latticeward.verify_record import main
from rounds.models import Round
from rounds.services.records import record_file
from tests.rounds.cohort import Cohort
from tests.rounds.test_dropouts import make_due

pytestmark = pytest.mark.django_db


@pytest.fixture
def published(cohort: Cohort) -> Round:
    """The second round of a training, one hospital late, in the ledger."""
    training = cohort.train()
    first = cohort.whole_round(training)
    current = cohort.collecting(training)
    for hospital in cohort.hospitals[:3]:
        hospital.contribute(current, cohort.weights(first))
    make_due(current)
    current = cohort.publish(current)
    keep_ledger()
    return current


@pytest.fixture
def raw(published: Round) -> bytes:
    return record_file(published.id)


def anchor() -> bytes:
    return trust_anchor().fingerprint


def test_a_record_file_is_believed_with_nothing_but_the_anchor_s_fingerprint(published: Round, raw: bytes) -> None:
    proven = verify_record_file(raw, anchor_fingerprint=anchor())
    assert proven.record.to_bytes() == bytes(published.record)
    assert proven.plan.digest == proven.record.plan_digest
    assert proven.index < proven.ledger_size
    assert proven.record.ledger is None or proven.record.ledger["size"] <= proven.index


def test_another_anchor_believes_none_of_it(raw: bytes) -> None:
    with pytest.raises(UntrustedIssuerError):
        verify_record_file(raw, anchor_fingerprint=bytes(32))


def test_a_record_that_is_not_in_the_ledger_yet_has_no_file(cohort: Cohort) -> None:
    current = cohort.whole_round(cohort.train())
    with pytest.raises(StateError, match="not numbered"):
        record_file(current.id)


def forged(parts: RecordFile, **changes: object) -> RecordFile:
    """A record with other fields, signed by the server's own key: what a lying server would hand out later."""
    record = RoundRecord.from_bytes(parse_signed_message(parts.record).payload)
    return replace(parts, record=sign_with(Purpose.ROUND_RECORD, replace(record, **changes).to_bytes()))


CHANGES: dict[str, Callable[[RecordFile], RecordFile]] = {
    "record": lambda parts: replace(parts, record=_flip(parts.record)),
    "plan": lambda parts: replace(parts, plan=_flip(parts.plan)),
    "trust": lambda parts: replace(parts, trust=_flip(parts.trust)),
    "entry": lambda parts: replace(parts, entry=_flip(parts.entry)),
    "index": lambda parts: replace(parts, index=parts.index - 1),
    "path": lambda parts: replace(parts, path=parts.path[:-1]),
    "checkpoint": lambda parts: replace(parts, checkpoint=parts.checkpoint.replace("\n", "\n1", 1)),
    "a record that the server signed afterwards": lambda parts: forged(parts, metric=None),
}


def _flip(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


@pytest.mark.parametrize("what", CHANGES)
def test_no_part_of_the_file_can_be_touched(raw: bytes, what: str) -> None:
    changed = CHANGES[what](RecordFile.from_bytes(raw)).to_bytes()
    with pytest.raises(LatticewardError):
        verify_record_file(changed, anchor_fingerprint=anchor())


def test_the_ledger_holds_the_server_to_the_record_that_it_published(raw: bytes) -> None:
    changed = forged(RecordFile.from_bytes(raw), metric=None).to_bytes()
    with pytest.raises(InclusionProofError, match="another record"):
        verify_record_file(changed, anchor_fingerprint=anchor())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quorum": 2}, "quorum is not the plan's"),
        ({"suite": "high"}, "suite is not the plan's"),
        ({"accepted": 4}, "count is not that of its rows"),
        ({"metric": {"name": "f1", "value": 0.9, "hospitals": 3, "patients": 90}}, "metric is not the plan's"),
        ({"metric": {"name": "auc", "value": 0.9, "hospitals": 4, "patients": 90}}, "metric is of 4 hospitals of 3"),
        ({"metric": {"name": "auc", "value": 0.9, "hospitals": 3, "patients": 9}}, "metric is of 9 patients"),
        ({"metric": {"name": "auc", "value": 0.9, "hospitals": 2, "patients": 90}}, "metric is of 2 hospitals of 3"),
    ],
)
def test_a_record_must_keep_its_plan_s_promises(published: Round, changes: dict[str, object], says: str) -> None:
    record = RoundRecord.from_bytes(bytes(published.record))
    plan = published.training.round_plan
    require_promises(record, plan)
    with pytest.raises(LedgerError, match=says):
        require_promises(replace(record, **changes), plan)
    with pytest.raises(LedgerError, match="at least 4 are asked"):
        require_promises(record, plan, k_hospitals=4)


def test_a_hospital_s_metric_that_the_plan_does_not_release_breaks_it(published: Round) -> None:
    record = RoundRecord.from_bytes(bytes(published.record))
    shown = tuple({**row, "metric": {"name": "auc", "value": 0.8, "patients": 60}} for row in record.participants)
    with pytest.raises(LedgerError, match="does not release"):
        require_promises(replace(record, participants=shown), published.training.round_plan)


@pytest.mark.parametrize("patients", [19, "many"])
def test_a_released_metric_of_too_few_patients_breaks_it(published: Round, patients: object) -> None:
    record = RoundRecord.from_bytes(bytes(published.record))
    release = MetricRelease(hospital_metrics=True, patients_per_class=20)
    rows = [row for row in record.participants if row["outcome"] == "accepted"]
    shown = tuple({**row, "metric": {"name": "auc", "value": 0.8, "patients": patients}} for row in rows)
    with pytest.raises(LedgerError, match="fewer patients than the plan asks for"):
        require_promises(replace(record, participants=shown), replace(published.training.round_plan, release=release))


def test_the_words_name_who_was_counted_and_who_was_not_and_why(published: Round) -> None:
    words = say_record(RoundRecord.from_bytes(bytes(published.record)), published.training.round_plan)
    text = words.as_text()
    assert "3 of 4 updates were counted, from 3 hospitals; 3 were needed" in words.headline
    assert text.count("its update was counted.") == 3
    assert "left out: no update of it was there in time (late)." in text
    assert "no number is promised" in text and "AUC (binned) 0.8" in text
    assert max(map(len, text.splitlines())) < 200


def test_the_words_name_the_version_that_the_training_starts_from(published: Round) -> None:
    record, plan = RoundRecord.from_bytes(bytes(published.record)), published.training.round_plan
    assert "Training starts from: what its plan describes" in say_record(record, plan).as_text()
    start = NamedVersion(model_id=str(uuid4()), training_id=str(uuid4()), weights_digest=bytes(range(32)))
    text = say_record(replace(record, kind="evaluation"), replace(plan, initial=start.to_initial())).as_text()
    named = f"version {start.model_id} of training {start.training_id}, digest {bytes(range(32)).hex()}"
    assert f"Training starts from: {named}" in text
    assert max(map(len, text.splitlines())) < 200


def test_the_command_says_one_line_or_refuses(raw: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "round.record"
    file.write_bytes(raw)
    assert main([str(file), "--anchor", anchor().hex()]) == 0
    assert capsys.readouterr().out.startswith("OK: round 2 (")
    assert main([str(file), "--anchor", anchor().hex(), "--text"]) == 0
    assert "Cleveland: its update was counted." in capsys.readouterr().out
    assert main([str(file), "--anchor", bytes(32).hex()]) == 1
    assert main([str(tmp_path / "none"), "--anchor", anchor().hex()]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("REFUSED: ") == 2


def test_an_operator_exports_the_file(published: Round, raw: bytes, tmp_path: Path) -> None:
    file = tmp_path / "round.record"
    call_command("export_record", str(published.id), str(file))
    assert main([str(file), "--anchor", anchor().hex()]) == 0
    with pytest.raises(CommandError, match="no published round"):
        call_command("export_record", str(published.training_id), str(file))


def test_everybody_may_read_the_record_and_key_readers_take_the_file(
    client: Client, published: Round, clinician: User, compliance: User
) -> None:
    client.force_login(clinician)
    page = client.get(reverse("round-account", args=[published.id]))
    assert page.status_code == 200
    assert "3 of 4 updates were counted" in page.content.decode()
    assert reverse("round-proof", args=[published.id]) not in page.content.decode()
    assert client.get(reverse("round-proof", args=[published.id])).status_code == 403
    client.force_login(compliance)
    answer = client.get(reverse("round-proof", args=[published.id]))
    verify_record_file(answer.content, anchor_fingerprint=anchor())
    assert client.get(reverse("round-proof", args=[published.training_id])).status_code == 404
    assert client.get(reverse("round-account", args=[published.training_id])).status_code == 404


def test_a_file_that_the_ledger_does_not_know_yet_is_asked_for_again(
    client: Client, cohort: Cohort, compliance: User
) -> None:
    current = cohort.whole_round(cohort.train())
    client.force_login(compliance)
    assert client.get(reverse("round-proof", args=[current.id])).status_code == 409
