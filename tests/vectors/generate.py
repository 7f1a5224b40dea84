"""Write the frozen known answers of our own formats, once: ``python -m tests.vectors.generate``.

A file that is there is never written again. Signatures are hedged and bodies are salted, so the answers cannot be made
a second time; they prove that what an earlier version sealed and signed is still read, bit for bit. A change of a
format gets new files beside the old ones.

It also writes ``latticeward/crypto/selftest_answers.py`` from the same files, for the check at every start.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from textwrap import wrap
from typing import Any

from latticeward import canonical
from latticeward.crypto.body import open_whole_body, seal_body_into, sealed_body_bytes
from latticeward.crypto.certificate import make_csr
from latticeward.crypto.envelope import EnvelopeHeader, Recipient, parse_envelope, seal_envelope
from latticeward.crypto.hpke import hpke_seal
from latticeward.crypto.keys import (
    AuthenticationSigningKey,
    ClassicalSigningKey,
    CompositeSigningKey,
    DecapsulationKey,
)
from latticeward.crypto.signing import Purpose, sign, sign_message
from latticeward.crypto.suites import OUT_OF_SERVICE, SUITES, BodyAlgorithm, KemAlgorithm, SignatureAlgorithm
from latticeward.crypto.wrapping import derive_key, wrap_secret
from latticeward.device_keys import DeviceKeys
from latticeward.enrolment import transcript_digest
from latticeward.enrolment_messages import EnrolmentTranscript, Meeting
from latticeward.instants import from_unix_milliseconds, to_unix_milliseconds
from latticeward.jobs import JOB_SPECS
from latticeward.messages import RoundRecord
from latticeward.plan import RoundPlan
from latticeward.plan_parts import Budget, CohortRule, MetricRelease, StageSeconds, StopRule, StragglerRule
from latticeward.renewal import (
    make_renewal_answer,
    read_renewal_answer,
    renewal_proofs,
    replaces,
    verify_renewal,
)
from latticeward.starts import NamedVersion
from latticeward.statements import KeyStatement
from latticeward.updates.metrics import METRICS

HERE = Path(__file__).parent
ANSWERS = HERE.parents[1] / "latticeward" / "crypto" / "selftest_answers.py"
SERVICE_SIGNATURES = (
    SignatureAlgorithm.MLDSA65_ED25519,
    SignatureAlgorithm.MLDSA65_P384,
    SignatureAlgorithm.MLDSA87_P384,
)
SERVICE_KEMS = (KemAlgorithm.MLKEM768_X25519, KemAlgorithm.MLKEM1024_P384)
PAYLOAD = b"Latticeward known answer"
KEY = bytes(range(32))
HEADER = b"Latticeward known header"
_P384 = bytes.fromhex("303e0201010430"), bytes.fromhex("a00706052b81040022")


def signature_seed(algorithm: str) -> bytes:
    """A fixed secret form of each composite algorithm."""
    lattice = bytes(range(32))
    if algorithm.endswith("ed25519"):
        return lattice + bytes(range(32, 64))
    return lattice + _P384[0] + bytes(range(1, 49)) + _P384[1]


def text(raw: bytes) -> str:
    """Base64, as all byte strings stand in the files."""
    return b64encode(raw).decode()


def make_canonical() -> Any:
    values = [
        None, True, False, 0, 23, 24, 255, 256, 65_535, 65_536, 2**32, 2**63 - 1, 2**64 - 1, -1, -24, -25, -(2**63),
        0.0, -0.0, 1.5, 0.1, 65_504.0, 65_505.0, 1e300, 5e-324, "", "ward", "Ärztin", [], [1, [2, [3]]],
        {}, {"b": 1, "aa": 2, "a": 3}, {"x" * 24: 1, "y" * 23: 2},
    ]  # fmt: skip
    refused = {
        "": "nothing at all",
        "0000": "bytes trail",
        "1801": "an integer longer than need be",
        "fa3fc00000": "a float longer than need be",
        "f97e00": "not a number",
        "f97c00": "infinity",
        "f7": "undefined",
        "e0": "an unassigned simple value",
        "3bffffffffffffffff": "an integer below 64 bits",
        "c249010000000000000000": "a big number tag",
        "c074323031332d30332d32315432303a30343a30305a": "a date tag",
        "d9d9f700": "the self-describing tag",
        "5f4101ff": "an indefinite byte string",
        "9f01ff": "an indefinite array",
        "a2616101616102": "a key twice",
        "a2616201616102": "keys out of order",
        "a10101": "a key that is no text",
        "61ff": "a text that is not UTF-8",
        "5bffffffffffffffff": "a length beyond the end",
        "81" * 9 + "00": "nested too deep",
    }
    return {
        "accepted": [{"value": value, "hex": canonical.encode(value).hex()} for value in values],
        "refused": [{"hex": raw, "why": why} for raw, why in refused.items()],
        "digests": [
            {"label": "latticeward/test/v1", "parts": ["", "00ff"], "digest": canonical.digest(
                "latticeward/test/v1", b"", b"\x00\xff"
            ).hex()},
        ],
    }  # fmt: skip


def make_keys() -> Any:
    rows = []
    for algorithm in SERVICE_SIGNATURES:
        secret = signature_seed(algorithm)
        public = CompositeSigningKey.from_seed(secret, algorithm).verify_key
        rows.append({"kind": "composite", "algorithm": algorithm, "seed": text(secret), "key_id": public.key_id.hex()})
    for kem in SERVICE_KEMS:
        sealed_to = DecapsulationKey.from_seed(KEY, kem).encapsulation_key
        rows.append({"kind": "kem", "algorithm": kem, "seed": text(KEY), "key_id": sealed_to.key_id.hex()})
    for kind in (AuthenticationSigningKey, ClassicalSigningKey):
        alone = kind.from_seed(KEY).verify_key
        rows.append({"kind": kind.KIND, "algorithm": alone.algorithm, "seed": text(KEY), "key_id": alone.key_id.hex()})
    return rows


def make_signatures() -> Any:
    rows = []
    for algorithm in SERVICE_SIGNATURES:
        key = CompositeSigningKey.from_seed(signature_seed(algorithm), algorithm)
        rows.append(
            {
                "algorithm": algorithm,
                "seed": text(signature_seed(algorithm)),
                "purpose": Purpose.BENCHMARK,
                "payload": text(PAYLOAD),
                "signature": text(sign(PAYLOAD, purpose=Purpose.BENCHMARK, key=key)),
                "message": text(sign_message(PAYLOAD, purpose=Purpose.PLAN, key=key)),
                "message_purpose": Purpose.PLAN,
            }
        )
    return rows


def make_hpke() -> Any:
    return [
        {
            "algorithm": kem,
            "seed": text(KEY),
            "info": text(HEADER),
            "plaintext": text(PAYLOAD),
            "sealed": text(hpke_seal(PAYLOAD, key=DecapsulationKey.from_seed(KEY, kem).encapsulation_key, info=HEADER)),
        }
        for kem in SERVICE_KEMS
    ]


def make_bodies() -> Any:
    rows = []
    for algorithm in BodyAlgorithm:
        body = bytearray(sealed_body_bytes(len(PAYLOAD)))
        seal_body_into(algorithm, PAYLOAD, memoryview(body), key=KEY, header=HEADER, state=hashlib.sha256())
        opened = open_whole_body(algorithm, bytes(body), key=KEY, header=HEADER, plaintext_bytes=len(PAYLOAD))
        assert opened == PAYLOAD
        rows.append(
            {
                "algorithm": algorithm,
                "key": text(KEY),
                "header": text(HEADER),
                "plaintext": text(PAYLOAD),
                "body": text(bytes(body)),
            }
        )
    return rows


def make_envelopes() -> Any:
    rows = []
    for suite in SUITES.values():
        if suite.status in OUT_OF_SERVICE:
            continue
        signing_key = CompositeSigningKey.from_seed(signature_seed(suite.signature), suite.signature)
        recipient = DecapsulationKey.from_seed(KEY, suite.kem)
        header = EnvelopeHeader(
            suite=suite.id,
            message_type="update",
            direction="to-server",
            federation_id="6f2b8a4e-1f07-4f0e-9d5a-000000000001",
            round_id="6f2b8a4e-1f07-4f0e-9d5a-000000000002",
            plan_digest=bytes(32),
            base_model_digest=bytes([1]) * 32,
            sender_key_id=signing_key.verify_key.key_id,
            plaintext_bytes=len(PAYLOAD),
            created_at=1_795_000_000_000,
            message_id=bytes(range(16)),
        )
        raw = seal_envelope(
            PAYLOAD,
            header=header,
            recipients=[Recipient(key=recipient.encapsulation_key, role="round", subject_id=header.round_id, epoch=1)],
            signing_key=signing_key,
            purpose=Purpose.UPDATE,
        )
        rows.append(
            {
                "suite": suite.id,
                "signature_seed": text(signature_seed(suite.signature)),
                "kem_seed": text(KEY),
                "role": "round",
                "subject_id": header.round_id,
                "epoch": 1,
                "purpose": Purpose.UPDATE,
                "plaintext": text(PAYLOAD),
                "signed_digest": parse_envelope(raw, limit_bytes=len(raw)).signed_digest.hex(),
                "envelope": text(raw),
            }
        )
    return rows


def make_wrapping() -> Any:
    return {
        "wrapped": [
            {
                "key": text(KEY),
                "associated_data": text(HEADER),
                "secret": text(PAYLOAD),
                "wrapped": text(wrap_secret(PAYLOAD, key=KEY, associated_data=HEADER)),
            }
        ],
        "derived": [
            {
                "secret": text(KEY),
                "label": "latticeward/test/v1",
                "key": text(derive_key(KEY, label="latticeward/test/v1")),
            }
        ],
    }


def make_renewal() -> Any:
    old, new = _device_keys(0), _device_keys(64)
    parent = KeyStatement(
        device_id="6f2b8a4e-1f07-4f0e-9d5a-000000000003",
        federation_id="6f2b8a4e-1f07-4f0e-9d5a-000000000001",
        site="northside",
        epoch=4,
        keys=old.public,
        certificate_digest=bytes([2]) * 32,
        not_before=1_795_000_000_000,
        not_after=1_802_776_000_000,
        issued_at=1_795_000_000_000,
    )
    transcript = EnrolmentTranscript(
        operation="renew",
        meeting=Meeting(federation_id=parent.federation_id, authority="fl.example.org", anchor=bytes([3]) * 32),
        claim_id=b"",
        site="",
        device_class="",
        name="",
        device_nonce=bytes([4]) * 32,
        suites=("hybrid",),
        floor="hybrid",
        keys=new.public,
        csr=make_csr(new.authentication),
        epoch=5,
        renews=replaces(parent),
    )
    raw, now = transcript.to_bytes(), from_unix_milliseconds(1_800_200_000_000)
    answer = make_renewal_answer(
        verify_renewal(raw, meeting=transcript.meeting, parent=parent),
        renewal_id="6f2b8a4e-1f07-4f0e-9d5a-000000000004",
        suite="hybrid",
        server_nonce=bytes([5]) * 32,
        challenge=bytes([6]) * 32,
        expires_at=now + timedelta(minutes=5),
    )
    read = read_renewal_answer(answer, transcript=raw, now=now)
    proofs = renewal_proofs(read, keys=new, parent=old.signing)
    return {
        "parent": text(parent.to_bytes()),
        "parent_signing_seed": text(old.signing.export_seed()),
        "transcript": text(raw),
        "answer": text(answer),
        "challenge": text(bytes([6]) * 32),
        "now": to_unix_milliseconds(now),
        "t2": transcript_digest(raw, answer).hex(),
        "proofs": {name: text(value) for name, value in asdict(proofs.finish).items()},
        "continuity": text(proofs.continuity),
    }


def _plan(job: str, **changes: Any) -> RoundPlan:
    spec = JOB_SPECS[job]
    return RoundPlan(
        **{
            **spec.default_plan,
            "training_id": "6f2b8a4e-1f07-4f0e-9d5a-000000000005",
            "federation_id": "6f2b8a4e-1f07-4f0e-9d5a-000000000001",
            "title": spec.title,
            "job": job,
            "layout": spec.layout,
            "initial": spec.initial,
            "suite": "hybrid",
            "metric": spec.metric,
            "metric_size": METRICS[spec.metric].size,
            "created_at": 1_795_000_000_000,
            **changes,
        }
    ).validate()


def make_plans() -> Any:
    """Every job's plan as it comes, and one in which every part says something of its own."""
    plans = [_plan(job) for job in JOB_SPECS]
    spoken = _plan(
        "heart",
        title="Ein Plan für vier Häuser",
        rounds=3,
        weight_rule="equal",
        cohort=CohortRule(rule="sites", sites=("cleveland", "hungary", "switzerland")),
        release=MetricRelease(hospital_metrics=True, patients_per_class=25),
        server_optimiser={"name": "fedadam", "learning_rate": 0.05},
        evaluate_last=False,
        stop=StopRule(target=0.9, patience=2, min_delta=0.001),
        budget=Budget(seconds=3600, sent_bytes=10**9),
        stage_seconds=StageSeconds(signing=10, recruiting=20, collecting=40, aggregating=50),
        stragglers=StragglerRule(rule="wait", seconds=600),
    )
    return [_frozen_plan(plan) for plan in (*plans, spoken)]


def make_starts() -> Any:
    """A plan that starts from a version of another training."""
    named = NamedVersion(
        model_id="6f2b8a4e-1f07-4f0e-9d5a-000000000032",
        training_id="6f2b8a4e-1f07-4f0e-9d5a-000000000006",
        weights_digest=bytes([13]) * 32,
    )
    return [_frozen_plan(_plan("watch", initial=named.to_initial()))]


def _frozen_plan(plan: RoundPlan) -> dict[str, Any]:
    raw = plan.to_bytes()
    return {
        "plan": text(raw),
        "fields": _json(canonical.decode(raw, limit_bytes=len(raw))),
        "digest": plan.digest.hex(),
    }


def make_records() -> Any:
    """The record of a round with a model, and of one that only measured."""
    plan = _plan("heart")
    counted = {"outcome": "accepted", "code": None, "submission_digest": bytes([7]) * 32}
    late = {"outcome": "dropped", "code": "late", "submission_digest": None, "metric": None}
    own = {"name": "auc", "value": 0.875, "patients": 61}
    people = [
        {"device_id": "6f2b8a4e-1f07-4f0e-9d5a-000000000011", "site": "Cleveland", **counted, "metric": own},
        {"device_id": "6f2b8a4e-1f07-4f0e-9d5a-000000000012", "site": "Zürich", **counted, "metric": None},
        {"device_id": "6f2b8a4e-1f07-4f0e-9d5a-000000000013", "site": "Budapest", **late},
    ]
    of_both = {
        "training_id": plan.training_id,
        "federation_id": plan.federation_id,
        "plan_digest": plan.digest,
        "base_model_digest": bytes([8]) * 32,
        "suite": plan.suite,
        "protection": plan.protection,
        "aggregator": plan.aggregator,
        "participants": tuple(people),
        "accepted": 2,
        "quorum": plan.quorum,
        "noise_multiplier": 0.0,
        "epsilon_spent": None,
        "delta": None,
        "opened_at": 1_795_000_000_000,
        "closed_at": 1_795_000_120_000,
    }
    records = [
        RoundRecord(
            **of_both,
            round_id="6f2b8a4e-1f07-4f0e-9d5a-000000000021",
            number=1,
            kind="training",
            weights_digest=bytes([9]) * 32,
            model_id="6f2b8a4e-1f07-4f0e-9d5a-000000000031",
            partial_commitments=(bytes([10]) * 32, bytes([11]) * 32),
            metric={"name": "auc", "value": 0.9, "hospitals": 3, "patients": 180},
            ledger={"size": 77, "root": bytes([12]) * 32},
        ),
        RoundRecord(
            **of_both,
            round_id="6f2b8a4e-1f07-4f0e-9d5a-000000000022",
            number=2,
            kind="evaluation",
            weights_digest=None,
            model_id=None,
            partial_commitments=(bytes([10]) * 32,),
            metric=None,
            ledger=None,
        ),
    ]
    algorithm = SignatureAlgorithm.MLDSA65_ED25519
    key = CompositeSigningKey.from_seed(signature_seed(algorithm), algorithm)
    return [
        {
            "record": text(raw := record.to_bytes()),
            "fields": _json(canonical.decode(raw, limit_bytes=len(raw))),
            "digest": record.digest.hex(),
            "algorithm": algorithm,
            "seed": text(signature_seed(algorithm)),
            "message": text(sign_message(raw, purpose=Purpose.ROUND_RECORD, key=key)),
        }
        for record in records
    ]


def _json(value: Any) -> Any:
    """A decoded value as JSON has it: bytes as hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, list) else value


def _device_keys(first: int) -> DeviceKeys:
    def seed(number: int, length: int = 32) -> bytes:
        return bytes((first + number + place) % 256 for place in range(length))

    return DeviceKeys(
        authentication=AuthenticationSigningKey.from_seed(seed(0)),
        classical=ClassicalSigningKey.from_seed(seed(1)),
        signing=CompositeSigningKey.from_seed(seed(2, 64)),
        decapsulation=DecapsulationKey.from_seed(seed(3)),
    )


FILES: dict[str, Callable[[], Any]] = {
    "canonical": make_canonical,
    "keys": make_keys,
    "signatures": make_signatures,
    "hpke": make_hpke,
    "bodies": make_bodies,
    "envelopes": make_envelopes,
    "wrapping": make_wrapping,
    "renewal": make_renewal,
    "plans": make_plans,
    "starts": make_starts,
    "records": make_records,
}


def read(name: str) -> Any:
    """A frozen file."""
    return json.loads((HERE / f"{name}.json").read_text())


def answers_source() -> str:
    """The text of ``selftest_answers.py``: a part of the frozen files, as Python."""
    lines = [
        '"""Known answers of the self-test; ``tests/vectors/generate.py`` writes this file from the frozen vectors."""',
        "",
        "from typing import Final",
        "",
        f"PAYLOAD: Final = {PAYLOAD!r}".replace("'", '"'),
        f"HEADER: Final = {HEADER!r}".replace("'", '"'),
    ]
    tables = {
        "KEY_IDS": [(row["algorithm"], row["key_id"]) for row in read("keys")],
        "SIGNATURE_SEEDS": [(row["algorithm"], row["seed"]) for row in read("signatures")],
        "SIGNATURES": [(row["algorithm"], row["signature"]) for row in read("signatures")],
        "SEALED": [(row["algorithm"], row["sealed"]) for row in read("hpke")],
        "BODIES": [(row["algorithm"], row["body"]) for row in read("bodies")],
        "WRAPPED": [("aes-256-gcm", row["wrapped"]) for row in read("wrapping")["wrapped"]],
        "DERIVED": [("hkdf-sha256", row["key"]) for row in read("wrapping")["derived"]],
    }
    for name, rows in tables.items():
        lines.append(f"{name}: Final = {{")
        for algorithm, value in rows:
            pieces = wrap(value, 108)
            if len(pieces) == 1:
                lines.append(f'    "{algorithm}": "{value}",')
            else:
                lines += [f'    "{algorithm}": (', *(f'        "{piece}"' for piece in pieces), "    ),"]
        lines.append("}")
    return "\n".join(lines) + "\n"


def main() -> None:
    for name, make in FILES.items():
        path = HERE / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(make(), indent=1, ensure_ascii=True) + "\n")
    ANSWERS.write_text(answers_source())


if __name__ == "__main__":
    main()
