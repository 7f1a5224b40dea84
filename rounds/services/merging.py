"""Merging many partial sums into few before a round's result is prepared: a tree whose nodes are tasks.

Each worker that took updates in left one partial, so a round that many machines worked on has many, and one worker
would read them one after the other. Above ``FAN_IN`` they are summed in groups, each group by a task of its own, level
by level; the sum of a group is a partial like any other, which holds its members. Integers modulo 2^k have the same sum
in any grouping, so neither the model nor an auditor can tell.
"""

from collections import defaultdict
from typing import Final
from uuid import UUID

from django.db import transaction

from controlplane.prepared import PreparedSelect
from latticeward.errors import NotFoundError, StaleStateError
from latticeward.lifecycle import RoundState
from latticeward.opening import codec_of
from latticeward.updates.ring import accumulate
from rounds.models import Contribution, Partial, Round
from rounds.services.partials import (
    discard,
    forget_replaced,
    load_partial,
    members_of,
    prepare_partial,
    require_members,
    swap_partial,
)
from rounds.storage import delete_blob

FAN_IN: Final = 8
_SLOTS: Final = PreparedSelect(
    lambda round_id: Partial.objects.filter(round_id=round_id).order_by("slot").values_list("slot"), UUID
)


def groups_to_merge(round_id: UUID) -> list[list[int]]:
    """The slots of each group that is to be merged now; nothing when the partials are few enough.

    A group is found from the slot's number alone, so it is the same whatever of the others is done already.
    """
    slots = [slot for (slot,) in _SLOTS(round_id)]
    width = FAN_IN
    while len(slots) > FAN_IN:
        groups: dict[int, list[int]] = defaultdict(list)
        for slot in slots:
            groups[slot // width].append(slot)
        if waiting := [group for group in groups.values() if len(group) > 1]:
            return waiting
        width *= FAN_IN
    return []


def merge_partials(round_id: UUID, slots: list[int]) -> None:
    """Sum the partials of a group into its first slot; harmless when they are merged already.

    Needs two model sizes of memory, however many the group has.
    """
    current = Round.objects.select_related("training").get(pk=round_id)
    partials = list(current.partials.filter(slot__in=slots).order_by("slot"))
    if current.state != RoundState.AGGREGATING or current.record is not None or len(partials) < 2:
        return
    codec = codec_of(current.training.round_plan)
    total, members = codec.empty_sum(), []
    try:
        for partial in partials:
            held = members_of(partial)
            require_members(partial, held)
            accumulate(total, load_partial(partial, codec.dtype))
            members += held
    except NotFoundError:
        if _stand(partials):
            raise  # a blob is gone and its row still names it: nothing may be guessed
        return  # merged by another worker meanwhile
    first, *others = partials
    prepared = prepare_partial(current, first.slot, first, total, members)
    try:
        with transaction.atomic():
            locked = Round.objects.select_for_update().get(pk=round_id)
            if locked.state != RoundState.AGGREGATING or locked.record is not None or not _stand(partials):
                raise StaleStateError(f"the partials of round {round_id} were merged by another worker")
            swapped = swap_partial(current, prepared)
            Contribution.objects.filter(partial__in=others).update(partial=swapped)
            Partial.objects.filter(pk__in=[partial.pk for partial in others]).delete()
    except StaleStateError:
        discard(prepared)
        return
    forget_replaced(prepared)
    for partial in others:
        delete_blob(partial.blob)


def _stand(partials: list[Partial]) -> bool:
    """Whether all of them are still the versions that were read."""
    now = dict(Partial.objects.filter(pk__in=[partial.pk for partial in partials]).values_list("pk", "version"))
    return now == {partial.pk: partial.version for partial in partials}
