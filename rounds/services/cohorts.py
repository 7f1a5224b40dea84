"""Whether the sum of a cohort may be opened: enough hospitals in it, and not too much like a sum opened before.

Asked when the members are about to be fixed, and again before the first partial is read: nothing is opened that must
not be known.
"""

from typing import Final
from uuid import UUID

from django.db.models import Q

from latticeward.errors import CohortTooCloseError, KMinimumError, PlanChangedError, QuorumNotMetError
from latticeward.lifecycle import ParticipantState, RoundState
from latticeward.plan import RoundPlan
from rounds.models import Participant, Round

_ACCEPTED: Final = Q(state=ParticipantState.ACCEPTED)
_MEASURING: Final = _ACCEPTED & Q(submissions__contribution__measures=True)


def require_hiding(current: Round, plan: RoundPlan) -> None:
    """Check the accepted participants of a round.

    1. A quorum of updates.
    2. Updates of as many hospitals as the k-minimum: two machines of one hospital are one.
    3. Of any earlier round of the job on the same base model: the same devices, or others of at least k hospitals.
       With fewer, the difference of the two sums would be about a group smaller than k. Two trainings may have promised
       two numbers: the hospitals between are those of both, so the higher one counts. Only noise closes this fully: two
       cohorts far enough from each other may still be close by way of a third.

    Raises:
        QuorumNotMetError, KMinimumError, CohortTooCloseError
    """
    members = _members(current)
    hospitals = len(set(members.values()))
    if len(members) < plan.quorum:
        raise QuorumNotMetError(f"round {current.id} has {len(members)} updates")
    if hospitals < plan.k_hospitals:
        raise KMinimumError(f"round {current.id} has updates of {hospitals} hospitals")
    if (close := _too_close(current, plan, members, _ACCEPTED)) is not None:
        raise CohortTooCloseError(
            f"round {current.id} differs from round {close.id} on the same base by too few hospitals"
        )


def measuring(current: Round) -> dict[UUID, UUID]:
    """The hospitals, by device, that stand behind a round's metric: those whose updates have test patients."""
    return dict(Participant.objects.filter(_MEASURING, round=current).values_list("device_id", "device__site_id"))


def hides_metric(current: Round, plan: RoundPlan) -> bool:
    """Whether a round's metric tells nothing about fewer than k hospitals.

    Enough of them have test patients, and those are the same as in any earlier round on the same base model, or differ
    by k of them: members without test patients make two cohorts differ, and their metrics not.
    """
    behind = measuring(current)
    enough = len(set(behind.values())) >= plan.k_hospitals
    return enough and _too_close(current, plan, behind, _MEASURING) is None


def _too_close(current: Round, plan: RoundPlan, ours: dict[UUID, UUID], who: Q) -> Round | None:
    """An earlier round on the same base whose cohort differs from ours, by fewer hospitals than either plan's k."""
    found = _earlier(current, who)
    for earlier in Round.objects.filter(pk__in=found).only("training").select_related("training"):
        k_hospitals = max(plan.k_hospitals, _promised(earlier, found[earlier.id]))
        if 0 < _apart(ours, found[earlier.id]) < k_hospitals:
            return earlier
    return None


def _promised(earlier: Round, cohort: dict[UUID, UUID]) -> int:
    """The k-minimum that an earlier round's members were promised.

    Of a plan that somebody changed in the database, the most that it can have been: the sum was opened, so k was no
    more than the hospitals in it. Neither a promise nor another training is lost to the change.
    """
    try:
        return earlier.training.round_plan.k_hospitals
    except PlanChangedError:
        return len(set(cohort.values()))


def _apart(ours: dict[UUID, UUID], others: dict[UUID, UUID]) -> int:
    """The hospitals between two cohorts, which are maps from device to hospital."""
    return len({site for device, site in (ours | others).items() if (device in ours) != (device in others)})


def _members(current: Round) -> dict[UUID, UUID]:
    return dict(Participant.objects.filter(_ACCEPTED, round=current).values_list("device_id", "device__site_id"))


def _earlier(current: Round, who: Q) -> dict[UUID, dict[UUID, UUID]]:
    """Those members of each round whose sum over the same base model is open, or will be before this one's."""
    rows = Participant.objects.filter(
        who,
        round__training__federation_id=current.training.federation_id,
        round__training__job=current.training.job,
        round__base_model_digest=current.base_model_digest,
        round__state__in=(RoundState.AGGREGATING, RoundState.PUBLISHED),
    ).exclude(round_id=current.id)
    if current.closed_at is not None:
        # Of two that were fixed at once, each sees the other: the later one gives way.
        rows = rows.filter(round__closed_at__lte=current.closed_at)
    found: dict[UUID, dict[UUID, UUID]] = {}
    for round_id, device_id, site_id in rows.values_list("round_id", "device_id", "device__site_id"):
        found.setdefault(round_id, {})[device_id] = site_id
    return found
