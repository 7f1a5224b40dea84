"""Which version of an earlier training a new one may start from, and why another may not.

The rules are those of ADR 0033. They are asked when a plan is made, and again before its first round is opened: until
then a version may have been taken out of use.
"""

from typing import Final
from uuid import UUID

from django.db.models import Exists, F, Max, OuterRef, Q, QuerySet, Subquery

from devices.models import Federation
from latticeward.errors import IncompatiblePlanError, ModelUnusableError, NotFoundError
from latticeward.lifecycle import TRAINING, ModelState
from latticeward.plan import RoundPlan
from latticeward.plan_parts import SENSITIVITIES
from latticeward.starts import NamedVersion
from rounds.models import ModelVersion, Participant, Training

# From the least strict on, as the table lists them.
_STRICTNESS: Final = tuple(SENSITIVITIES)


def candidates(federation: Federation) -> QuerySet[ModelVersion]:
    """The last published version of each training, the newest first; of each ``refusal_of`` says whether it may be.

    Of an earlier version the next round has begun with it, so none of them may.
    """
    last = Max("training__models__number", filter=Q(training__models__signed_manifest__isnull=False))
    rows = _judged(None).filter(training__federation=federation).annotate(last=last)
    return rows.filter(number=F("last")).order_by("-created_at")


def refusal_of(model: ModelVersion) -> str:
    """Why no training may start from this version now, in a sentence; empty if one may.

    Args:
        model: one of ``candidates``, or as ``require_start`` reads it.
    """
    used, promised_to = model.is_used, model.promised_to  # type: ignore[attr-defined]
    if model.state != ModelState.AVAILABLE:
        return f"It is {model.state}: nothing new may begin with it."
    if model.training.state not in TRAINING.terminal:
        return "Its training is running and goes on from it by itself."
    if used:
        return "A training round has begun with it: hospitals give to one base model under one plan only."
    if promised_to is not None:
        return f"“{promised_to}” starts from it already."
    return ""


def require_start(plan: RoundPlan, *, training: Training | None = None) -> ModelVersion | None:
    """Check what a plan starts from, in a transaction: the version cannot be taken out of use before its end.

    1. It is a published version of this federation, with the training and the weights that the plan names.
    2. It may be a start now (``refusal_of``).
    3. Job, tensors and suite are those of its training: else no device could open it, or train on.
    4. Its training promised its hospitals no more than this plan does: sensitivity and k-minimum are not lower. The
       version was measured by hospitals who are in this training's first sum again, and the difference of two sums over
       one base model must not be about fewer of them than either plan says.

    Args:
        training: whose plan it is, if it exists already; what it did with the version itself does not count.

    Returns:
        The version; None if the plan starts from none.

    Raises:
        NotFoundError: no such version.
        ModelUnusableError: the version may not be a start.
        IncompatiblePlanError: the plan does not go on from where its start's training ended.
    """
    # 1
    if (start := plan.start) is None:
        return None
    rows = ModelVersion.objects.select_for_update(of=("self",)).only("id")
    locked = rows.filter(
        pk=start.model_id, training__federation=UUID(plan.federation_id), signed_manifest__isnull=False
    )
    if locked.first() is None:
        raise NotFoundError(f"no published model {start.model_id}")
    model = _judged(training).get(pk=start.model_id)
    if named(model) != start:
        raise IncompatiblePlanError("the plan names another training or other weights than those of its start")
    # 2
    if refusal := refusal_of(model):
        raise ModelUnusableError(refusal)
    # 3, 4
    earlier = model.training.round_plan
    stricter = _STRICTNESS.index(earlier.sensitivity) > _STRICTNESS.index(plan.sensitivity)
    refusals = {
        f"the start is of the job {earlier.job!r}, and the plan of {plan.job!r}": earlier.job != plan.job,
        "the start has other tensors than the plan": earlier.layout != plan.layout,
        f"the start is sealed with the suite {earlier.suite!r}, and the plan's is {plan.suite!r}": (
            earlier.suite != plan.suite
        ),
        f"the start was made of {earlier.sensitivity} data, and the plan is for {plan.sensitivity} data": stricter,
        f"the start's training promised a k-minimum of {earlier.k_hospitals} hospitals and {earlier.k_patients} "
        "patients, and the plan's is lower": (
            plan.k_hospitals < earlier.k_hospitals or plan.k_patients < earlier.k_patients
        ),
    }
    for reason, refused in refusals.items():
        if refused:
            raise IncompatiblePlanError(reason)
    return model


def named(model: ModelVersion) -> NamedVersion:
    """A version as a plan names it."""
    return NamedVersion(
        model_id=str(model.id), training_id=str(model.training_id), weights_digest=bytes(model.weights_digest)
    )


def next_base(training: Training) -> ModelVersion | None:
    """What the training's next round begins with: its newest version, before that the version it starts from.

    None if it has none and its start follows from its plan.
    """
    newest = training.models.filter(signed_manifest__isnull=False).order_by("-number").first()
    return newest or training.start_model


def _judged(training: Training | None) -> QuerySet[ModelVersion]:
    """Published versions with what ``refusal_of`` asks; ``training`` itself does not count."""
    # Who joined may have sent, and remembers that it gave, whether or not it arrived. Devices go by the weights.
    gave = Participant.objects.filter(
        round__base_model_digest=OuterRef("weights_digest"),
        round__training__federation=OuterRef("training__federation"),
        round__kind="training",
        joined_at__isnull=False,
    )
    starting = Training.objects.filter(start_model=OuterRef("pk")).exclude(state__in=TRAINING.terminal)
    if training is not None:
        gave, starting = gave.exclude(round__training=training), starting.exclude(pk=training.pk)
    rows = ModelVersion.objects.filter(signed_manifest__isnull=False).select_related("training__federation")
    return rows.annotate(is_used=Exists(gave), promised_to=Subquery(starting.values("title")[:1]))
