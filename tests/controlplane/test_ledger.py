"""Entries get their leaf numbers once, in order, and every one can be proven under the signed head."""

import base64

import pytest
from django.db import transaction

from controlplane.audit import sequencing
from controlplane.audit.models import AuditEntry, Checkpoint, LedgerState
from controlplane.audit.selectors import inclusion_proof_of, leaf_hashes
from controlplane.audit.services import record
from latticeward.crypto.keys import CompositeSigningKey
from latticeward.errors import CheckpointError, InclusionProofError
from latticeward.ledger.checkpoint import sign_checkpoint, verify_checkpoint
from latticeward.ledger.merkle import leaf_hash, root_hash, verify_inclusion

pytestmark = pytest.mark.django_db

ORIGIN = "latticeward.test/ledger"


@pytest.fixture(scope="module")
def key() -> CompositeSigningKey:
    return CompositeSigningKey.generate()


def write(count: int) -> list[AuditEntry]:
    with transaction.atomic():
        return [record("user.signed_in", actor="user:1", feed="a", subject=("user", n)) for n in range(count)]


def sign_head(key: CompositeSigningKey) -> None:
    sequencing.sign_head(lambda size, root: sign_checkpoint(origin=ORIGIN, size=size, root=root, key=key))


def test_entries_are_numbered_once_and_in_order() -> None:
    write(5)
    assert sequencing.sequence_entries() == 5
    first = list(AuditEntry.objects.order_by("leaf_index").values_list("id", "leaf_index"))
    write(3)
    assert sequencing.sequence_entries() == 3
    assert sequencing.sequence_entries() == 0
    numbered = list(AuditEntry.objects.order_by("leaf_index").values_list("id", "leaf_index"))
    assert numbered[:5] == first
    assert [index for _, index in numbered] == list(range(8))


def test_the_signed_head_is_the_root_of_all_leaves(key: CompositeSigningKey) -> None:
    write(7)
    sequencing.sequence_entries()
    sign_head(key)
    head = verify_checkpoint(Checkpoint.objects.get().note, origin=ORIGIN, key=key.verify_key)
    assert (head.size, head.root) == (7, root_hash(leaf_hashes(7)))


def test_a_head_is_signed_once_and_again_only_when_the_tree_grew(key: CompositeSigningKey) -> None:
    write(2)
    sequencing.sequence_entries()
    sign_head(key)
    note = Checkpoint.objects.get().note
    sign_head(key)
    assert Checkpoint.objects.get().note == note
    write(1)
    sequencing.sequence_entries()
    sign_head(key)
    assert sorted(Checkpoint.objects.values_list("size", flat=True)) == [2, 3]


def test_every_entry_can_be_proven_and_no_altered_one(key: CompositeSigningKey) -> None:
    entries = write(6)
    assert inclusion_proof_of(entries[0].id) is None
    sequencing.sequence_entries()
    assert inclusion_proof_of(entries[0].id) is None  # numbered, and not under a signed head yet
    sign_head(key)
    for entry in entries:
        found = inclusion_proof_of(entry.id)
        assert found is not None
        head = verify_checkpoint(found["checkpoint"], origin=ORIGIN, key=key.verify_key)
        raw = base64.urlsafe_b64decode(found["entry"] + "==")
        path = [bytes.fromhex(item) for item in found["proof"]]
        verify_inclusion(leaf_hash(raw), index=found["index"], size=head.size, proof=path, root=head.root)
        with pytest.raises(InclusionProofError):
            verify_inclusion(leaf_hash(raw + b"x"), index=found["index"], size=head.size, proof=path, root=head.root)


def test_a_head_signed_by_another_key_is_refused(key: CompositeSigningKey) -> None:
    write(1)
    sequencing.sequence_entries()
    sign_head(CompositeSigningKey.generate())
    with pytest.raises(CheckpointError):
        verify_checkpoint(Checkpoint.objects.get().note, origin=ORIGIN, key=key.verify_key)


def test_a_sequencer_that_dies_leaves_the_batch_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    write(4)
    with monkeypatch.context() as patched:
        patched.setattr(sequencing, "_write_leaves", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sequencing.sequence_entries()
    assert not AuditEntry.objects.filter(leaf_index__isnull=False).exists()
    assert not LedgerState.objects.filter(size__gt=0).exists()
    assert sequencing.sequence_entries() == 4
