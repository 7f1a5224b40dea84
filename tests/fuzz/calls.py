"""What one input is handed to, a function a target; the table is ``targets.py``.

Public-key operations take longer than all parsing before them and end in the same refusal for nearly every input. A
function that has parsing of its own therefore does them for a share of its inputs, chosen by the input itself so that a
finding can be repeated.
"""

import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from latticeward import canonical, errors
from latticeward.claim_code import format_code, format_uri, lookup_text, parse_claim
from latticeward.crypto.certificate import verify_chain
from latticeward.crypto.envelope import (
    EnvelopeHeader,
    open_body,
    open_envelope,
    open_stanza,
    parse_envelope,
    verify_envelope,
)
from latticeward.crypto.httpsig import RequestFacts, verify_request
from latticeward.crypto.keys import (
    AuthenticationVerifyKey,
    ClassicalVerifyKey,
    CompositeVerifyKey,
    EncapsulationKey,
)
from latticeward.crypto.revocation import verify_revocation_list
from latticeward.crypto.signing import Purpose, parse_signed_message, verify, verify_message
from latticeward.encipherment import EnciphermentAnswer, EnciphermentRequest
from latticeward.enrolment_messages import EnrolmentAnswer, EnrolmentTranscript
from latticeward.ledger.checkpoint import parse_checkpoint, verify_checkpoint
from latticeward.messages import Assignment, ModelManifest, RoundRecord, SubmissionReceipt
from latticeward.plan import RoundPlan
from latticeward.protection.sealed import read_contribution
from latticeward.record_file import RecordFile, verify_record_file
from latticeward.statements import KeyStatement, ServerKeyStatement
from latticeward.trust import TrustStatement, TrustStore
from latticeward.updates.encoding import FixedPointCodec
from latticeward.updates.tensors import initial_vector
from tests.fuzz import mutation, objects
from tests.latticeward.peers import AUTHORITY, NOW

_LATER: Final = datetime(2026, 12, 1, tzinfo=UTC)
_SMALL_MODEL: Final = 4_096
# One input in so many goes on to public-key operations where parsing comes first.
_SELDOM: Final = 16
ORIGIN: Final = "latticeward/ledger"
COMPOSITE: Final = ("mldsa65-ed25519", "mldsa65-p384", "mldsa87-p384")


def _is_chosen(data: bytes, one_in: int) -> bool:
    return zlib.crc32(data) % one_in == 0


def _text(data: bytes) -> str:
    # Bytes that are no UTF-8 become lone surrogates: JSON can carry them, so a text from outside can hold them.
    return data.decode("utf-8", "surrogateescape")


def _read_again(message: Any) -> None:
    assert type(message).from_bytes(message.to_bytes()) == message


def cbor(data: bytes) -> None:
    assert canonical.encode(canonical.decode(data, limit_bytes=600)) == data


def header(data: bytes) -> None:
    assert EnvelopeHeader.from_bytes(data).to_bytes() == data


def envelope(data: bytes) -> None:
    parsed = parse_envelope(data, limit_bytes=6_900)
    if _is_chosen(data, _SELDOM):
        key = objects.signing_key(parsed.header.suite_row.signature).verify_key
        verified = verify_envelope(parsed, purpose=Purpose.UPDATE, verify_key=key)
        secret = objects.decapsulation_key(parsed.header.suite_row.kem)
        open_envelope(verified, role="round", subject_id=objects.ROUND_ID, epoch=1, decapsulation_key=secret)


def opening(data: bytes) -> None:
    """A header, a stanza and a body that no signature has been asked about, as models' are."""
    match canonical.decode(data, limit_bytes=3_000):
        case [bytes() as header, bytes() as stanza, bytes() as body]:
            pass
        case _:
            return
    secret = objects.decapsulation_key()
    who: dict[str, Any] = {"role": "round", "subject_id": objects.ROUND_ID, "epoch": 1, "decapsulation_key": secret}
    with suppress(errors.DecryptionError, errors.KeyUsageError):
        open_body(header_bytes=header, body=body, content_key=objects.sealed()[0].content_key)
    open_stanza(stanza, header_bytes=header, **who)


def signed_message(data: bytes) -> None:
    message = parse_signed_message(data, limit_bytes=3_500)
    if _is_chosen(data, _SELDOM):
        verify_message(message, purpose=Purpose.PLAN, key=objects.signing_key().verify_key)


def signature(data: bytes) -> None:
    algorithm = COMPOSITE[data[0] % len(COMPOSITE)] if data else COMPOSITE[0]
    verify(data[1:], b"payload", purpose=Purpose.PLAN, key=objects.signing_key(algorithm).verify_key)


def public_key(data: bytes) -> None:
    match canonical.decode(data, limit_bytes=4_000):
        case ["signing", str() as algorithm, bytes() as raw]:
            CompositeVerifyKey.from_raw(raw, algorithm)
        case ["encapsulation", str() as algorithm, bytes() as raw]:
            EncapsulationKey.from_raw(raw, algorithm)
        case ["authentication", bytes() as raw]:
            AuthenticationVerifyKey.from_raw(raw)
        case ["classical", bytes() as raw]:
            ClassicalVerifyKey.from_raw(raw)


def chain(data: bytes) -> None:
    """A leaf as it came, and the same leaf as if the issuing authority had signed it: a profile is more than a path."""
    made = objects.authority()
    try:
        verify_chain([data, made.issuing], root=made.root, now=NOW)
    except errors.CertificateNotValidError:
        resigned = mutation.resigned(data, made.issuing_key.private.sign) if _is_chosen(data, 4) else None
        if resigned is None:
            raise
        verify_chain([resigned, made.issuing], root=made.root, now=NOW)


def revocation_list(data: bytes) -> None:
    verify_revocation_list(data, issuing=objects.authority().issuing, now=NOW)


def claim(data: bytes) -> None:
    code = parse_claim(_text(data))
    assert parse_claim(format_code(code)).secret == code.secret
    lookup_text(code.lookup_id)
    if code.server:
        assert code.authority in code.server
        assert parse_claim(format_uri(code)).server == code.server


def enrolment(data: bytes) -> None:
    kind = EnrolmentAnswer if b"enrolment-answer" in data else EnrolmentTranscript
    _read_again(kind.from_bytes(data))


def encipherment(data: bytes) -> None:
    kind = EnciphermentAnswer if b"encipherment-answer" in data else EnciphermentRequest
    _read_again(kind.from_bytes(data))


_ROUND_MESSAGES: Final = (SubmissionReceipt, ModelManifest, RoundRecord, Assignment)


def round_message(data: bytes) -> None:
    kinds = [kind for kind in _ROUND_MESSAGES if kind.TYPE.encode() in data]
    _read_again((kinds or _ROUND_MESSAGES)[-1 if len(kinds) != 1 else 0].from_bytes(data))


def record_file(data: bytes) -> None:
    _read_again(RecordFile.from_bytes(data))
    verify_record_file(data, anchor_fingerprint=objects.authority().anchor.fingerprint)


def plan(data: bytes) -> None:
    plan = RoundPlan.from_bytes(data)
    _read_again(plan)
    plan.validate()
    if plan.layout.size <= _SMALL_MODEL:
        initial_vector(plan.layout, plan.initial)
    FixedPointCodec(
        clip_norm=plan.clip_norm,
        weight_cap=plan.weight_cap,
        cohort_bound=plan.cohort_bound,
        ring_bits=plan.ring_bits,
        size=plan.layout.size,
        metric_size=plan.metric_size,
    )


def contribution(data: bytes) -> None:
    ring_bits = 32 if len(data) <= objects.codec(32).length_bytes else 64
    read_contribution(data, objects.codec(ring_bits))


def checkpoint(data: bytes) -> None:
    text = _text(data)
    if _is_chosen(data, _SELDOM):
        verify_checkpoint(text, origin=ORIGIN, key=objects.signing_key().verify_key)
    else:
        parse_checkpoint(text)


def request(data: bytes) -> None:
    method, authority, path, query, *lines = [*data.decode("latin-1").split("\n"), "", "", ""]
    headers = [line.split(": ", 1) for line in lines if ": " in line]
    facts = RequestFacts.make(method, authority, path, query, [(name, value) for name, value in headers])
    verify_request(facts, resolve=_resolver(data), now=NOW)


def _resolver(data: bytes) -> Callable[[str], tuple[AuthenticationVerifyKey, ClassicalVerifyKey]]:
    def resolve(key_id: str) -> tuple[AuthenticationVerifyKey, ClassicalVerifyKey]:
        keys = objects.device_keys().public
        if key_id != keys.authentication.key_id.hex() or not _is_chosen(data, _SELDOM):
            raise errors.NotAuthenticatedError("nobody has this key, or not for this input")
        return keys.authentication, keys.classical

    return resolve


def trust_bundle(data: bytes) -> None:
    """A bundle, and the payload of its statement whoever signed it."""
    anchor = objects.authority().anchor
    if _is_chosen(data, _SELDOM):
        TrustStore.from_signed(data, anchor_fingerprint=anchor.fingerprint, now=NOW, authority=AUTHORITY).at(_LATER)
    else:
        # An anchor that is not the pinned one ends the matter before any signature is checked.
        TrustStore.from_signed(data, anchor_fingerprint=bytes(32), now=NOW)


def trust_statement(data: bytes) -> None:
    _read_again(TrustStatement.from_bytes(data))


def statement(data: bytes) -> None:
    kind = ServerKeyStatement if b"server-key-statement" in data else KeyStatement
    _read_again(kind.from_bytes(data))
