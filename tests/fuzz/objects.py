"""Real messages for the fuzzer to start from, made with keys of fixed seeds, so that a finding can be repeated."""

import hashlib
from datetime import timedelta
from functools import cache

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.envelope import EnvelopeHeader, Recipient, SealedBody, make_stanza, seal_body, seal_envelope
from latticeward.crypto.httpsig import sign_request
from latticeward.crypto.issuing import make_issuing, make_root
from latticeward.crypto.keys import (
    AuthenticationSigningKey,
    ClassicalSigningKey,
    CompositeSigningKey,
    DecapsulationKey,
)
from latticeward.crypto.revocation import RevokedCertificate, make_revocation_list
from latticeward.crypto.signing import Purpose
from latticeward.device_keys import DeviceKeys
from latticeward.jobs import JOB_SPECS
from latticeward.messages import Assignment, ModelManifest, RoundRecord, SubmissionReceipt
from latticeward.plan import RoundPlan
from latticeward.updates.encoding import FixedPointCodec
from tests.latticeward.peers import AUTHORITY, FEDERATION, FEDERATION_ID, NOW, SIGNED_PURPOSES, SITE, Authority

TIME = int(NOW.timestamp() * 1000)
DEVICE_ID = "0b0fb5a2-5f5d-4a0a-9d0a-54d3f1b0c7aa"
ROUND_ID = "6f2b8a4e-1f07-4f0e-9d5a-000000000002"
CONTENT_KEY = b"c" * 32
# An ECPrivateKey on P-384 (RFC 5915) without its public key.
_P384_SECRET = bytes.fromhex("303e0201010430") + b"\x01" * 48 + bytes.fromhex("a00706052b81040022")
_SECOND_HALF = {"mldsa65-ed25519": b"e" * 32, "mldsa65-p384": _P384_SECRET, "mldsa87-p384": _P384_SECRET}


@cache
def signing_key(algorithm: str = "mldsa65-ed25519", seed: bytes = b"s") -> CompositeSigningKey:
    return CompositeSigningKey.from_seed(seed * 32 + _SECOND_HALF[algorithm], algorithm)


@cache
def decapsulation_key(algorithm: str = "mlkem768-x25519") -> DecapsulationKey:
    return DecapsulationKey.from_seed(b"d" * 32, algorithm)


@cache
def device_keys() -> DeviceKeys:
    return DeviceKeys(
        authentication=AuthenticationSigningKey.from_seed(b"a" * 32),
        classical=ClassicalSigningKey.from_seed(b"k" * 32),
        signing=signing_key(),
        decapsulation=decapsulation_key(),
    )


@cache
def authority() -> Authority:
    root_key = CertificateSigningKey.from_seed(b"r" * 32, "ml-dsa-87")
    issuing_key = CertificateSigningKey.from_seed(b"i" * 32, "ml-dsa-65")
    root = make_root(root_key, name="Latticeward root", now=NOW)
    return Authority(
        anchor_key=signing_key(seed=b"t"),
        purpose_keys={purpose: signing_key(seed=bytes([number])) for number, purpose in enumerate(SIGNED_PURPOSES, 1)},
        receipt_key=signing_key(seed=b"p"),
        root=root,
        issuing=make_issuing(
            issuing_key.public_raw,
            algorithm="ml-dsa-65",
            federation=FEDERATION,
            root=root,
            root_key=root_key,
            now=NOW,
        ),
        issuing_key=issuing_key,
    )


def header(suite: str = "hybrid", *, plaintext_bytes: int = 40) -> EnvelopeHeader:
    return EnvelopeHeader(
        suite=suite,
        message_type="update",
        direction="to-server",
        federation_id=FEDERATION_ID,
        round_id=ROUND_ID,
        plan_digest=b"p" * 32,
        base_model_digest=b"b" * 32,
        sender_key_id=signing_key("mldsa65-ed25519" if suite == "hybrid" else "mldsa87-p384").verify_key.key_id,
        plaintext_bytes=plaintext_bytes,
        created_at=TIME,
        message_id=bytes(range(16)),
    )


def recipient(suite: str = "hybrid") -> Recipient:
    key = decapsulation_key("mlkem768-x25519" if suite == "hybrid" else "mlkem1024-p384").encapsulation_key
    return Recipient(key=key, role="round", subject_id=ROUND_ID, epoch=1)


def envelope(suite: str = "hybrid", *, plaintext_bytes: int = 40) -> bytes:
    made = header(suite, plaintext_bytes=plaintext_bytes)
    signer = signing_key("mldsa65-ed25519" if suite == "hybrid" else "mldsa87-p384")
    return seal_envelope(
        bytes(plaintext_bytes), header=made, recipients=(recipient(suite),), signing_key=signer, purpose=Purpose.UPDATE
    )


@cache
def sealed() -> tuple[SealedBody, bytes]:
    """A body and the stanza of its one recipient."""
    body = seal_body(bytes(40), header=header())
    return body, make_stanza(content_key=body.content_key, header_bytes=body.header_bytes, recipient=recipient())


def plan(job: str = "heart", **changes: object) -> RoundPlan:
    spec = JOB_SPECS[job]
    values = {
        **spec.default_plan,
        "training_id": ROUND_ID,
        "federation_id": FEDERATION_ID,
        "title": spec.title,
        "job": spec.name,
        "layout": spec.layout,
        "initial": spec.initial,
        "suite": "hybrid",
        "metric": spec.metric,
        "metric_size": 512,
        "created_at": TIME,
    }
    return RoundPlan(**{**values, **changes})


def round_messages() -> list[bytes]:
    common = {"round_id": ROUND_ID, "plan_digest": b"p" * 32}
    of_round = {**common, "training_id": ROUND_ID, "number": 2, "base_model_digest": b"b" * 32}
    participant = {"device_id": DEVICE_ID, "site": SITE, "outcome": "accepted", "code": None, "metric": None}
    assignment = Assignment(
        **of_round,
        federation_id=FEDERATION_ID,
        kind="training",
        base_model=ROUND_ID,
        recipient_algorithm="mlkem768-x25519",
        recipient_key=b"k" * 60,
        roster_digest=b"r" * 32,
        opened_at=TIME,
        recruiting_due_at=TIME,
        collecting_due_at=TIME,
    )
    receipt = SubmissionReceipt(
        **common,
        submission_id=ROUND_ID,
        device_id=DEVICE_ID,
        submission_digest=b"s" * 32,
        size_bytes=6_000,
        via="https",
        received_at=TIME,
        ledger_due_at=TIME,
    )
    manifest = ModelManifest(
        **of_round,
        model_id=ROUND_ID,
        weights_digest=b"w" * 32,
        header=sealed()[0].header_bytes,
        body_digest=b"d" * 32,
        body_bytes=172,
        created_at=TIME,
    )
    record = RoundRecord(
        **of_round,
        federation_id=FEDERATION_ID,
        kind="training",
        weights_digest=b"w" * 32,
        model_id=ROUND_ID,
        suite="hybrid",
        protection="sealed",
        aggregator="mean",
        participants=({**participant, "submission_digest": b"s" * 32}, {**participant, "submission_digest": None}),
        accepted=3,
        quorum=3,
        partial_commitments=(b"c" * 32,),
        metric={"name": "auc", "value": 0.875},
        noise_multiplier=0.0,
        epsilon_spent=None,
        delta=None,
        ledger={"size": 40, "root": b"r" * 32},
        opened_at=TIME,
        closed_at=TIME,
    )
    return [message.to_bytes() for message in (assignment, receipt, manifest, record)]


def request(method: str = "POST", query: str = "") -> bytes:
    """A signed request as lines: the four parts of its address, then a header a line."""
    path, headers = "/api/v1/work", [("content-type", "application/octet-stream"), ("idempotency-key", "ab" * 32)]
    keys = device_keys()
    added = sign_request(
        method,
        AUTHORITY,
        path,
        query,
        headers,
        hashlib.sha256(b"body").digest() if method == "POST" else None,
        key_id=keys.authentication.verify_key.key_id.hex(),
        mldsa=keys.authentication,
        ed25519=keys.classical,
        created_at=NOW,
        nonce=b"0123456789abcdef",
    )
    lines = [method, AUTHORITY, path, query, *(f"{name}: {value}" for name, value in (*headers, *added.items()))]
    return "\n".join(lines).encode()


def leaf() -> bytes:
    return authority().certificate(device_keys().authentication.verify_key.raw, device_id=DEVICE_ID)


def revocation_list() -> bytes:
    made = authority()
    entries = [
        RevokedCertificate(serial="7f", reason="key_compromise", revoked_at=NOW, invalid_from=NOW),
        RevokedCertificate(serial="80", reason="unspecified", revoked_at=NOW),
    ]
    next_at = NOW + timedelta(hours=1)
    return make_revocation_list(
        entries, number=3, issuing=made.issuing, issuing_key=made.issuing_key, now=NOW, next_at=next_at
    )


def status_question(digest: hashes.HashAlgorithm) -> bytes:
    certificate, issuer = (x509.load_der_x509_certificate(der) for der in (leaf(), authority().issuing))
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, digest)
    with_nonce = builder.add_extension(x509.OCSPNonce(b"nonce"), critical=False)
    return with_nonce.build().public_bytes(serialization.Encoding.DER)


@cache
def codec(ring_bits: int = 32) -> FixedPointCodec:
    return FixedPointCodec(clip_norm=4.0, weight_cap=400.0, cohort_bound=16, ring_bits=ring_bits, size=6, metric_size=2)


def contribution(ring_bits: int = 32) -> bytes:
    made = codec(ring_bits)
    vector = np.array([1, 2, 3, 4, 5, 0, round(made.weight_unit) // 2, 7, 9], dtype=made.dtype)
    return made.to_bytes(vector)
