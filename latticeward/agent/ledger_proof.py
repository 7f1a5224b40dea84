"""From an inclusion proof to a believed entry: the checkpoint's signature first, then the path to its root."""

from latticeward.agent.work import LedgerProof
from latticeward.crypto.signing import Purpose
from latticeward.ledger.checkpoint import verify_checkpoint
from latticeward.ledger.merkle import leaf_hash, verify_inclusion
from latticeward.trust import TrustStore, ledger_origin


def verify_proof(proof: LedgerProof, trust: TrustStore) -> None:
    """Check that an entry is in the ledger of our federation.

    Args:
        proof: as the server gave it.
        trust: judged at the present.

    Raises:
        CheckpointError: the checkpoint is not one that our trust anchor vouches for.
        InclusionProofError: the entry is not in its tree.
    """
    checkpoint = verify_checkpoint(
        proof.checkpoint,
        origin=ledger_origin(trust.federation_id),
        key=trust.verify_key(Purpose.CHECKPOINT),
    )
    verify_inclusion(
        leaf_hash(proof.entry),
        index=proof.index,
        size=checkpoint.size,
        proof=proof.path,
        root=checkpoint.root,
    )
