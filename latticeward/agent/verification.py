"""What the agent must see before it believes a message of a round. Rules only: bytes and facts in, values out.

``loop.py`` decides what to fetch and keep; here every function lists its checks and raises.
"""

import hmac
from dataclasses import dataclass
from typing import Final

from latticeward.agent.jobs.job import Job
from latticeward.agent.work import IssuedCertificate
from latticeward.crypto.certificate import DeviceNames, profile_of, verify_chain
from latticeward.crypto.envelope import EnvelopeHeader
from latticeward.crypto.keys import EncapsulationKey
from latticeward.crypto.signing import Purpose, parse_signed_message, verify_message
from latticeward.crypto.suites import get_suite
from latticeward.device_keys import DevicePublicKeys
from latticeward.errors import (
    IncompatiblePlanError,
    LedgerError,
    ReplayError,
    UnsupportedSuiteError,
    WrongContextError,
)
from latticeward.instants import to_unix_milliseconds
from latticeward.messages import Assignment, ModelManifest, RoundRecord, SubmissionReceipt, roster_digest
from latticeward.plan import RoundPlan, plan_digest
from latticeward.records import require_promises
from latticeward.starts import NamedVersion
from latticeward.statements import KeyStatement, verify_own_statement, verify_statement
from latticeward.trust import TrustStore

TRAINING_KIND: Final = "training"
KINDS: Final = (TRAINING_KIND, "evaluation")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedAssignment:
    """A round that this device may take part in. Made only by ``verify_assignment``."""

    plan: RoundPlan
    assignment: Assignment


def signing_key_id(raw: bytes) -> bytes:
    """Which key a signed message says it was signed with, 32 bytes.

    Raises:
        MalformedMessageError, MessageTooLargeError
    """
    return parse_signed_message(raw).key_id


def verify_assignment(
    plan_raw: bytes, assignment_raw: bytes, *, trust: TrustStore, round_id: str, highest_number: int, job: Job
) -> VerifiedAssignment:
    """Believe an assignment, or refuse it.

    1. Plan and assignment are signed by a plan key of the trust anchor.
    2. The assignment is of this plan, this federation and the round that was asked for.
    3. The plan makes sense, and its job is the one that this machine runs, unaltered.
    4. The round goes forward: a lower number than one seen before is an old message or a server set back.
    5. It still collects by our clock, and its encapsulation key is of the plan's suite.

    Left to the caller: the hospital's floor, and that the base model's digest is known.

    Args:
        plan_raw, assignment_raw: signed messages.
        trust: judged at the present.
        round_id: that was asked for.
        highest_number: highest round number of this training seen before, 0 for none; the round itself may be it.
        job: that this machine runs.

    Raises:
        InvalidSignatureError, UntrustedIssuerError, MalformedMessageError
        WrongContextError: of another plan, federation or round, or overdue.
        IncompatiblePlanError, UnsupportedSuiteError: a plan that this machine cannot take part in.
        ReplayError: a round that lies behind.
    """
    # 1
    plan_payload = verify_message(
        plan_raw, purpose=Purpose.PLAN, key=trust.verify_key(Purpose.PLAN, key_id=signing_key_id(plan_raw))
    )
    plan = RoundPlan.from_bytes(plan_payload)
    key = trust.verify_key(Purpose.PLAN, key_id=signing_key_id(assignment_raw))
    assignment = Assignment.verify(assignment_raw, key=key)

    # 2
    if not hmac.compare_digest(plan_digest(plan_payload), assignment.plan_digest):
        raise WrongContextError(f"round {round_id}: the assignment is of another plan")
    if not plan.federation_id == assignment.federation_id == trust.federation_id:
        raise WrongContextError(f"round {round_id}: plan or assignment belong to another federation")
    if assignment.training_id != plan.training_id or assignment.round_id != round_id:
        raise WrongContextError(f"round {round_id}: the assignment is of another round or training")

    # 3
    plan.validate()
    if assignment.kind not in KINDS:
        raise IncompatiblePlanError(f"round {round_id} is of the unknown kind {assignment.kind!r}")
    if plan.job != job.name or plan.layout != job.layout:
        raise IncompatiblePlanError(f"the plan is for the job {plan.job!r}, and this machine runs {job.name!r}")

    # 4
    if assignment.number < highest_number:
        raise ReplayError(f"round {round_id} is number {assignment.number}, and {highest_number} has been seen")

    # 5
    if to_unix_milliseconds(trust.now) >= assignment.collecting_due_at:
        raise WrongContextError(f"round {round_id} has stopped collecting")
    recipient = EncapsulationKey.from_raw(assignment.recipient_key, assignment.recipient_algorithm)
    if str(recipient.algorithm) != str(get_suite(plan.suite).kem):
        raise UnsupportedSuiteError(f"round {round_id}: the round's key is not of the plan's suite")
    return VerifiedAssignment(plan=plan, assignment=assignment)


def verify_receipt(
    raw: bytes, *, trust: TrustStore, assignment: Assignment, device_id: str, submission_digest: bytes, size_bytes: int
) -> SubmissionReceipt:
    """Believe a submission receipt: signed, and for exactly what was sent.

    Raises:
        InvalidSignatureError, UntrustedIssuerError, MalformedMessageError
        LedgerError: a good receipt for something else; the server promises what did not happen.
    """
    key = trust.verify_key(Purpose.SUBMISSION_RECEIPT, key_id=signing_key_id(raw))
    receipt = SubmissionReceipt.verify(raw, key=key)
    expected = (device_id, assignment.round_id, assignment.plan_digest, submission_digest, size_bytes)
    found = (
        receipt.device_id,
        receipt.round_id,
        receipt.plan_digest,
        receipt.submission_digest,
        receipt.size_bytes,
    )
    if found != expected:
        raise LedgerError(f"round {assignment.round_id}: the server's receipt is for another submission than ours")
    return receipt


def verify_record(
    raw: bytes,
    *,
    trust: TrustStore,
    plan: RoundPlan,
    assignment: Assignment,
    device_id: str,
    submission_digest: bytes | None,
    k_hospitals: int,
) -> RoundRecord:
    """Believe a round record, and that it tells the truth about this device.

    1. Signed by a round-record key of the trust anchor.
    2. Of the round that we took part in.
    3. It lists exactly the cohort that was invited, this device once, and if it says that an update of ours was
       accepted, that one is ours.
    4. It keeps what the plan promised (``require_promises``), with this hospital's own k where that is higher.

    Args:
        submission_digest: of what this device sent in the round, 32 bytes; None if it sent nothing.
        k_hospitals: of the hospital's floor.

    Raises:
        InvalidSignatureError, UntrustedIssuerError, MalformedMessageError
        WrongContextError: of another round.
        LedgerError: it says something else about this device than what happened, or breaks the plan.
    """
    # 1
    read = parse_signed_message(raw, limit_bytes=RoundRecord.LIMIT_BYTES)
    key = trust.verify_key(Purpose.ROUND_RECORD, key_id=read.key_id)
    record = RoundRecord.verify(raw, key=key)
    # 2
    names = ("round_id", "training_id", "federation_id", "number", "kind", "plan_digest", "base_model_digest")
    for name in names:
        if getattr(record, name) != getattr(assignment, name):
            raise WrongContextError(f"round {assignment.round_id}: the record's {name} is another")
    # 3
    rows = [row for row in record.participants if row["device_id"] == device_id]
    if len(rows) != 1:
        raise LedgerError(f"round {assignment.round_id}: the record lists this device {len(rows)} times")
    if rows[0]["outcome"] == "accepted" and rows[0]["submission_digest"] != submission_digest:
        raise LedgerError(f"round {assignment.round_id}: the record counts an update that this device did not send")
    if roster_digest([row["device_id"] for row in record.participants]) != assignment.roster_digest:
        raise LedgerError(f"round {assignment.round_id}: the record lists other devices than were invited")
    # 4
    require_promises(record, plan, k_hospitals=k_hospitals)
    return record


def verify_manifest(
    raw: bytes, *, trust: TrustStore, named: NamedVersion, plan: RoundPlan, least_number: int
) -> ModelManifest:
    """Believe a model manifest: that it is of the version that plan, assignment or record named.

    1. Signed by a manifest key of the trust anchor.
    2. Of this model, this training and these weights; and of this plan, unless the plan starts from it: the version of
       another training was made under that one's.
    3. Not older than a version of its training held before.
    4. Sealed with the plan's suite.

    Args:
        named: what is asked for.
        plan: of the round that it is for, verified.
        least_number: highest number of that training's versions seen before, 0 for none.

    Raises:
        InvalidSignatureError, UntrustedIssuerError, MalformedMessageError
        WrongContextError: of another model, training or plan, of other weights, or in another suite.
        ReplayError: an older version than one seen before.
    """
    # 1
    key = trust.verify_key(Purpose.MODEL_MANIFEST, key_id=signing_key_id(raw))
    manifest = ModelManifest.verify(raw, key=key)
    # 2
    if manifest.model_id != named.model_id or manifest.training_id != named.training_id:
        raise WrongContextError(f"model {named.model_id}: the manifest is of another model or training")
    if manifest.weights_digest != named.weights_digest:
        raise WrongContextError(f"model {named.model_id} has other weights than the round names")
    if named.training_id == plan.training_id and manifest.plan_digest != plan.digest:
        raise WrongContextError(f"model {named.model_id} was made under another plan")
    # 3
    if manifest.number < least_number:
        raise ReplayError(f"model {named.model_id} is version {manifest.number}, and {least_number} has been seen")
    # 4
    if EnvelopeHeader.from_bytes(manifest.header).suite != plan.suite:
        raise WrongContextError(f"model {named.model_id} is not sealed with the plan's suite")
    return manifest


def verify_issued(
    issued: IssuedCertificate, *, device_id: str, keys: DevicePublicKeys, trust: TrustStore
) -> KeyStatement:
    """Believe the certificate and the key statement that the authority made for this device.

    1. The statement is signed by a key that the anchor names for it, and is of this federation.
    2. The certificate chains to the root of the trust statement, with this device's names.
    3. The statement binds this device, these four keys and this certificate, and the certificate is for the
       authentication key.

    Raises:
        VerificationError, ProtocolError: one of them does not hold.
    """
    issuer = trust.verify_key(Purpose.KEY_STATEMENT, key_id=parse_signed_message(issued.statement).key_id)
    statement = verify_statement(issued.statement, key=issuer, federation_id=trust.federation_id)
    certificate = verify_chain(
        issued.chain,
        root=trust.root_certificate,
        now=trust.now,
        names=DeviceNames(federation=trust.statement.federation, site=statement.site, device_id=device_id),
        profile=profile_of(trust.statement.certificates[0]),
    )
    verify_own_statement(
        statement,
        device_id=device_id,
        keys=keys,
        certificate_digest=certificate.fingerprint,
    )
    if certificate.public_key != keys.authentication.raw:
        raise WrongContextError("the certificate that came back is for another key")
    return statement
