"""Plans and records that an earlier version wrote are read by this one, and written to the same bytes."""

from base64 import b64decode
from typing import Any

import pytest

from latticeward import canonical
from latticeward.crypto.keys import CompositeSigningKey
from latticeward.errors import InvalidSignatureError
from latticeward.messages import RoundRecord
from latticeward.plan import PARTS, RoundPlan
from tests.vectors.generate import read

PLANS: list[dict[str, Any]] = read("plans")
STARTS: list[dict[str, Any]] = read("starts")
RECORDS: list[dict[str, Any]] = read("records")


def as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("frozen", [*PLANS, *STARTS], ids=lambda frozen: frozen["fields"]["title"])
def test_a_frozen_plan_is_read_written_and_named_as_it_was(frozen: dict[str, Any]) -> None:
    raw = b64decode(frozen["plan"])
    plan = RoundPlan.from_bytes(raw).validate()
    assert plan.to_bytes() == raw
    assert plan.digest.hex() == frozen["digest"]
    assert as_json(canonical.decode(raw, limit_bytes=len(raw))) == frozen["fields"]
    # The values as the program has them, not only as they were decoded.
    for name in ("job", "rounds", "quorum", "k_hospitals", "k_patients", "clip_norm", "weight_rule", "evaluate_last"):
        assert getattr(plan, name) == frozen["fields"][name]
    for name in PARTS:
        assert getattr(plan, name).to_wire() == frozen["fields"][name]


def test_the_frozen_plans_have_every_job_and_say_something_in_every_part() -> None:
    plain, spoken = PLANS[0]["fields"], PLANS[-1]["fields"]
    assert {"heart", "thyroid", "watch"} <= {frozen["fields"]["job"] for frozen in PLANS}
    assert {name for name in PARTS if spoken[name] == plain[name]} == {"privacy"}  # no noise, so nothing to say


def test_the_frozen_start_is_the_version_that_its_plan_names() -> None:
    (frozen,) = STARTS
    start = RoundPlan.from_bytes(b64decode(frozen["plan"])).start
    assert start is not None
    assert as_json(start.to_initial()) == frozen["fields"]["initial"]
    assert {RoundPlan.from_bytes(b64decode(row["plan"])).start for row in PLANS} == {None}


@pytest.mark.parametrize("frozen", RECORDS, ids=lambda frozen: frozen["fields"]["kind"])
def test_a_frozen_record_is_read_written_named_and_verified_as_it_was(frozen: dict[str, Any]) -> None:
    raw = b64decode(frozen["record"])
    record = RoundRecord.from_bytes(raw)
    assert record.to_bytes() == raw
    assert record.digest.hex() == frozen["digest"]
    assert as_json(canonical.decode(raw, limit_bytes=len(raw))) == frozen["fields"]
    assert [row["site"] for row in record.participants] == ["Cleveland", "Zürich", "Budapest"]
    key = CompositeSigningKey.from_seed(b64decode(frozen["seed"]), frozen["algorithm"]).verify_key
    message = b64decode(frozen["message"])
    assert RoundRecord.verify(message, key=key) == record
    with pytest.raises(InvalidSignatureError):
        RoundRecord.verify(message.replace(b"Budapest", b"Bukarest"), key=key)
