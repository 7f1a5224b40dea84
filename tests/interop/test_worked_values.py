"""The worked values of docs/protocol.md, computed by the independent client: document and product say the same."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519

from tests.interop import wire
from tests.interop.plans import contribution, version_zero

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
SEED = bytes(range(32))
CLAIM = wire.Claim(
    "latticeward-claim:v1?server=https%3A%2F%2Ffl.example.org"
    "&anchor=a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
    "&code=000G4-0R420-8H44R-M2MB1-E60S3-8DHR7-8Y3YG-A38N3-MJJTD-9Z5YC&site=northside&class=edge-server"
)
EXAMPLE = {"type": "example", "v": 1, "ok": True, "none": None, "x": 0.5, "y": 0.1, "raw": b"\1\2", "list": [-1, 1000]}
LAYOUT = [{"name": "weight", "shape": [2, 3]}, {"name": "bias", "shape": [3]}]
PLAN: dict[str, Any] = {"clip_norm": 4.0, "weight_cap": 400.0, "cohort_bound": 16, "ring_bits": 32, "metric_size": 2}


def raw(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes_raw()
    return public


def kem_key(seed: bytes) -> bytes:
    wide = hashlib.shake_256(seed).digest(96)
    pq, curve = mlkem.MLKEM768PrivateKey.from_seed_bytes(wide[:64]), x25519.X25519PrivateKey
    return raw(pq) + raw(curve.from_private_bytes(wide[64:]))


PQ, CURVE = mldsa.MLDSA65PrivateKey.from_seed_bytes(SEED), ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
# Beginning of the name in the document, and the value as this client computes it.
VALUES = {
    "canonical CBOR": wire.encode(EXAMPLE).hex(),
    'digest("latticeward/weights/v1"': wire.digest("latticeward/weights/v1", bytes(12)).hex(),
    "KDF(": wire.derive(SEED, "latticeward/example/v1").hex(),
    "key id, ml-dsa-65": wire.key_id("ml-dsa-65", raw(PQ)).hex(),
    "key id, ed25519": wire.key_id("ed25519", raw(CURVE)).hex(),
    "key id, mldsa65-ed25519": wire.key_id(wire.SIGNING, raw(PQ) + raw(CURVE)).hex(),
    "key id, mlkem768-x25519": wire.key_id(wire.SEALING, kem_key(SEED)).hex(),
    "its mac_key": CLAIM.mac_key.hex(),
    "MAC of a T1": wire.mac(CLAIM.mac_key, "latticeward/enrolment-device-mac/v1", b"T1").hex(),
    "T2 of": wire.digest("latticeward/enrolment/v1", b"T1", b"A").hex(),
    "version 0": version_zero({"layout": LAYOUT, "initial": {"kind": "glorot", "seed": 7}}).hex(),
    "contribution of a zero update": contribution(PLAN, "evaluation", [0.0, 0.0], 100, [7, 9]).hex(),
    "submission digest": wire.sha256(
        wire.encode(["latticeward/envelope/v1", wire.sha256(b"header"), wire.sha256(b"body")])
    ).hex(),
}


@pytest.mark.parametrize("name", VALUES)
def test_the_document_shows_what_this_client_computes(name: str) -> None:
    block = re.search(
        r"<!-- worked values: begin -->\n```\n(.*?)\n```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL
    )
    assert block is not None
    lines = block[1].split("\n")
    shown = {title: value.strip() for title, value in zip(lines[::2], lines[1::2], strict=True)}
    (value,) = (value for title, value in shown.items() if title.startswith(name))
    assert value == VALUES[name]


def test_the_claim_code_is_read_as_it_was_made() -> None:
    assert (CLAIM.lookup_id, CLAIM.anchor) == (bytes(range(5)), bytes(range(160, 192)))
    assert (CLAIM.server, CLAIM.site, CLAIM.device_class) == ("https://fl.example.org", "northside", "edge-server")
