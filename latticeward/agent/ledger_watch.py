"""Holding the server to its receipts: each submission must be in the ledger, as it was sent, and that only grows.

A receipt says RECEIVED and promises an entry by a deadline. Between rounds the agent asks for the inclusion proof of
what it has sent, checks it against a signed checkpoint, and reads the proven entry. It remembers the checkpoint, and
each next one must extend it. If the entry tells of other bytes, or a proof does not hold, the agent stops: its receipt
and its checkpoint are the evidence, and only people can act on them.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

from latticeward import canonical
from latticeward.agent.ledger_proof import verify_proof
from latticeward.agent.state import AgentState, HeldCheckpoint, RoundMemory
from latticeward.agent.transports import Transport
from latticeward.agent.trust_keeper import TrustKeeper
from latticeward.agent.work import LedgerProof
from latticeward.crypto.signing import parse_signed_message
from latticeward.errors import CheckpointError, InclusionProofError, PermanentTransportError, UntrustedIssuerError
from latticeward.instants import to_unix_milliseconds
from latticeward.messages import SubmissionReceipt
from latticeward.trust import TrustStore

logger = logging.getLogger(__name__)

ENTRY_LIMIT_BYTES: Final = 256 * 1024


class ProofVerifier(Protocol):
    """The rules of proofs and checkpoints: ``ledger_proof.verify_proof``."""

    def __call__(self, proof: LedgerProof, trust: TrustStore, *, held: HeldCheckpoint | None) -> HeldCheckpoint: ...


class LedgerWatch:
    """Asks for one owed proof at a time.

    Args:
        clock: aware UTC now.
        verify: the rules of proofs and checkpoints.
    """

    def __init__(
        self,
        *,
        state: AgentState,
        transport: Transport,
        trust: TrustKeeper,
        clock: Callable[[], datetime],
        verify: ProofVerifier = verify_proof,
    ) -> None:
        self._state = state
        self._transport = transport
        self._trust = trust
        self._verify = verify
        self._clock = clock
        self._told: set[str] = set()

    def check_one(self) -> None:
        """Ask for the oldest owed proof, and believe or refuse it.

        Raises:
            LedgerError: the server has logged something else than it promised, or cannot prove what it logged.
            TransientTransportError
        """
        if (owed := self._owed()) is not None:
            self._check(*owed)

    @property
    def owes(self) -> bool:
        """Whether a proof is owed for a round that is over."""
        return self._owed() is not None

    def _owed(self) -> tuple[str, RoundMemory] | None:
        for submission_id, round_id in self._state.unproven.items():
            memory = self._state.rounds.get(round_id)
            if memory is not None and memory.stage.over:
                return submission_id, memory
        return None

    def _check(self, submission_id: str, memory: RoundMemory) -> None:
        held = self._state.checkpoint
        try:
            proof = self._transport.proof(submission_id, since=held.size if held else 0)
        except PermanentTransportError as error:
            raise InclusionProofError(
                f"the server no longer answers for submission {submission_id}: {error}"
            ) from error
        if proof is None:
            self._tell_if_overdue(submission_id, memory.round_id)
            return
        checkpoint = self._believed(proof, held)
        require_promise_kept(proof.entry, submission_id=submission_id, submission_digest=memory.submission_digest)
        self._state.checkpoint = checkpoint
        del self._state.unproven[submission_id]
        self._state.save()
        logger.info("submission %s proven: entry %d of the ledger", submission_id, proof.index)

    def _believed(self, proof: LedgerProof, held: HeldCheckpoint | None) -> HeldCheckpoint:
        try:
            return self._verify(proof, self._trust.current(), held=held)
        except UntrustedIssuerError:
            logger.info("the checkpoint is signed by a key that is new here: asking for the trust bundle")
        try:
            return self._verify(proof, self._trust.refresh(), held=held)
        except UntrustedIssuerError as error:
            raise CheckpointError(str(error)) from error

    def _tell_if_overdue(self, submission_id: str, round_id: str) -> None:
        raw = self._state.recall(round_id, "receipt.cbor")
        receipt = SubmissionReceipt.from_bytes(parse_signed_message(raw).payload)
        if to_unix_milliseconds(self._clock()) > receipt.ledger_due_at and submission_id not in self._told:
            logger.warning("submission %s should be in the ledger by now and is not", submission_id)
            self._told.add(submission_id)


def require_promise_kept(entry: bytes, *, submission_id: str, submission_digest: str) -> None:
    """Check that a proven ledger entry tells of our submission.

    Args:
        entry: canonical bytes of the entry.
        submission_digest: hex, of what this device sent.

    Raises:
        InclusionProofError: it tells of something else.
        MalformedMessageError: not an entry.
    """
    value = canonical.decode(entry, limit_bytes=ENTRY_LIMIT_BYTES)
    value = value if isinstance(value, Mapping) else {}
    details = value.get("details")
    details = details if isinstance(details, Mapping) else {}
    told = (value.get("type"), value.get("event"), details.get("submission"), details.get("digest"))
    if told != ("audit-entry", "update.received", submission_id, submission_digest):
        raise InclusionProofError(
            f"the ledger's entry for submission {submission_id} tells of other bytes than those that were sent; "
            "the receipt in this agent's home is the evidence"
        )
