"""Proofs that something stands in the ledger, after section 17 of docs/protocol.md."""

import base64
import time
from typing import Any

from tests.interop import wire
from tests.interop.client import Device
from tests.interop.wire import require

ENTRY = "id event actor subject_kind subject_id details feed feed_seq recorded_at"


def proven_entry(device: Device, submission_id: str, sent: bytes) -> dict[str, Any]:
    """The ledger's entry of a submission, once it is proven."""
    status: int = 202
    told: dict[str, Any] = {}
    while status == 202:
        status, told = device.ask_json(f"/api/v1/submissions/{submission_id}/proof")
        time.sleep(0.2 if status == 202 else 0)
    (key,) = (raw for (purpose, _), raw in device.trusted.items() if purpose == "checkpoint")
    entry = verify_proof(told, f"latticeward/{device.trust['federation_id']}", key)
    details = entry["details"]
    require((entry["event"], entry["subject_kind"]) == ("update.received", "participant"), "another entry")
    require(details["submission"] == submission_id, "an entry of another submission")
    require(details["digest"] == sent.hex(), "an entry of other bytes")
    return entry


def verify_proof(proof: dict[str, Any], origin: str, raw_key: bytes) -> dict[str, Any]:
    """The entry that is proven to be in the ledger."""
    text, _, rest = proof["checkpoint"].partition("\n\n")
    named, size, root = text.split("\n")
    require(named == origin, "a checkpoint of another ledger")
    kind = b"\xfflatticeward/checkpoint/v1/" + wire.SIGNING.encode() + b"\0"
    hint = wire.sha256(origin.encode() + b"\n" + kind + raw_key)[:4]
    lines = [line.split(" ") for line in rest.removesuffix("\n").split("\n")]
    blobs = [base64.b64decode(blob, validate=True) for dash, name, blob in lines if (dash, name) == ("\u2014", origin)]
    ours = [blob[4:] for blob in blobs if blob[:4] == hint]
    require(len(ours) > 0, "no signature by the ledger's key")
    for signature in ours:
        wire.verify(raw_key, signature, f"{text}\n".encode(), "checkpoint")
    entry = wire.bytes64(proof["entry"])
    found, place, last = wire.sha256(b"\0" + entry), proof["index"], int(size) - 1
    require(0 <= place <= last, "a leaf beyond the tree")
    for sibling in map(bytes.fromhex, proof["proof"]):
        require(last > 0, "a proof that is too long")
        if place & 1 or place == last:
            found = wire.sha256(b"\1" + sibling + found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = wire.sha256(b"\1" + found + sibling)
        place, last = place >> 1, last >> 1
    require(last == 0 and found == base64.b64decode(root, validate=True), "the entry is not in the tree")
    return wire.read(entry, "audit-entry", ENTRY)
