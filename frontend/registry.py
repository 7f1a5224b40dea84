"""The model registry as the pages show it: versions as rows, a version's page, proposals with people's names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User

from devices.models import Federation
from frontend.sentences import say_metric
from frontend.words import Word, word_of
from latticeward.lifecycle import AliasMoveState, ModelExportState
from rounds.models import AliasMove, ModelAlias, ModelExport, ModelVersion
from rounds.registry import selectors
from rounds.registry.selectors import Ancestor, Measured, Version
from rounds.services.starts import candidates, refusal_of

_HISTORY = 20
_STARTS = 50


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version of a list."""

    model: ModelVersion
    word: Word
    aliases: tuple[str, ...]
    metric: Measured | None


@dataclass(frozen=True, slots=True)
class StartRow:
    """A version that a training might start from; ``refusal`` says why it may not, empty if it may."""

    model: ModelVersion
    metric: Measured | None
    refusal: str

    @property
    def label(self) -> str:
        value = f", {say_metric(self.metric.name, self.metric.value)}" if self.metric else ""
        return f"Version {self.model.number} of {self.model.training.title} ({self.model.training.job}{value})"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal to move an alias, with names; ``is_own`` for the person who looks."""

    move: AliasMove
    word: Word
    proposed_by: str
    decided_by: str
    is_own: bool

    @property
    def is_waiting(self) -> bool:
        return self.move.state == AliasMoveState.PROPOSED

    @property
    def sentence(self) -> str:
        """What is proposed, in one sentence."""
        what = f"Move {self.move.alias.name} to version {self.move.target.number} of {self.move.target.training.title}"
        if self.move.before is None:
            return f"{what}; it points at nothing now."
        verb = "Roll back: " if self.move.is_rollback else ""
        return f"{verb}{what}; it points at version {self.move.before.number} now."


@dataclass(frozen=True, slots=True)
class File:
    """A file of a version that was asked for."""

    export: ModelExport
    word: Word
    requested_by: str
    is_own: bool

    @property
    def may_fetch(self) -> bool:
        return self.is_own and self.export.state == ModelExportState.READY

    @property
    def is_under_way(self) -> bool:
        return self.export.state == ModelExportState.REQUESTED


@dataclass(frozen=True, slots=True)
class VersionBoard:
    """A version's page."""

    version: Version
    word: Word
    lineage: tuple[Ancestor, ...]
    proposals: tuple[Proposal, ...]
    files: tuple[File, ...]
    others: tuple[ModelVersion, ...]


def version_rows(models: Iterable[ModelVersion]) -> list[VersionRow]:
    """Rows of a list; one query for the metrics."""
    listed = list(models)
    metrics = selectors.metrics_of(model.id for model in listed)
    return [
        VersionRow(
            model,
            word_of("model", model.state),
            tuple(sorted(alias.name for alias in model.aliases.all())),
            metrics.get(model.id),
        )
        for model in listed
    ]


def start_rows(federation: Federation) -> list[StartRow]:
    """The last version of each of the newest trainings, with whether a training may start from it; two queries."""
    models = list(candidates(federation).defer(*selectors.UNLISTED)[:_STARTS])
    metrics = selectors.metrics_of(model.id for model in models)
    return [StartRow(model, metrics.get(model.id), refusal_of(model)) for model in models]


def alias_rows(federation: Federation) -> list[ModelAlias]:
    """The aliases with the versions that they point at; one query."""
    return list(selectors.aliases_of(federation))


def proposals(moves: Iterable[AliasMove], *, viewer: User) -> tuple[Proposal, ...]:
    """Proposals with the names of people; one query more."""
    rows = list(moves)
    names = _names([actor for move in rows for actor in (move.proposed_by, move.decided_by)])
    return tuple(
        Proposal(
            move=move,
            word=word_of("alias_move", move.state),
            proposed_by=names.get(move.proposed_by, move.proposed_by),
            decided_by=names.get(move.decided_by, move.decided_by),
            is_own=move.proposed_by == f"user:{viewer.pk}",
        )
        for move in rows
    )


def read_board(model: ModelVersion, *, viewer: User, with_files: bool) -> VersionBoard:
    """Everything that a version's page shows."""
    training = model.training
    exports = list(selectors.exports(model_id=model.id)[:_HISTORY]) if with_files else []
    names = _names([export.requested_by for export in exports])
    moves = selectors.moves(federation=training.federation, model=model)[:_HISTORY]
    others = selectors.published_models().exclude(pk=model.pk).filter(training__federation=training.federation)
    return VersionBoard(
        version=selectors.read_version(model),
        word=word_of("model", model.state),
        lineage=tuple(selectors.lineage_of(model)),
        proposals=proposals(moves, viewer=viewer),
        files=tuple(
            File(
                export,
                word_of("model_export", export.state),
                names.get(export.requested_by, export.requested_by),
                export.requested_by == f"user:{viewer.pk}",
            )
            for export in exports
        ),
        others=tuple(others.prefetch_related(None)[:50]),
    )


def _names(actors: Sequence[str]) -> dict[str, str]:
    """``user:<id>`` to the person's name; one query."""
    ids = {int(actor.partition(":")[2]) for actor in actors if actor.startswith("user:")}
    found = User.objects.filter(pk__in=ids).values_list("pk", "username") if ids else ()
    return {f"user:{pk}": name for pk, name in found}
