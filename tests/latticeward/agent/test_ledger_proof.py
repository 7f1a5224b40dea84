"""Proofs from a real tree, and those that must not pass."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from latticeward.agent.ledger_proof import verify_proof
from latticeward.agent.ledger_watch import LedgerWatch, ProofVerifier, require_promise_kept
from latticeward.agent.state import AgentState, HeldCheckpoint, RoundMemory, Stage
from latticeward.agent.trust_keeper import TrustKeeper
from latticeward.agent.work import LedgerProof
from latticeward.crypto.keys import CompositeSigningKey
from latticeward.crypto.signing import Purpose
from latticeward.errors import CheckpointError, ConsistencyProofError, InclusionProofError, UntrustedIssuerError
from latticeward.instants import to_unix_milliseconds
from latticeward.ledger.checkpoint import sign_checkpoint
from latticeward.ledger.merkle import consistency_proof, inclusion_proof, leaf_hash, root_hash
from latticeward.trust import PurposeKey, TrustStore, ledger_origin
from tests.latticeward.agent.fakes import FakeServer, entry_of, identity_of, uuid_of
from tests.latticeward.peers import FEDERATION_ID, NOW, authority, composite_key

ENTRIES = [entry_of({"submission": f"s{number}", "digest": "ab"}) for number in range(7)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
ROTATED = composite_key("the next checkpoint key")


def trust() -> TrustStore:
    return TrustStore.from_signed(authority().bundle(), anchor_fingerprint=authority().anchor.fingerprint, now=NOW)


def checkpoint(
    federation_id: str = FEDERATION_ID, *, key: CompositeSigningKey | None = None, leaves: list[bytes] = LEAVES
) -> str:
    key = key or authority().purpose_keys[Purpose.CHECKPOINT]
    return sign_checkpoint(origin=ledger_origin(federation_id), size=len(leaves), root=root_hash(leaves), key=key)


def proof(index: int, *, since: int = 0) -> LedgerProof:
    return LedgerProof(
        entry=ENTRIES[index],
        index=index,
        checkpoint=checkpoint(),
        path=tuple(inclusion_proof(LEAVES, index)),
        consistency=tuple(consistency_proof(LEAVES, since)),
    )


def held(size: int, leaves: list[bytes] = LEAVES) -> HeldCheckpoint:
    return HeldCheckpoint(size=size, root=root_hash(leaves[:size]).hex())


@pytest.mark.parametrize("index", range(7))
def test_every_entry_of_the_tree_is_proven(index: int) -> None:
    assert verify_proof(proof(index), trust(), held=None) == held(7)


@pytest.mark.parametrize("size", range(1, 8))
def test_a_checkpoint_that_extends_the_one_held_before_is_believed(size: int) -> None:
    assert verify_proof(proof(2, since=size), trust(), held=held(size)) == held(7)


@pytest.mark.parametrize("size", range(1, 8))
def test_a_ledger_in_which_something_was_changed_is_refused(size: int) -> None:
    others = [bytes(32), *LEAVES[1:]]
    with pytest.raises(ConsistencyProofError):
        verify_proof(proof(2, since=size), trust(), held=held(size, others))


def test_a_ledger_that_was_set_back_is_refused() -> None:
    with pytest.raises(ConsistencyProofError, match="does not extend"):
        verify_proof(proof(2), trust(), held=held(8, [*LEAVES, bytes(32)]))


def test_a_checkpoint_without_the_proof_that_was_asked_for_is_refused() -> None:
    with pytest.raises(ConsistencyProofError):
        verify_proof(replace(proof(2, since=3), consistency=()), trust(), held=held(3))


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
            verify_proof(bent, trust(), held=None)


def test_a_checkpoint_of_a_stranger_or_of_another_ledger_is_refused() -> None:
    for text in (checkpoint(key=composite_key("stranger")), checkpoint("another")):
        with pytest.raises((CheckpointError, UntrustedIssuerError)):
            verify_proof(replace(proof(3), checkpoint=text), trust(), held=None)


def test_a_checkpoint_by_an_older_key_that_is_still_valid_is_believed() -> None:
    both = trust()
    newer = PurposeKey(
        purpose=Purpose.CHECKPOINT,
        key=ROTATED.verify_key,
        not_before=to_unix_milliseconds(NOW) - 1,
        not_after=to_unix_milliseconds(NOW) + 60_000,
    )
    both = replace(both, statement=replace(both.statement, keys=(*both.statement.keys, newer)))
    assert both.verify_key(Purpose.CHECKPOINT).key_id == ROTATED.verify_key.key_id
    verify_proof(proof(3), both, held=None)  # by the older one
    verify_proof(replace(proof(3), checkpoint=checkpoint(key=ROTATED)), both, held=None)


def test_a_checkpoint_by_a_key_that_is_new_here_is_believed_after_one_look_at_the_trust_bundle(tmp_path: Path) -> None:
    life = owing_a_proof(tmp_path)
    untrusting = life.server.calls.count("trust")
    believed: list[int] = []

    def verify(given: LedgerProof, store: TrustStore, *, held: HeldCheckpoint | None) -> HeldCheckpoint:
        believed.append(life.server.calls.count("trust"))
        if len(believed) == 1:
            raise UntrustedIssuerError("a key that is new here")
        return HeldCheckpoint(size=9, root="00" * 32)

    life.watch(verify).check_one()
    assert believed == [untrusting, untrusting + 1]
    assert not life.state.unproven
    assert AgentState.load(tmp_path).checkpoint == HeldCheckpoint(size=9, root="00" * 32)


def test_a_checkpoint_by_a_key_that_nobody_vouches_for_stops_the_agent(tmp_path: Path) -> None:
    def verify(given: LedgerProof, store: TrustStore, *, held: HeldCheckpoint | None) -> HeldCheckpoint:
        raise UntrustedIssuerError("a key that is new here")

    with pytest.raises(CheckpointError):
        owing_a_proof(tmp_path).watch(verify).check_one()


@dataclass
class Owing:
    server: FakeServer
    state: AgentState
    trust: TrustKeeper

    def watch(self, verify: ProofVerifier) -> LedgerWatch:
        return LedgerWatch(state=self.state, transport=self.server, trust=self.trust, clock=lambda: NOW, verify=verify)


def owing_a_proof(home: Path) -> Owing:
    """A device whose submission s1 is sent, and not proven yet."""
    server = FakeServer()
    server.entries["s1"] = ENTRIES[1]
    round_id = uuid_of(0xF0, 1)
    state = AgentState.load(home)
    identity = identity_of(server.authority)
    trust = TrustKeeper(home=home, identity=identity, state=state, transport=server, clock=lambda: NOW)
    trust.current()
    state.unproven["s1"] = round_id
    state.put(
        RoundMemory(
            round_id=round_id,
            training_id=uuid_of(0x70, 1),
            number=1,
            kind="training",
            base_model_digest="",
            stage=Stage.SETTLED,
            submission_id="s1",
            submission_digest="ab",
        )
    )
    return Owing(server, state, trust)


def test_an_entry_of_another_event_keeps_no_promise() -> None:
    require_promise_kept(ENTRIES[2], submission_id="s2", submission_digest="ab")
    with pytest.raises(InclusionProofError):
        require_promise_kept(
            entry_of({"submission": "s2", "digest": "ab"}, event="submission.refused"),
            submission_id="s2",
            submission_digest="ab",
        )
