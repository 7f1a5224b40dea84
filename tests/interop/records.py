"""Round records after section 13 of docs/protocol.md, and the models that they name."""

from typing import Any

from tests.interop.client import Device
from tests.interop.wire import require

RECORD = (
    "round_id training_id federation_id number kind plan_digest base_model_digest weights_digest model_id suite"
    " protection aggregator participants accepted quorum partial_commitments metric noise_multiplier epsilon_spent"
    " delta ledger opened_at closed_at"
)


def round_record(device: Device, assignment: dict[str, Any], sent: bytes) -> dict[str, Any]:
    """The record of a round; if it says that this device's update was accepted, of the one that was sent."""
    answer = device.ask("GET", f"/api/v1/rounds/{assignment['round_id']}/record")[2]
    record = device.believe(answer, "round-record", "round-record", RECORD)
    same = ("round_id", "training_id", "federation_id", "number", "kind", "plan_digest", "base_model_digest")
    require(all(record[name] == assignment[name] for name in same), "a record of another round")
    (own,) = (row for row in record["participants"] if row["device_id"] == device.id)
    require(own["outcome"] != "accepted" or own["submission_digest"] == sent, "not what was sent")
    return record


def recorded_model(device: Device, record: dict[str, Any]) -> bytes:
    """The weights that a round's record names, as little-endian float32."""
    manifest, weights = device.model(record["model_id"])
    for name in ("training_id", "round_id", "plan_digest", "weights_digest", "number"):
        require(manifest[name] == record[name], f"a manifest with another {name}")
    return weights
