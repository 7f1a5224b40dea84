"""What is fuzzed: every place where bytes of a stranger are read, as one table.

A target gives what an input is handed to, the errors that its documentation names, real messages to start from and
the longest input. Any other exception is a finding, and so is a message that reads differently when it is written and
read again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives import hashes

from latticeward import canonical, errors
from latticeward.claim_code import format_code, format_uri
from latticeward.crypto.certificate import make_csr, verify_csr
from latticeward.crypto.encipherment import ENCIPHERMENT_ALGORITHMS, DeciphermentKey
from latticeward.crypto.revocation import parse_status_question
from latticeward.crypto.signing import Purpose, sign, sign_message
from latticeward.encipherment import EnciphermentAnswer, EnciphermentRequest
from latticeward.enrolment_messages import EnrolmentAnswer, Meeting
from latticeward.ledger.checkpoint import sign_checkpoint
from latticeward.record_file import RecordFile
from latticeward.trust import make_bundle
from tests.fuzz import calls, mutation, objects
from tests.latticeward.peers import AUTHORITY, claim, key_statement, transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row.

    Attributes:
        name: for the command line.
        call: takes one input.
        refusals: what its documentation says that it raises; anything else is a finding.
        seeds: makes the inputs to start from.
        limit_bytes: longest input.
        mutate: how inputs are changed.
    """

    name: str
    call: Callable[[bytes], object]
    refusals: tuple[type[errors.LatticewardError], ...]
    seeds: Callable[[], Sequence[bytes]]
    limit_bytes: int
    mutate: mutation.Mutator


def _signed_messages() -> list[bytes]:
    key = objects.signing_key()
    unsigned = {"key_id": key.verify_key.key_id, "payload": b"payload", "signature": b"signature"}
    return [sign_message(b"payload", purpose=Purpose.PLAN, key=key), canonical.encode(unsigned)]


def _signatures() -> list[bytes]:
    keys = enumerate(map(objects.signing_key, calls.COMPOSITE))
    return [bytes([number]) + sign(b"payload", purpose=Purpose.PLAN, key=key) for number, key in keys]


def _public_keys() -> list[bytes]:
    keys = objects.device_keys().public
    signing = [["signing", name, objects.signing_key(name).verify_key.raw] for name in calls.COMPOSITE]
    kems = ("mlkem768-x25519", "mlkem1024-p384")
    sealing = [["encapsulation", name, objects.decapsulation_key(name).encapsulation_key.raw] for name in kems]
    others = [["authentication", keys.authentication.raw], ["classical", keys.classical.raw]]
    return [canonical.encode(entry) for entry in (*signing, *sealing, *others)]


def _claims() -> list[bytes]:
    code = claim()
    with_remark = f"# of a hospital\n\n{format_code(code).lower()}\n"
    unquoted = format_uri(replace(code, server="http://[::1]:8750")).replace("%3A", ":").replace("%2F", "/")
    plain = unquoted.replace("%5B", "[").replace("%5D", "]")
    return [text.encode() for text in (format_code(code), format_uri(code), plain, with_remark)]


def _enrolment_messages() -> list[bytes]:
    keys, anchor = objects.device_keys(), objects.authority().anchor.fingerprint
    meeting = Meeting(federation_id=objects.ROUND_ID, authority=AUTHORITY, anchor=anchor)
    first = transcript(keys, meeting=meeting, csr=b"certificate request")
    raw = canonical.decode(first.to_bytes(), limit_bytes=1 << 16)
    renewal = {"device_id": objects.DEVICE_ID, "certificate_digest": b"c" * 32, "statement_digest": b"s" * 32}
    second = {**raw, "operation": "renew", "claim_id": b"", "epoch": 2, "renews": renewal}
    answer = EnrolmentAnswer(
        enrolment_id=objects.ROUND_ID,
        device_id=objects.DEVICE_ID,
        server_nonce=b"n" * 32,
        suite="hybrid",
        sealed_challenge=b"c" * 80,
        expires_at=objects.TIME,
    )
    return [first.to_bytes(), canonical.encode(second), answer.to_bytes()]


def _encipherment_messages() -> list[bytes]:
    meeting = Meeting(federation_id=objects.ROUND_ID, authority=AUTHORITY, anchor=b"a" * 32)
    keys = [DeciphermentKey.from_seed(bytes(range(64)), name) for name in ENCIPHERMENT_ALGORITHMS]
    requests = [
        EnciphermentRequest(
            meeting=meeting,
            device_id=objects.DEVICE_ID,
            epoch=1,
            statement_digest=b"s" * 32,
            device_nonce=b"n" * 32,
            key=key.encipherment_key,
        ).to_bytes()
        for key in keys
    ]
    answer = EnciphermentAnswer(
        encipherment_id=objects.ROUND_ID,
        device_id=objects.DEVICE_ID,
        server_nonce=b"n" * 32,
        ciphertext=b"c" * 1088,
        expires_at=objects.TIME,
    )
    return [*requests, answer.to_bytes()]


def _plans() -> list[bytes]:
    adam = {"name": "fedadam", "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}
    momentum = {"name": "fedavgm", "momentum": 0.9}
    made = (objects.plan(), objects.plan("thyroid", server_optimiser=adam), objects.plan(server_optimiser=momentum))
    return [plan.to_bytes() for plan in made]


def _checkpoints() -> list[bytes]:
    note = sign_checkpoint(origin=calls.ORIGIN, size=4711, root=bytes(range(32)), key=objects.signing_key())
    witness = "\N{EM DASH} hospital.example/witness aGludGFueXRoaW5n\n"
    return [note.encode(), f"{note}{witness}".encode(), f"{note.split(chr(10) * 2)[0]}\n\n{witness}".encode()]


def _trust_bundles() -> list[bytes]:
    made = objects.authority()
    statement = made.statement(keys=(), certificates=(b"root",))
    return [
        made.bundle(statement=statement, receipts=()),
        make_bundle(anchor=made.anchor, signed=b"signed", receipts=(b"one", b"two")),
    ]


def _record_files() -> list[bytes]:
    """Whole in form; the trust in them is real, and so the reading goes on to the checkpoint."""
    parts = {"record": objects.round_messages()[3], "plan": b"plan", "entry": b"entry", "path": (bytes(32),)}
    notes = [note.decode() for note in _checkpoints()[:2]]
    return [
        RecordFile(**parts, trust=bundle, index=3, checkpoint=note).to_bytes()
        for bundle, note in zip(_trust_bundles(), notes, strict=False)
    ]


def _trust_statements() -> list[bytes]:
    made = objects.authority()
    short = made.statement(keys=made.statement().keys[:2], certificates=(b"root",))
    return [short.to_bytes(), made.statement(keys=(), certificates=(b"issuing", b"root")).to_bytes()]


def _statements() -> list[bytes]:
    of_device = key_statement(objects.device_keys().public, device_id=objects.DEVICE_ID)
    return [of_device.to_bytes(), objects.authority().receipt_statement().to_bytes()]


_FORM: Final = (errors.MalformedMessageError, errors.MessageTooLargeError)
_KEYS: Final = (*_FORM, errors.UnsupportedSuiteError, errors.KeyUsageError)
_HEADER: Final = (*_FORM, errors.UnsupportedVersionError, errors.UnsupportedSuiteError)

TARGETS: Final[Mapping[str, Target]] = {
    target.name: target
    # The limits are little above the seeds: the form of a message can be broken in any of its bytes, but filling a
    # longer one with more of the same only takes time.
    for target in (
        Target(
            name="cbor",
            call=calls.cbor,
            refusals=_FORM,
            seeds=lambda: [objects.round_messages()[3], canonical.encode([1.5, -1, 2**64 - 1, None, True, "é", b"x"])],
            limit_bytes=700,
            mutate=mutation.cbor,
        ),
        Target(
            name="header",
            call=calls.header,
            refusals=_HEADER,
            seeds=lambda: [objects.sealed()[0].header_bytes],
            limit_bytes=800,
            mutate=mutation.cbor,
        ),
        Target(
            name="envelope",
            call=calls.envelope,
            refusals=(
                *_HEADER,
                errors.InvalidSignatureError,
                errors.WrongContextError,
                errors.KeyUsageError,
                errors.DecryptionError,
            ),
            seeds=lambda: [
                objects.envelope(),
                objects.envelope(plaintext_bytes=0),
                objects.envelope("high", plaintext_bytes=1),
            ],
            limit_bytes=7_000,
            mutate=mutation.envelope,
        ),
        Target(
            name="opening",
            call=calls.opening,
            refusals=(*_HEADER, errors.DecryptionError, errors.KeyUsageError),
            seeds=lambda: [
                canonical.encode([objects.sealed()[0].header_bytes, objects.sealed()[1], objects.sealed()[0].body])
            ],
            limit_bytes=3_000,
            mutate=mutation.cbor,
        ),
        Target(
            name="signed-message",
            call=calls.signed_message,
            refusals=(*_FORM, errors.InvalidSignatureError),
            seeds=_signed_messages,
            limit_bytes=3_600,
            mutate=mutation.cbor,
        ),
        Target(
            name="signature",
            call=calls.signature,
            refusals=(errors.InvalidSignatureError,),
            seeds=_signatures,
            limit_bytes=4_900,
            mutate=mutation.blind,
        ),
        Target(
            name="public-key",
            call=calls.public_key,
            refusals=_KEYS,
            seeds=_public_keys,
            limit_bytes=3_000,
            mutate=mutation.cbor,
        ),
        Target(
            name="csr",
            call=verify_csr,
            refusals=(errors.MalformedMessageError, errors.KeyUsageError, errors.CertificateNotValidError),
            seeds=lambda: [make_csr(objects.device_keys().authentication)],
            limit_bytes=6_000,
            mutate=mutation.der,
        ),
        Target(
            name="chain",
            call=calls.chain,
            refusals=(errors.MalformedMessageError, errors.CertificateNotValidError),
            seeds=lambda: [objects.leaf()],
            limit_bytes=7_000,
            mutate=mutation.der,
        ),
        Target(
            name="revocation-list",
            call=calls.revocation_list,
            refusals=(errors.MalformedMessageError, errors.CertificateNotValidError),
            seeds=lambda: [objects.revocation_list()],
            limit_bytes=4_200,
            mutate=mutation.der,
        ),
        Target(
            name="status-question",
            call=parse_status_question,
            refusals=(errors.MalformedMessageError,),
            seeds=lambda: [objects.status_question(hashes.SHA1()), objects.status_question(hashes.SHA256())],
            limit_bytes=400,
            mutate=mutation.der,
        ),
        Target(
            name="claim-code",
            call=calls.claim,
            refusals=(errors.MalformedMessageError,),
            seeds=_claims,
            limit_bytes=1_200,
            mutate=mutation.text,
        ),
        Target(
            name="enrolment",
            call=calls.enrolment,
            refusals=_KEYS,
            seeds=_enrolment_messages,
            limit_bytes=6_000,
            mutate=mutation.cbor,
        ),
        Target(
            name="encipherment",
            call=calls.encipherment,
            refusals=_KEYS,
            seeds=_encipherment_messages,
            limit_bytes=3_000,
            mutate=mutation.cbor,
        ),
        Target(
            name="round-message",
            call=calls.round_message,
            refusals=_FORM,
            seeds=objects.round_messages,
            limit_bytes=1_600,
            mutate=mutation.cbor,
        ),
        Target(
            name="plan",
            call=calls.plan,
            refusals=(*_FORM, errors.UnsupportedSuiteError, errors.IncompatiblePlanError),
            seeds=_plans,
            limit_bytes=2_200,
            mutate=mutation.cbor,
        ),
        Target(
            name="contribution",
            call=calls.contribution,
            refusals=(errors.LayoutMismatchError, errors.NormExceededError),
            seeds=lambda: [objects.contribution(32), objects.contribution(64)],
            limit_bytes=80,
            mutate=mutation.blind,
        ),
        Target(
            name="checkpoint",
            call=calls.checkpoint,
            refusals=(errors.CheckpointError,),
            seeds=_checkpoints,
            limit_bytes=6_000,
            mutate=mutation.text,
        ),
        Target(
            name="request",
            call=calls.request,
            refusals=(
                errors.MalformedMessageError,
                errors.NotAuthenticatedError,
                errors.ClockSkewError,
                errors.InvalidSignatureError,
            ),
            seeds=lambda: [objects.request(), objects.request("GET", "wait=20&after=abc")],
            limit_bytes=6_000,
            mutate=mutation.text,
        ),
        Target(
            name="trust-bundle",
            call=calls.trust_bundle,
            refusals=(
                *_KEYS,
                errors.UntrustedIssuerError,
                errors.InvalidSignatureError,
                errors.CertificateNotValidError,
                errors.ReplayError,
                errors.WrongContextError,
            ),
            seeds=_trust_bundles,
            limit_bytes=6_000,
            mutate=mutation.cbor,
        ),
        Target(
            name="record-file",
            call=calls.record_file,
            refusals=(
                *_KEYS,
                errors.UntrustedIssuerError,
                errors.InvalidSignatureError,
                errors.CertificateNotValidError,
                errors.CheckpointError,
                errors.WrongContextError,
            ),
            seeds=_record_files,
            limit_bytes=16_000,
            mutate=mutation.cbor,
        ),
        Target(
            name="trust-statement",
            call=calls.trust_statement,
            refusals=_KEYS,
            seeds=_trust_statements,
            limit_bytes=5_000,
            mutate=mutation.cbor,
        ),
        Target(
            name="statement",
            call=calls.statement,
            refusals=_KEYS,
            seeds=_statements,
            limit_bytes=6_000,
            mutate=mutation.cbor,
        ),
    )
}
