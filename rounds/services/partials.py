"""Partial sums of a round: sealed, immutable blobs whose database row is moved by compare-and-swap.

Each write uses a fresh key; the associated data binds round, slot, version and the digest of the members, so an old
or foreign partial, or one with other members, cannot be put in its place.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
from django.db import IntegrityError

from controlplane.prepared import PreparedSelect, update_rows
from keys import vault
from latticeward import canonical
from latticeward.crypto.wrapping import NONCE_BYTES, TAG_BYTES, new_key, unwrap_bulk, wrap_bulk
from latticeward.errors import StaleStateError
from latticeward.updates.ring import RingVector
from rounds.models import Contribution, Partial, Round
from rounds.storage import delete_blob, read_blob, write_blob

_HELD: Final = PreparedSelect(
    lambda round_id: Contribution.objects.filter(partial__round_id=round_id).values_list(
        "partial_id", "submission__digest"
    ),
    UUID,
)
_MEMBERS: Final = PreparedSelect(
    lambda partial_id: Contribution.objects.filter(partial_id=partial_id).values_list("submission__digest"), int
)


@dataclass(frozen=True, slots=True)
class PreparedPartial:
    """A new version of a slot, written to storage, not yet named by the database."""

    slot: int
    version: int
    blob: str
    wrapped_key: bytes
    member_digest: bytes
    row: Partial | None
    replaces: str | None


def load_partial(partial: Partial, dtype: np.dtype[Any]) -> RingVector:
    """Open a partial sum.

    Raises:
        DecryptionError, CustodyError: the blob or its key is not what was written.
    """
    key = vault.unwrap(bytes(partial.wrapped_key), purpose="partial", row_id=_row_id(partial.round_id, partial.slot))
    binding = _binding(partial.round_id, partial.slot, partial.version, bytes(partial.member_digest))
    wrapped = read_blob(partial.blob)
    # Opened where it will be added to; an odd number of bytes at the end makes the lengths differ, which is refused.
    vector = np.empty(max(0, len(wrapped) - NONCE_BYTES - TAG_BYTES) // dtype.itemsize, dtype=dtype)
    unwrap_bulk(wrapped, vector.data.cast("B"), key=key, associated_data=binding)
    return vector


def members_of(partial: Partial | None) -> list[str]:
    """The digests of the submissions that a partial holds, by the database."""
    return [digest for (digest,) in _MEMBERS(partial.pk)] if partial else []


def members_by_partial(round_id: UUID) -> dict[int, list[str]]:
    """The same for all partials of a round, by the partial's key."""
    held: dict[int, list[str]] = {}
    for partial_id, digest in _HELD(round_id):
        held.setdefault(partial_id, []).append(digest)
    return held


def require_members(partial: Partial, members: list[str]) -> None:
    """Stop when the database and a partial disagree about what it holds: nothing may be guessed.

    Raises:
        AssertionError
    """
    if member_digest(members) != bytes(partial.member_digest):
        raise AssertionError(f"partial {partial.slot} of round {partial.round_id} does not hold the members it names")


def member_digest(members: list[str]) -> bytes:
    """32 bytes that stand for a set of submissions."""
    return canonical.digest("latticeward/members/v1", *(bytes.fromhex(member) for member in sorted(members)))


def prepare_partial(
    owner: Round, slot: int, current: Partial | None, vector: RingVector, members: list[str]
) -> PreparedPartial:
    """Seal and store the next version of a slot, holding exactly ``members``."""
    version = current.version + 1 if current else 1
    key = new_key()
    digest = member_digest(members)
    binding = _binding(owner.id, slot, version, digest)
    return PreparedPartial(
        slot=slot,
        version=version,
        blob=write_blob(wrap_bulk(vector.data.cast("B"), key=key, associated_data=binding)),
        wrapped_key=vault.wrap(key, purpose="partial", row_id=_row_id(owner.id, slot)),
        member_digest=digest,
        row=current,
        replaces=current.blob if current else None,
    )


def swap_partial(owner: Round, prepared: PreparedPartial) -> Partial:
    """Name the prepared version in the database; call inside the transaction that moves the participant.

    Returns:
        The slot's row, to name as the members' partial; its other columns may be those of the version before.

    Raises:
        StaleStateError: another worker wrote the slot first; the transaction can only end. Discard the prepared blob
            and begin again.
    """
    values: dict[str, Any] = {
        "version": prepared.version,
        "blob": prepared.blob,
        "wrapped_key": prepared.wrapped_key,
        "member_digest": prepared.member_digest,
    }
    moved = f"partial {prepared.slot} of round {owner.id} was moved by another worker"
    if prepared.row is None:
        try:
            return Partial.objects.create(round=owner, slot=prepared.slot, commitment_salt=new_key(), **values)
        except IntegrityError as error:
            raise StaleStateError(moved) from error
    if update_rows(Partial, [prepared.row.pk], values, version=prepared.version - 1) != 1:
        raise StaleStateError(moved)
    return prepared.row


def discard(prepared: PreparedPartial) -> None:
    """Remove a prepared version that did not become true."""
    delete_blob(prepared.blob)


def forget_replaced(prepared: PreparedPartial) -> None:
    """Erase the version that was replaced, after the commit."""
    if prepared.replaces:
        delete_blob(prepared.replaces)


def commitment(vector: RingVector, salt: bytes) -> bytes:
    """A salted commitment of a partial sum, 32 bytes: fit for a published record."""
    return canonical.digest("latticeward/partial-commitment/v1", salt, vector.data.cast("B"))


def _row_id(round_id: object, slot: int) -> str:
    return f"{round_id}/{slot}"


def _binding(round_id: object, slot: int, version: int, members: bytes) -> bytes:
    return canonical.encode(["latticeward/partial/v1", str(round_id), slot, version, members])
