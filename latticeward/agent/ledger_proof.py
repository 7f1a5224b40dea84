"""From a proof to a believed entry: the checkpoint's signature, the path to its root, and that the tree only grew."""

from latticeward.agent.state import HeldCheckpoint
from latticeward.agent.work import LedgerProof
from latticeward.ledger.checkpoint import verify_checkpoint
from latticeward.ledger.merkle import leaf_hash, verify_consistency, verify_inclusion
from latticeward.record_file import checkpoint_key
from latticeward.trust import TrustStore, ledger_origin


def verify_proof(proof: LedgerProof, trust: TrustStore, *, held: HeldCheckpoint | None) -> HeldCheckpoint:
    """Check that an entry is in the ledger of our federation, and that the ledger is the one that we saw before.

    1. The checkpoint is signed by a key that the trust anchor vouches for.
    2. The entry is in its tree.
    3. Its tree begins with that of the checkpoint held before, unchanged.

    Args:
        proof: as the server gave it.
        trust: judged at the present.
        held: the newest checkpoint that this device has believed; None before the first.

    Returns:
        The checkpoint to hold from now on.

    Raises:
        UntrustedIssuerError: signed by no key of this trust store; a newer one may know it.
        CheckpointError: the checkpoint is broken, or of another ledger.
        InclusionProofError: the entry is not in its tree.
        ConsistencyProofError: the ledger was set back, or something in it was changed.
    """
    # 1
    origin = ledger_origin(trust.federation_id)
    key = checkpoint_key(proof.checkpoint, origin=origin, trust=trust)
    checkpoint = verify_checkpoint(proof.checkpoint, origin=origin, key=key)
    # 2
    verify_inclusion(
        leaf_hash(proof.entry),
        index=proof.index,
        size=checkpoint.size,
        proof=proof.path,
        root=checkpoint.root,
    )
    # 3
    if held is not None:
        verify_consistency(
            old_size=held.size,
            old_root=bytes.fromhex(held.root),
            new_size=checkpoint.size,
            new_root=checkpoint.root,
            proof=proof.consistency,
        )
    return HeldCheckpoint(size=checkpoint.size, root=checkpoint.root.hex())
