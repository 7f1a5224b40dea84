"""Whether the sum of a cohort may be opened: enough hospitals in it, and not too much like a sum opened before.

Asked when the members are about to be fixed, and again before the first partial is read: nothing is opened that must
not be known.
"""

from uuid import UUID

from latticeward.errors import CohortTooCloseError, KMinimumError, QuorumNotMetError
from latticeward.lifecycle import ParticipantState, RoundState
from latticeward.plan import RoundPlan
from rounds.models import Participant, Round


def require_hiding(current: Round, plan: RoundPlan) -> None:
    """Check the accepted participants of a round.

    1. A quorum of updates.
    2. Updates of as many hospitals as the k-minimum: two machines of one hospital are one.
    3. Of any earlier round of the job on the same base model: the same devices, or others of at least k hospitals.
       With fewer, the difference of the two sums would be about a group smaller than k. Only noise closes this
       fully: two cohorts far enough from each other may still be close by way of a third.

    Raises:
        QuorumNotMetError, KMinimumError, CohortTooCloseError
    """
    members = _members(current)
    hospitals = len(set(members.values()))
    if len(members) < plan.quorum:
        raise QuorumNotMetError(f"round {current.id} has {len(members)} updates")
    if hospitals < plan.k_hospitals:
        raise KMinimumError(f"round {current.id} has updates of {hospitals} hospitals")
    for earlier, others in _earlier(current).items():
        between = {site for device, site in (members | others).items() if (device in members) != (device in others)}
        if 0 < len(between) < plan.k_hospitals:
            raise CohortTooCloseError(
                f"round {current.id} differs from round {earlier} on the same base by {len(between)} hospitals"
            )


def hospitals_of(current: Round) -> int:
    """Hospitals behind a round's sum: two machines of one hospital are one, or k would protect nobody."""
    return len(set(_members(current).values()))


def _members(current: Round) -> dict[UUID, UUID]:
    accepted = Participant.objects.filter(round=current, state=ParticipantState.ACCEPTED)
    return dict(accepted.values_list("device_id", "device__site_id"))


def _earlier(current: Round) -> dict[UUID, dict[UUID, UUID]]:
    """The members of each round whose sum over the same base model is open, or will be before this one's."""
    rows = Participant.objects.filter(
        state=ParticipantState.ACCEPTED,
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
