"""Proofs from a real tree, and those that must not pass."""

from dataclasses import replace

import pytest

from latticeward.agent.ledger_proof import verify_proof
from latticeward.agent.ledger_watch import require_promise_kept
from latticeward.agent.work import LedgerProof
from latticeward.crypto.signing import Purpose
from latticeward.errors import CheckpointError, InclusionProofError
from latticeward.ledger.checkpoint import sign_checkpoint
from latticeward.ledger.merkle import inclusion_proof, leaf_hash, root_hash
from latticeward.trust import TrustStore, ledger_origin
from tests.latticeward.agent.fakes import entry_of
from tests.latticeward.peers import FEDERATION_ID, NOW, authority, composite_key

ENTRIES = [entry_of({"submission": f"s{number}", "digest": "ab"}) for number in range(7)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def trust() -> TrustStore:
    return TrustStore.from_signed(authority().bundle(), anchor_fingerprint=authority().anchor.fingerprint, now=NOW)


def checkpoint(federation_id: str = FEDERATION_ID, *, stranger: bool = False) -> str:
    key = composite_key("stranger") if stranger else authority().purpose_keys[Purpose.CHECKPOINT]
    return sign_checkpoint(origin=ledger_origin(federation_id), size=len(LEAVES), root=root_hash(LEAVES), key=key)


def proof(index: int) -> LedgerProof:
    path = tuple(inclusion_proof(LEAVES, index))
    return LedgerProof(entry=ENTRIES[index], index=index, checkpoint=checkpoint(), path=path)


@pytest.mark.parametrize("index", range(7))
def test_every_entry_of_the_tree_is_proven(index: int) -> None:
    verify_proof(proof(index), trust())


def test_another_entry_index_or_path_is_refused() -> None:
    good = proof(3)
    for bent in (
        replace(good, entry=ENTRIES[4]),
        replace(good, index=2),
        replace(good, index=99),
        replace(good, path=good.path[:-1]),
        replace(good, path=(bytes(32), *good.path[1:])),
    ):
        with pytest.raises(InclusionProofError):
            verify_proof(bent, trust())


def test_a_checkpoint_of_a_stranger_or_of_another_ledger_is_refused() -> None:
    for text in (checkpoint(stranger=True), checkpoint("another")):
        with pytest.raises(CheckpointError):
            verify_proof(replace(proof(3), checkpoint=text), trust())


def test_an_entry_of_another_event_keeps_no_promise() -> None:
    require_promise_kept(ENTRIES[2], submission_id="s2", submission_digest="ab")
    with pytest.raises(InclusionProofError):
        require_promise_kept(
            entry_of({"submission": "s2", "digest": "ab"}, event="submission.refused"),
            submission_id="s2",
            submission_digest="ab",
        )
