"""From recorded entries to a signed tree, and proofs that the library's own verifier accepts."""

import base64
from typing import NoReturn

import pytest
from django.db import transaction

from controlplane.audit import sequencing, tree
from controlplane.audit.models import AuditEntry, Checkpoint, LedgerState
from controlplane.audit.selectors import consistency_between, entries_page, entry_bytes_at, inclusion_proof_of
from controlplane.audit.sequencing import entry_bytes, sequence_entries, sign_head
from controlplane.audit.services import record
from latticeward import canonical
from latticeward.crypto.composite import CompositeSigningKey
from latticeward.errors import ConsistencyProofError, InclusionProofError, LedgerError
from latticeward.ledger.checkpoint import sign_checkpoint, verify_checkpoint
from latticeward.ledger.merkle import Frontier, leaf_hash, root_hash, verify_consistency, verify_inclusion

pytestmark = pytest.mark.django_db

ORIGIN = "latticeward/northern"
KEY = CompositeSigningKey.from_seed(bytes(range(64)))


def write(count: int) -> list[AuditEntry]:
    with transaction.atomic():
        return [
            record("user.signed_in", actor="user:1", feed="a", subject=("user", number), details={"number": number})
            for number in range(count)
        ]


def sign() -> Checkpoint | None:
    return sign_head(lambda size, root: sign_checkpoint(origin=ORIGIN, size=size, root=root, key=KEY))


def no_signature(*_: object) -> NoReturn:
    raise AssertionError("there is nothing to sign")


def test_entries_are_numbered_once_in_the_order_of_their_recording() -> None:
    entries = write(7)
    assert sequence_entries() == 7
    assert sequence_entries() == 0
    stored = entries_page(0)
    assert [(row.id, row.leaf_index) for row in stored] == [(row.id, at) for at, row in enumerate(entries)]
    assert [bytes(row.leaf_hash or b"") for row in stored] == [leaf_hash(entry_bytes(row)) for row in stored]
    write(3)
    assert sequence_entries() == 3
    assert [row.leaf_index for row in entries_page(6, limit=3)] == [6, 7, 8]
    state = LedgerState.objects.get()
    frontier = Frontier.from_bytes(bytes(state.frontier))
    assert state.size == frontier.size == 10
    assert frontier.root == tree.tree_root(10) == root_hash(bytes(row.leaf_hash or b"") for row in entries_page(0))


def test_a_batch_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencing, "BATCH", 4)
    write(9)
    assert [sequence_entries() for _ in range(4)] == [4, 4, 1, 0]


def test_a_failure_numbers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write(3)
    monkeypatch.setattr(Frontier, "to_bytes", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sequence_entries()
    assert not AuditEntry.objects.filter(leaf_index__isnull=False).exists()


def test_the_bytes_of_an_entry_are_the_same_when_read_again() -> None:
    details = {"text": "größe", "number": 2**40, "share": 0.1, "none": None, "list": [1, {"deep": True}]}
    with transaction.atomic():
        entry = record("user.signed_in", actor="user:1", feed="a", subject=("user", 1), details=details)
    stored = AuditEntry.objects.get(pk=entry.pk)
    assert entry_bytes(stored) == entry_bytes(entry)
    assert canonical.decode(entry_bytes(stored), limit_bytes=10_000)["details"] == details
    assert entry_bytes_at(0) is None
    sequence_entries()
    assert entry_bytes_at(0) == entry_bytes(entry)


def test_details_that_have_no_canonical_form_are_refused_at_once() -> None:
    # Later they would stop the sequencer, and with it the ledger.
    with pytest.raises(RuntimeError, match="canonical"), transaction.atomic():
        record("user.signed_in", actor="user:1", feed="a", subject=("user", 1), details={"number": 2**70})
    assert not AuditEntry.objects.exists()


def test_a_head_is_signed_once_for_every_growth() -> None:
    assert sign_head(no_signature) is None
    write(5)
    assert sign_head(no_signature) is None
    sequence_entries()
    first = sign()
    assert first is not None
    assert sign_head(no_signature) is None
    verified = verify_checkpoint(first.note, origin=ORIGIN, key=KEY.verify_key)
    assert (verified.size, verified.root) == (5, tree.tree_root(5))
    write(2)
    sequence_entries()
    second = sign()
    assert second is not None and second.size == 7
    verify_consistency(
        old_size=5,
        old_root=verified.root,
        new_size=7,
        new_root=bytes(second.root),
        proof=[bytes.fromhex(item) for item in consistency_between(5, 7)],
    )


@pytest.mark.parametrize("which", [1, 6])
def test_a_history_that_was_changed_is_not_signed(which: int) -> None:
    write(5)
    sequence_entries()
    sign()
    write(4)
    sequence_entries()
    AuditEntry.objects.filter(leaf_index=which).update(leaf_hash=bytes(32))
    with pytest.raises(LedgerError):
        sign_head(no_signature)
    AuditEntry.objects.filter(leaf_index=which).delete()
    with pytest.raises(LedgerError):
        sign_head(no_signature)
    assert Checkpoint.objects.count() == 1


def test_every_entry_can_be_proven_under_the_newest_head() -> None:
    entries = write(11)
    assert inclusion_proof_of(entries[0].id) is None
    sequence_entries()
    assert inclusion_proof_of(entries[0].id) is None
    sign()
    for entry in entries:
        proof = inclusion_proof_of(entry.id)
        assert proof is not None
        head = verify_checkpoint(proof["checkpoint"], origin=ORIGIN, key=KEY.verify_key)
        verify_inclusion(
            leaf_hash(base64.urlsafe_b64decode(proof["entry"] + "==")),
            index=proof["index"],
            size=head.size,
            proof=[bytes.fromhex(item) for item in proof["proof"]],
            root=head.root,
        )
    (late,) = write(1)
    sequence_entries()
    assert inclusion_proof_of(late.id) is None


def test_kept_subtrees_give_the_same_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_KEPT_LEAVES", 4)
    write(23)
    sequence_entries()
    leaves = [bytes(row.leaf_hash or b"") for row in entries_page(0)]
    for _ in range(2):
        for size in (1, 4, 8, 13, 23):
            root = root_hash(leaves[:size])
            assert tree.tree_root(size) == root
            for index in range(size):
                verify_inclusion(
                    leaves[index], index=index, size=size, proof=tree.inclusion_path(index, size), root=root
                )
                verify_consistency(
                    old_size=index,
                    old_root=root_hash(leaves[:index]),
                    new_size=size,
                    new_root=root,
                    proof=tree.consistency_path(index, size),
                )


def test_proofs_beyond_the_ledger_are_refused() -> None:
    with pytest.raises(InclusionProofError):
        tree.inclusion_path(0, 1)
    assert consistency_between(0, 0) == []
    write(3)
    sequence_entries()
    with pytest.raises(InclusionProofError):
        tree.inclusion_path(3, 4)
    with pytest.raises(ConsistencyProofError):
        consistency_between(2, 4)
    with pytest.raises(ConsistencyProofError):
        consistency_between(3, 2)
    assert consistency_between(0, 3) == consistency_between(3, 3) == []
