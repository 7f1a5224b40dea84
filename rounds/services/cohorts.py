"""Whether the sum of a cohort may be opened: enough hospitals in it, and not too much like a sum opened before.

Asked when the members are about to be fixed, and again before the first partial is read: nothing is opened that must
not be known.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from django.db.models import Q, QuerySet, Subquery

from controlplane.prepared import PreparedSelect
from latticeward.errors import CohortTooCloseError, KMinimumError, PlanChangedError, QuorumNotMetError
from latticeward.lifecycle import ParticipantState, RoundState
from latticeward.plan import RoundPlan
from rounds.models import Participant, Round

# The hospitals that stand behind a number, by device.
Cohort = dict[UUID, UUID]


def require_hiding(current: Round, plan: RoundPlan) -> Cohort:
    """Check the accepted participants of a round, and tell who they are.

    1. A quorum of updates.
    2. Updates of as many hospitals as the k-minimum: two machines of one hospital are one.
    3. Of any earlier round of the job on the same base model: the same devices, or others of at least k hospitals.
       With fewer, the difference of the two sums would be about a group smaller than k. Two trainings may have promised
       two numbers: the hospitals between are those of both, so the higher one counts. Only noise closes this fully: two
       cohorts far enough from each other may still be close by way of a third.

    Raises:
        QuorumNotMetError, KMinimumError, CohortTooCloseError
    """
    members = dict(_MEMBERS.members(current.id))
    hospitals = len(set(members.values()))
    if len(members) < plan.quorum:
        raise QuorumNotMetError(f"round {current.id} has {len(members)} updates")
    if hospitals < plan.k_hospitals:
        raise KMinimumError(f"round {current.id} has updates of {hospitals} hospitals")
    if (close := _too_close(current, plan, members, _MEMBERS)) is not None:
        raise CohortTooCloseError(
            f"round {current.id} differs from round {close.id} on the same base by too few hospitals"
        )
    return members


def measuring(current: Round) -> Cohort:
    """Who stands behind a round's metric: those whose updates have test patients."""
    return dict(_MEASURING.members(current.id))


def hides_metric(current: Round, plan: RoundPlan, behind: Cohort) -> bool:
    """Whether a round's metric tells nothing about fewer than k hospitals.

    Enough of them have test patients, and those are the same as in any earlier round on the same base model, or differ
    by k of them: members without test patients make two cohorts differ, and their metrics not.

    Args:
        behind: as ``measuring`` found it.
    """
    enough = len(set(behind.values())) >= plan.k_hospitals
    return enough and _too_close(current, plan, behind, _MEASURING) is None


def _too_close(current: Round, plan: RoundPlan, ours: Cohort, who: "_Behind") -> Round | None:
    """An earlier round on the same base whose cohort differs from ours, by fewer hospitals than either plan's k."""
    found = _earlier(current, who)
    for earlier in Round.objects.filter(pk__in=found).only("training").select_related("training"):
        k_hospitals = max(plan.k_hospitals, _promised(earlier, found[earlier.id]))
        if 0 < _apart(ours, found[earlier.id]) < k_hospitals:
            return earlier
    return None


def _promised(earlier: Round, cohort: Cohort) -> int:
    """The k-minimum that an earlier round's members were promised.

    Of a plan that somebody changed in the database, the most that it can have been: the sum was opened, so k was no
    more than the hospitals in it. Neither a promise nor another training is lost to the change.
    """
    try:
        return earlier.training.round_plan.k_hospitals
    except PlanChangedError:
        return len(set(cohort.values()))


def _apart(ours: Cohort, others: Cohort) -> int:
    """The hospitals between two cohorts."""
    return len({site for device, site in (ours | others).items() if (device in ours) != (device in others)})


def _earlier(current: Round, who: "_Behind") -> dict[UUID, Cohort]:
    """Those members of each round whose sum over the same base model is open, or will be before this one's."""
    training = current.training
    about = (training.federation_id, training.job, current.id)
    # Of two that were fixed at once, each sees the other: the later one gives way.
    rows = who.open(*about) if current.closed_at is None else who.open_by(*about, current.closed_at)
    found: dict[UUID, Cohort] = {}
    for round_id, device_id, site_id in rows:
        found.setdefault(round_id, {})[device_id] = site_id
    return found


class _Behind:
    """The statements about one kind of people behind a number: all hold up the end of a round, so they are prepared.

    Attributes:
        members: of a round: device and hospital.
        open, open_by: of the rounds on the same base as a round, of its federation and job, whose sum is open or will
            be, or is by a moment: round, device and hospital.
    """

    def __init__(self, who: Q) -> None:
        accepted = Participant.objects.filter(who, state=ParticipantState.ACCEPTED)

        def open_ones(federation_id: UUID, job: str, round_id: UUID) -> QuerySet[Participant, tuple[UUID, UUID, UUID]]:
            same_base = accepted.filter(
                round__training__federation_id=federation_id,
                round__training__job=job,
                round__base_model_digest=Subquery(Round.objects.filter(pk=round_id).values("base_model_digest")),
                round__state__in=(RoundState.AGGREGATING, RoundState.PUBLISHED),
            )
            return same_base.exclude(round_id=round_id).values_list("round_id", "device_id", "device__site_id")

        self.members = PreparedSelect(
            lambda round_id: accepted.filter(round_id=round_id).values_list("device_id", "device__site_id"), UUID
        )
        self.open = PreparedSelect(open_ones, UUID, str, UUID)
        self.open_by = PreparedSelect(
            lambda *values: open_ones(*values[:-1]).filter(round__closed_at__lte=values[-1]), UUID, str, UUID, datetime
        )


_MEMBERS: Final = _Behind(Q())
_MEASURING: Final = _Behind(Q(submissions__contribution__measures=True))
