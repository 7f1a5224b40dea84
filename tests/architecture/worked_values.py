"""Values of every byte format that can be computed without randomness, as ``docs/protocol.md`` shows them.

Somebody who writes another client compares theirs with these first. Run this file to print the block.
"""

import hashlib

import numpy as np

from latticeward import canonical
from latticeward.claim_code import ClaimCode, format_code, format_uri
from latticeward.crypto.body import sealed_body_bytes
from latticeward.crypto.keys import (
    AuthenticationSigningKey,
    ClassicalSigningKey,
    CompositeSigningKey,
    DecapsulationKey,
)
from latticeward.crypto.signature_fields import SignatureParameters, signature_base
from latticeward.crypto.wrapping import derive_key
from latticeward.enrolment import transcript_digest, transcript_mac
from latticeward.messages import roster_digest
from latticeward.updates.clipping import ClippedUpdate
from latticeward.updates.encoding import FixedPointCodec
from latticeward.updates.metrics import score_histogram
from latticeward.updates.tensors import TensorLayout, TensorSpec, initial_vector, vector_to_bytes, weights_digest

_SEED = bytes(range(32))
_CLAIM = ClaimCode(
    lookup_id=bytes(range(5)),
    secret=bytes(range(16, 32)),
    anchor=bytes(range(160, 192)),
    server="https://fl.example.org",
    site="northside",
    device_class="edge-server",
)


def worked_values() -> list[tuple[str, str]]:
    """Name and value, in the order of the document."""
    codec = FixedPointCodec(clip_norm=4.0, weight_cap=400.0, cohort_bound=16, ring_bits=32, size=2, metric_size=2)
    update = ClippedUpdate(vector=np.zeros(2, dtype=np.float32), weight=100.0, factor=1.0, was_clipped=False)
    contribution = codec.encode(update, np.array([7, 9], dtype=np.uint32), np.random.default_rng(0))
    layout = TensorLayout((TensorSpec("weight", (2, 3)), TensorSpec("bias", (3,))))
    glorot = initial_vector(layout, {"kind": "glorot", "seed": 7})
    counts = score_histogram(np.array([0.0, 0.5, 1.0]), np.array([0, 1, 1]))
    parameters = str(
        SignatureParameters(
            components=("@method", "@authority", "@path", "@query"),
            created=1763715600,
            expires=1763715660,
            nonce="AAECAwQFBgcICQoLDA0ODw",
            key_id="00" * 32,
            algorithm="ml-dsa-65",
            tag="latticeward-request-v1",
        )
    )
    base = signature_base(
        [("@method", "GET"), ("@authority", "fl.example.org"), ("@path", "/api/v1/work"), ("@query", "?wait=20")],
        parameters,
    )
    header_digest, body_digest = hashlib.sha256(b"header").digest(), hashlib.sha256(b"body").digest()
    return [
        (
            'canonical CBOR of {"type": "example", "v": 1, "ok": true, "none": null, "x": 0.5, "y": 0.1, '
            '"raw": h\'0102\', "list": [-1, 1000]}',
            canonical.encode(
                {
                    "type": "example",
                    "v": 1,
                    "ok": True,
                    "none": None,
                    "x": 0.5,
                    "y": 0.1,
                    "raw": b"\x01\x02",
                    "list": [-1, 1000],
                }
            ).hex(),
        ),
        ('digest("latticeward/weights/v1", 12 zero bytes)', weights_digest(np.zeros(3, dtype=np.float32)).hex()),
        ('KDF(000102…1f, "latticeward/example/v1")', derive_key(_SEED, label="latticeward/example/v1").hex()),
        ("key id, ml-dsa-65, seed 000102…1f", AuthenticationSigningKey.from_seed(_SEED).verify_key.key_id.hex()),
        ("key id, ed25519, private key 000102…1f", ClassicalSigningKey.from_seed(_SEED).verify_key.key_id.hex()),
        (
            "key id, mldsa65-ed25519, private form 000102…1f 000102…1f",
            CompositeSigningKey.from_seed(_SEED + _SEED).verify_key.key_id.hex(),
        ),
        (
            "key id, mlkem768-x25519, seed 000102…1f",
            DecapsulationKey.from_seed(_SEED).encapsulation_key.key_id.hex(),
        ),
        ("claim code: lookup id 0001020304, secret 101112…1f, fingerprint a0a1a2…bf", format_code(_CLAIM)),
        ("its machine form, for https://fl.example.org, site northside, class edge-server", format_uri(_CLAIM)),
        ("its mac_key", _CLAIM.mac_key.hex()),
        ('MAC of a T1 of the two bytes "T1"', transcript_mac(b"T1", mac_key=_CLAIM.mac_key).hex()),
        ('T2 of "T1" and the one byte "A"', transcript_digest(b"T1", b"A").hex()),
        (
            "H of the signature base of section 10's example, authority fl.example.org, nonce of 000102…0f, "
            "keyid of zeros, label pq",
            hashlib.sha256(base).hexdigest(),
        ),
        (
            "roster digest of 00000000-0000-4000-8000-000000000002 and 00000000-0000-4000-8000-000000000001",
            roster_digest(["00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000001"]).hex(),
        ),
        ("s and B for C = 4.0, N = 16, k = 32", f"{codec.scale} {codec.bound}"),
        (
            "contribution of a zero update, d = 2, w = 100, W = 400, counts 7 and 9, with these C, N and k",
            codec.to_bytes(contribution.vector).hex(),
        ),
        (
            "auc counts that are not zero, for scores 0.0, 0.5, 1.0 with labels 0, 1, 1 (place: count)",
            ", ".join(f"{place}: {counts[place]}" for place in np.flatnonzero(counts)),
        ),
        (
            "version 0 of weight (2, 3) and bias (3), glorot with seed 7, little-endian",
            vector_to_bytes(glorot).hex(),
        ),
        ("body_bytes for 0, 16383, 16384 bytes", " ".join(str(sealed_body_bytes(n)) for n in (0, 16383, 16384))),
        (
            'submission digest for D(header) = H("header"), D(body) = H("body")',
            canonical.digest("latticeward/envelope/v1", header_digest, body_digest).hex(),
        ),
    ]


if __name__ == "__main__":
    print("\n".join(["```", *(f"{name}\n    {value}" for name, value in worked_values()), "```"]))
