"""A round record with everything that proves it, in one file that needs no server: record, plan, trust, ledger proof.

The reader brings one thing of their own: the fingerprint of the trust anchor, as a claim code or the operator gave it.
Like an archive's reader they judge by the ledger's clock: the keys must have been good when the ledger received the
record's publication, whatever has become of them since.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.keys import CompositeVerifyKey
from latticeward.crypto.signing import Purpose, UnverifiedMessage, parse_signed_message, verify_message
from latticeward.errors import InclusionProofError, MalformedMessageError, UntrustedIssuerError, WrongContextError
from latticeward.instants import from_unix_milliseconds
from latticeward.ledger.checkpoint import key_hint, parse_checkpoint, verify_checkpoint
from latticeward.ledger.merkle import leaf_hash, verify_inclusion
from latticeward.messages import RoundRecord
from latticeward.plan import RoundPlan, plan_digest
from latticeward.records import require_promises
from latticeward.trust import BUNDLE_LIMIT_BYTES, TrustStatement, TrustStore, ledger_origin

# The record, and beside it plan, trust bundle, entry and checkpoint, each with a limit of its own.
FILE_LIMIT_BYTES: Final = RoundRecord.LIMIT_BYTES + 3 * 1024 * 1024
_ENTRY_LIMIT_BYTES: Final = 256 * 1024
_PATH_LIMIT: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFile:
    """The parts, believed by nobody yet. ``path`` holds the sibling hashes of the ledger entry, 32 bytes each."""

    record: bytes
    plan: bytes
    trust: bytes
    entry: bytes
    index: int
    checkpoint: str
    path: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Deterministic CBOR."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return canonical.encode({"type": "record-file", "v": 1, **values, "path": list(self.path)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read the parts.

        Raises:
            MalformedMessageError, MessageTooLargeError: not a record file.
        """
        fields = Fields(canonical.decode(raw, limit_bytes=FILE_LIMIT_BYTES), "record file")
        if fields.text("type") != "record-file" or fields.integer("v", 1, 1) != 1:
            raise MalformedMessageError("not a record file of version 1")
        read = cls(
            record=fields.bytes("record"),
            plan=fields.bytes("plan"),
            trust=fields.bytes("trust"),
            entry=fields.bytes("entry"),
            index=fields.integer("index"),
            checkpoint=fields.text("checkpoint", limit_chars=1_048_576),
            path=tuple(
                Fields({"hash": item}, "path").bytes("hash", 32) for item in fields.list("path", limit=_PATH_LIMIT)
            ),
        )
        fields.end()
        return read


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenRecord:
    """A record that is to be believed, and where it stands in the ledger. Made only by ``verify_record_file``."""

    record: RoundRecord
    plan: RoundPlan
    index: int
    ledger_size: int
    received_at: datetime


def verify_record_file(raw: bytes, *, anchor_fingerprint: bytes) -> ProvenRecord:
    """Believe a record file, or refuse it.

    1. The trust statement is signed by the anchor with this fingerprint.
    2. The checkpoint is signed by a key that it vouches for, and the entry is in the checkpoint's tree.
    3. Record and plan are signed by keys that were good when the ledger received the entry.
    4. The entry tells of the publication of this very record, and the record is of this plan.
    5. The record keeps what the plan promised.

    Args:
        raw: the file's bytes.
        anchor_fingerprint: 32 bytes, from outside.

    Raises:
        MalformedMessageError, MessageTooLargeError, UntrustedIssuerError, InvalidSignatureError, CheckpointError
        InclusionProofError: the entry is not in the ledger, or tells of another record.
        WrongContextError: the parts do not belong together.
        LedgerError: the record breaks its plan.
    """
    parts = RecordFile.from_bytes(raw)
    # 1. Judged at the instant that the statement itself was issued: it says which key was good when, and that it
    #    has run out since does not change what it said.
    trust = TrustStore.from_signed(parts.trust, anchor_fingerprint=anchor_fingerprint, now=_issued_at(parts.trust))
    # 2
    origin = ledger_origin(trust.federation_id)
    checkpoint = verify_checkpoint(
        parts.checkpoint, origin=origin, key=checkpoint_key(parts.checkpoint, origin=origin, trust=trust)
    )
    verify_inclusion(
        leaf_hash(parts.entry), index=parts.index, size=checkpoint.size, proof=parts.path, root=checkpoint.root
    )
    entry = _read_entry(parts.entry)
    # 3
    received_at = _instant(entry["recorded_at"])
    record = RoundRecord.from_bytes(_verify(_read_record(parts.record), Purpose.ROUND_RECORD, trust, received_at))
    payload = _verify(parse_signed_message(parts.plan), Purpose.PLAN, trust, _instant(record.opened_at))
    plan = RoundPlan.from_bytes(payload)
    # 4
    told = (entry["event"], entry["subject_kind"], entry["subject_id"], entry["details"].get("record"))
    if told != ("round.published", "round", record.round_id, record.digest.hex()):
        raise InclusionProofError("the ledger's entry tells of another record than the one in the file")
    if record.plan_digest != plan_digest(payload) or record.federation_id != trust.federation_id:
        raise WrongContextError("the record is of another plan or federation than the file's")
    # 5
    require_promises(record, plan)
    return ProvenRecord(
        record=record, plan=plan, index=parts.index, ledger_size=checkpoint.size, received_at=received_at
    )


def checkpoint_key(note: str, *, origin: str, trust: TrustStore) -> CompositeVerifyKey:
    """The key that the note's hint points to. The hint proves nothing; the signature does.

    Raises:
        UntrustedIssuerError: no key of this trust store.
        CheckpointError: not a note.
    """
    hints = {line.hint for line in parse_checkpoint(note).signatures if line.name == origin}
    for key in trust.verify_keys(Purpose.CHECKPOINT):
        if key_hint(origin, key) in hints:
            return key
    raise UntrustedIssuerError(f"the checkpoint of {origin} is signed by no key that the trust anchor vouches for now")


def _issued_at(bundle: bytes) -> datetime:
    """What a trust bundle's statement says of its own time, before anything is believed."""
    signed = Fields(canonical.decode(bundle, limit_bytes=BUNDLE_LIMIT_BYTES), "trust bundle").bytes("trust")
    return _instant(TrustStatement.from_bytes(parse_signed_message(signed).payload).issued_at)


def _instant(milliseconds: int) -> datetime:
    try:
        return from_unix_milliseconds(milliseconds)
    except (ValueError, OverflowError, OSError) as error:
        raise MalformedMessageError("an instant lies beyond the calendar") from error


def _read_record(raw: bytes) -> UnverifiedMessage:
    return parse_signed_message(raw, limit_bytes=RoundRecord.LIMIT_BYTES)


def _verify(read: UnverifiedMessage, purpose: Purpose, trust: TrustStore, at: datetime) -> bytes:
    return verify_message(read, purpose=purpose, key=trust.archive_key(purpose, key_id=read.key_id, received_at=at))


def _read_entry(raw: bytes) -> Mapping[str, Any]:
    fields = Fields(canonical.decode(raw, limit_bytes=_ENTRY_LIMIT_BYTES), "audit entry")
    if fields.text("type") != "audit-entry":
        raise InclusionProofError("what the proof proves is no audit entry")
    return {
        "event": fields.text("event"),
        "subject_kind": fields.text("subject_kind"),
        "subject_id": fields.text("subject_id"),
        "details": fields.map("details"),
        "recorded_at": fields.integer("recorded_at", 0, 2**53),
    }
