"""Reads of the model registry: versions with what is known of them, their ancestors, and aliases with their history."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import F, Q, QuerySet

from controlplane.audit.models import AuditEntry
from devices.models import Federation
from latticeward.errors import NotFoundError
from latticeward.lifecycle import AliasMoveState, ParticipantState, RoundState
from latticeward.plan import RoundPlan
from rounds.models import (
    AliasMove,
    ModelAlias,
    ModelDifference,
    ModelExport,
    ModelVersion,
    Participant,
    Round,
)

ANCESTORS_LIMIT: Final = 200
# Sealed bytes, keys and signed bytes are large, and no list shows them.
UNLISTED: Final = ("manifest", "header", "wrapped_content_key", "training__plan", "training__signed_plan")

# These differ between any two trainings, and tensors are compared one by one.
_OF_EVERY_TRAINING: Final = ("training_id", "title", "created_at", "layout")


def published_models() -> QuerySet[ModelVersion]:
    """Every published version, the newest first, with its training and aliases; two queries."""
    rows = ModelVersion.objects.filter(signed_manifest__isnull=False).select_related("training").defer(*UNLISTED)
    return rows.defer("signed_manifest").prefetch_related("aliases").order_by("-created_at")


def published_model(model_id: UUID) -> ModelVersion:
    """One published version with its training and federation.

    Raises:
        NotFoundError
    """
    rows = ModelVersion.objects.filter(pk=model_id, signed_manifest__isnull=False)
    model = rows.select_related("training__federation").prefetch_related("aliases").first()
    if model is None:
        raise NotFoundError(f"no published model {model_id}")
    return model


@dataclass(frozen=True, slots=True)
class Measured:
    """A version's metric on the hospitals' held-out parts, as the round that started from it measured it."""

    name: str
    value: float
    hospitals: int
    patients: int


def metrics_of(model_ids: Iterable[UUID]) -> dict[UUID, Measured]:
    """The pooled metric of versions, where one was published; one query.

    As its own training measured it: one that starts from it measures it again, at other hospitals perhaps, and keeps
    that value in its own series. Below the plan's k nothing was ever stored, so there is nothing to hide here.
    """
    rows = Round.objects.filter(
        base_model__in=list(model_ids),
        base_model__training=F("training"),
        state=RoundState.PUBLISHED,
        metric_value__isnull=False,
    ).order_by("number")
    found = {}
    for base, name, value, support in rows.values_list(
        "base_model_id", "metric_name", "metric_value", "metric_support"
    ):
        if base is not None and value is not None:
            behind = support or {}
            found[base] = Measured(name, value, int(behind.get("hospitals", 0)), int(behind.get("patients", 0)))
    return found


@dataclass(frozen=True, slots=True)
class AtHospital:
    """A version's metric on one hospital's own held-out part."""

    hospital: str
    value: float
    patients: int


@dataclass(frozen=True, slots=True)
class Version:
    """All that is known of one version; ``devices`` and ``hospitals`` are those whose updates count in it.

    Attributes:
        base: the version that its round began with, of another training too; None for a start that the plan describes.
        hospitals, devices: None below the plan's k-minimum of hospitals.
        by_hospital: the hospitals' own values, where the plan releases them and enough patients are behind; None where
            the plan keeps them at the hospitals.
        ledger_index: place of its publication in the ledger; None while it waits for its number.
    """

    model: ModelVersion
    plan: RoundPlan
    round: Round
    base: ModelVersion | None
    invited: int
    devices: int | None
    hospitals: tuple[str, ...] | None
    metric: Measured | None
    by_hospital: tuple[AtHospital, ...] | None
    ledger_index: int | None


def read_version(model: ModelVersion) -> Version:
    """Everything about one version, from ``published_model``; five queries."""
    training = model.training
    plan = training.round_plan
    made_in = Round.objects.select_related("base_model__training").get(model=model)
    invited = Participant.objects.filter(round=made_in).count()
    sites = _counted_sites(made_in)
    names = tuple(sorted(set(sites)))
    shown = len(names) >= plan.k_hospitals
    entry = AuditEntry.objects.filter(event="round.published", subject_kind="round", subject_id=str(made_in.id))
    return Version(
        model=model,
        plan=plan,
        round=made_in,
        base=made_in.base_model,
        invited=invited,
        devices=len(sites) if shown else None,
        hospitals=names if shown else None,
        metric=metrics_of([model.id]).get(model.id),
        by_hospital=_by_hospital(model) if plan.release.hospital_metrics else None,
        ledger_index=entry.values_list("leaf_index", flat=True).first(),
    )


def _by_hospital(model: ModelVersion) -> tuple[AtHospital, ...]:
    # Below the plan's minimum of patients a class, nothing was ever stored.
    rows = Participant.objects.filter(
        round__base_model=model,
        round__training=model.training_id,
        round__state=RoundState.PUBLISHED,
        state=ParticipantState.ACCEPTED,
        metric__isnull=False,
    )
    found = rows.order_by("device__site__name").values_list("device__site__name", "metric")
    return tuple(AtHospital(site, float(metric["value"]), int(metric["patients"])) for site, metric in found if metric)


def _counted_sites(made_in: Round) -> list[str]:
    counted = Participant.objects.filter(round=made_in, state=ParticipantState.ACCEPTED)
    return list(counted.values_list("device__site__name", flat=True))


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One version on the way to another, or (``model_id`` None) the start that a plan describes."""

    model_id: UUID | None
    training_id: UUID
    training_title: str
    number: int
    weights_digest: bytes
    plan_digest: bytes
    round_id: UUID | None
    state: str
    created_at: datetime
    metric: Measured | None


def lineage_of(model: ModelVersion) -> list[Ancestor]:
    """A version and what it came from, over trainings, back to a start that a plan describes.

    At most ``ANCESTORS_LIMIT`` steps. Within a training the ancestors are its earlier versions; the first of them came
    from what the training starts from.
    """
    line = _versions_up_to(model.training_id, model.number, limit=ANCESTORS_LIMIT)
    while (first := line[-1])["came_from"] is not None and len(line) < ANCESTORS_LIMIT:
        # A training's versions are all there, so the first of them came from another training's.
        came_from = (first["came_from__training"], first["came_from__number"])
        line += _versions_up_to(*came_from, limit=ANCESTORS_LIMIT - len(line))
    measured = metrics_of(row["id"] for row in line)
    found = [
        Ancestor(
            model_id=row["id"],
            training_id=row["training_id"],
            training_title=row["training__title"],
            number=row["number"],
            weights_digest=bytes(row["weights_digest"]),
            plan_digest=bytes(row["training__plan_digest"]),
            round_id=row["made_in"],
            state=row["state"],
            created_at=row["created_at"],
            metric=measured.get(row["id"]),
        )
        for row in line
    ]
    return found if first["came_from"] is not None else [*found, _described_start(first)]


def _versions_up_to(training_id: UUID, number: int, *, limit: int) -> list[dict[str, Any]]:
    rows = ModelVersion.objects.filter(training=training_id, number__lte=number, signed_manifest__isnull=False)
    names = ("id", "training_id", "number", "weights_digest", "base_model_digest", "state", "created_at")
    named = rows.order_by("-number").values(
        *names,
        "training__title",
        "training__plan_digest",
        "training__created_at",
        came_from=F("round__base_model"),
        came_from__training=F("round__base_model__training"),
        came_from__number=F("round__base_model__number"),
        made_in=F("round__id"),
    )
    return list(named[:limit])


def _described_start(first: dict[str, Any]) -> Ancestor:
    """What the first version of a training came from, where its plan describes it and names no version."""
    return Ancestor(
        model_id=None,
        training_id=first["training_id"],
        training_title=first["training__title"],
        number=0,
        weights_digest=bytes(first["base_model_digest"]),
        plan_digest=bytes(first["training__plan_digest"]),
        round_id=None,
        state="",
        created_at=first["training__created_at"],
        metric=None,
    )


def aliases_of(federation: Federation) -> QuerySet[ModelAlias]:
    """The aliases of a federation with the versions that they point at, by job and name."""
    rows = ModelAlias.objects.filter(federation=federation).select_related("model__training")
    return rows.defer("model__manifest", "model__signed_manifest", "model__header")


def moves(*, federation: Federation, waiting: bool = False, model: ModelVersion | None = None) -> QuerySet[AliasMove]:
    """Proposals, the newest first; only those that wait for a second person, or those about one version."""
    rows = AliasMove.objects.filter(alias__federation=federation)
    if waiting:
        rows = rows.filter(state=AliasMoveState.PROPOSED)
    if model is not None:
        rows = rows.filter(Q(target=model) | Q(before=model))
    return rows.select_related("alias", "target__training", "before").defer(
        *(f"{side}__{name}" for side in ("target", "before") for name in ("manifest", "signed_manifest", "header")),
        "target__training__plan",
        "target__training__signed_plan",
    )


def exports(*, model_id: UUID | None = None) -> QuerySet[ModelExport]:
    """The files that were asked for, of all versions or of one, the newest first."""
    rows = ModelExport.objects.order_by("-requested_at")
    return rows.filter(model=model_id) if model_id else rows


def export(export_id: UUID) -> ModelExport:
    """One export.

    Raises:
        NotFoundError
    """
    if (found := ModelExport.objects.filter(pk=export_id).first()) is None:
        raise NotFoundError(f"export {export_id}")
    return found


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """One field of the plan that differs, both values as plain JSON."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions side by side; ``row.result`` is None while the worker has not answered.

    Attributes:
        joined, left: hospitals that count in the second and not in the first, and the other way round; None where one
            of the two stands on fewer hospitals than its plan's k-minimum.
    """

    row: ModelDifference
    before: Version
    after: Version
    plan: tuple[PlanDifference, ...]
    joined: tuple[str, ...] | None
    left: tuple[str, ...] | None


def read_difference(difference_id: UUID) -> Comparison:
    """A difference that was asked for, with everything beside the weights that differs.

    Raises:
        NotFoundError
    """
    if (row := ModelDifference.objects.filter(pk=difference_id).first()) is None:
        raise NotFoundError(f"difference {difference_id}")
    before, after = read_version(published_model(row.before_id)), read_version(published_model(row.after_id))
    joined = left = None
    if before.hospitals is not None and after.hospitals is not None:
        joined = tuple(name for name in after.hospitals if name not in before.hospitals)
        left = tuple(name for name in before.hospitals if name not in after.hospitals)
    return Comparison(row, before, after, _plan_differences(before.plan, after.plan), joined, left)


def _plan_differences(before: RoundPlan, after: RoundPlan) -> tuple[PlanDifference, ...]:
    names = [name for name in RoundPlan.__slots__ if name not in _OF_EVERY_TRAINING]
    pairs = ((name, _plain(getattr(before, name)), _plain(getattr(after, name))) for name in names)
    return tuple(PlanDifference(name, one, other) for name, one, other in pairs if one != other)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(item) for name, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
