"""The parts of a plan that are maps of their own: deadlines, cohort, stop rule, budget, privacy, release and others.

Each part reads and writes itself by its own fields, so that a new promise is a line in one class. ``refusals`` lists
what cannot hold by itself; what two parts cannot promise together is ``RoundPlan.validate``'s.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

from latticeward import canonical
from latticeward.canonical import Fields

# Devices that one round may have; the ring, the record and the envelopes of a model have room for so many.
LARGEST_COHORT: Final = 4096
LONGEST_STAGE_SECONDS: Final = 7 * 24 * 3600
LONGEST_TRAINING_SECONDS: Final = 366 * 24 * 3600
_COUNT: Final = 2**53

_READERS: Final[Mapping[Any, Callable[[Fields, str], Any]]] = {
    int: lambda read, name: read.integer(name, 0, _COUNT),
    int | None: lambda read, name: read.optional_integer(name, 0, _COUNT),
    float: lambda read, name: read.number(name),
    float | None: lambda read, name: read.optional_number(name),
    bool: lambda read, name: read.boolean(name),
    str: lambda read, name: read.text(name),
    tuple[str, ...]: lambda read, name: tuple(Fields({"item": item}, name).text("item") for item in read.list(name)),
}


class PlanPart:
    """What all parts share: fields of the kinds in ``_READERS``, as a map."""

    __slots__ = ()
    NAME: ClassVar[str]

    def to_wire(self) -> dict[str, Any]:
        """The fields as plain values; floats as floats, whatever kind of number an operator wrote."""
        plain: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.type in (float, float | None) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            plain[field.name] = list(value) if isinstance(value, tuple) else value
        return plain

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        """Read the map.

        Raises:
            MalformedMessageError: a field is missing, unknown or of another kind.
        """
        read = Fields(value, cls.NAME)
        part = cls(**{field.name: _READERS[field.type](read, field.name) for field in fields(cls)})  # type: ignore[arg-type]
        read.end()
        return part

    def refusals(self) -> dict[str, bool]:
        """Reasons in words, each with whether it holds against this part."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSeconds(PlanPart):
    """How long each stage of a round may take, in seconds."""

    NAME = "stage seconds"

    signing: int = 30
    recruiting: int = 60
    collecting: int = 120
    aggregating: int = 60

    def refusals(self) -> dict[str, bool]:
        """Out of range."""
        each = [getattr(self, field.name) for field in fields(self)]
        within = all(isinstance(seconds, int) and 1 <= seconds <= LONGEST_STAGE_SECONDS for seconds in each)
        return {"every stage takes between one second and seven days": not within}


@dataclass(frozen=True, slots=True, kw_only=True)
class StragglerRule(PlanPart):
    """What becomes of updates that have not come when collecting is due.

    There is no rule that counts an update in another round than its own. It was computed from a model that the others
    have left behind, and nobody agreed to the group that it would be added to.

    Attributes:
        rule: ``refuse``: the round closes with the updates that came in time, or fails. ``wait``: a round that lacks
            its quorum then goes on for ``seconds`` at most, and closes as soon as the quorum is there.
        seconds: how long ``wait`` waits.
    """

    NAME = "stragglers"

    rule: str = "refuse"
    seconds: int = 0

    def refusals(self) -> dict[str, bool]:
        """An unknown rule, or a wait without an end."""
        return {
            f"the straggler rule {self.rule!r} is not known": self.rule not in ("refuse", "wait"),
            "waiting for stragglers takes between one second and seven days, and refusing them none": (
                not 0 <= self.seconds <= LONGEST_STAGE_SECONDS or (self.seconds > 0) != (self.rule == "wait")
            ),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortRule(PlanPart):
    """Who is invited to a round.

    Attributes:
        rule: ``all``: every active device, up to the cohort bound. ``sites``: the devices of the hospitals in
            ``sites``. ``draw``: ``size`` devices by a hash of plan, base model and device, so that nobody chooses and
            everybody can check; a round that is repeated on the same base model draws the same ones.
    """

    NAME = "cohort"

    rule: str = "all"
    sites: tuple[str, ...] = ()
    size: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.sites, list):  # as JSON has it
            object.__setattr__(self, "sites", tuple(self.sites))

    def choose(
        self, candidates: Sequence[tuple[str, str]], *, bound: int, plan_digest: bytes, base_model_digest: bytes
    ) -> list[str]:
        """The ids of the devices to invite, at most ``bound``.

        Args:
            candidates: (device id, slug of its hospital), in a fixed order.
            plan_digest, base_model_digest: 32 bytes each.
        """
        ids = [device for device, site in candidates if self.rule != "sites" or site in self.sites]
        if self.rule != "draw":
            return ids[:bound]
        lot = {
            device: canonical.digest("latticeward/draw/v1", plan_digest, base_model_digest, device.encode())
            for device in ids
        }
        return sorted(ids, key=lot.__getitem__)[: self.size]

    def refusals(self) -> dict[str, bool]:
        """An unknown rule, or settings of another rule."""
        return {
            f"the cohort rule {self.rule!r} is not known": self.rule not in ("all", "sites", "draw"),
            "the cohort rule 'sites' names at least one hospital, each once; no other rule names any": (
                bool(self.sites) != (self.rule == "sites") or len(set(self.sites)) < len(self.sites)
            ),
            "the cohort rule 'draw' has a size; no other rule has one": (self.size > 0) != (self.rule == "draw"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule(PlanPart):
    """When the pooled metric ends a training before its last round.

    Attributes:
        patience: so many measured versions in a row without a new best end the training; 0 never does.
        min_delta: by how much a version must beat the best one to be a new best.
        target: a version with at least this value ends the training; None has no target.
    """

    NAME = "stop rule"

    patience: int = 0
    min_delta: float = 0.0
    target: float | None = None

    def refusals(self) -> dict[str, bool]:
        """Out of range, or a difference that nothing looks at."""
        return {
            "the patience lies between 0 and 10,000 versions": not 0 <= self.patience <= 10_000,
            "the least improvement lies between 0 and 1": not 0 <= self.min_delta < 1,
            "a least improvement needs a patience that asks for it": self.min_delta > 0 and self.patience == 0,
            "the target lies above 0 and is at most 1": self.target is not None and not 0 < self.target <= 1,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(PlanPart):
    """What a training may cost beside its rounds; None sets no limit. Spent means that no further round is opened.

    Attributes:
        seconds: of wall-clock time since the training was opened.
        sent_bytes: of updates that devices have sent, counted with those that were refused.
    """

    NAME = "budget"

    seconds: int | None = None
    sent_bytes: int | None = None

    def refusals(self) -> dict[str, bool]:
        """Out of range."""
        return {
            "the budget of seconds lies between one second and 366 days": (
                self.seconds is not None and not 1 <= self.seconds <= LONGEST_TRAINING_SECONDS
            ),
            "the budget of bytes is at least 1": self.sent_bytes is not None and self.sent_bytes < 1,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyBudget(PlanPart):
    """The (epsilon, delta) that a model's whole training may spend, for one unit of privacy.

    Attributes:
        unit: whose joining or leaving the noise hides: ``hospital``.
        epsilon, delta: both, or neither: without noise there is no number to promise.
    """

    NAME = "privacy budget"

    unit: str = "hospital"
    epsilon: float | None = None
    delta: float | None = None

    def refusals(self) -> dict[str, bool]:
        """Out of range, or half a promise."""
        return {
            f"the unit of privacy {self.unit!r} is not known": self.unit != "hospital",
            "a privacy budget has an epsilon and a delta, or neither": (self.epsilon is None) != (self.delta is None),
            "epsilon is a positive number": (
                self.epsilon is not None and not (math.isfinite(self.epsilon) and self.epsilon > 0)
            ),
            "delta lies between 0 and 1": self.delta is not None and not 0 < self.delta < 1,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRelease(PlanPart):
    """Whether a hospital's own metric may be shown to the others.

    Attributes:
        hospital_metrics: else only pooled values leave the worker.
        patients_per_class: fewest held-out patients of each class behind a hospital's value; below, it is not kept.
    """

    NAME = "release"

    hospital_metrics: bool = False
    patients_per_class: int = 0

    def refusals(self) -> dict[str, bool]:
        """A release without a minimum, or a minimum of nothing."""
        return {
            "releasing hospitals' metrics needs a minimum of patients in each class, and only that has one": (
                self.hospital_metrics != (self.patients_per_class > 0)
            ),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How sensitive the patients' data are, and what a plan over them must at least promise.

    Attributes:
        name: as in the plan.
        title: one sentence for people.
        suites: that are strong enough.
        k_hospitals, k_patients: lowest k-minimum.
        release_patients: lowest minimum under which hospitals' own metrics may be released; None: under none.
    """

    name: str
    title: str
    suites: frozenset[str]
    k_hospitals: int
    k_patients: int
    release_patients: int | None


_EVERY_SUITE: Final = frozenset({"hybrid", "high", "constrained"})

SENSITIVITIES: Final[Mapping[str, Sensitivity]] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Sensitivity(
                name="routine",
                title="Routine: measurements of everyday care without direct identifiers.",
                suites=_EVERY_SUITE,
                k_hospitals=2,
                k_patients=5,
                release_patients=10,
            ),
            Sensitivity(
                name="sensitive",
                title="Sensitive: diagnoses and outcomes, the usual case.",
                suites=_EVERY_SUITE,
                k_hospitals=3,
                k_patients=10,
                release_patients=20,
            ),
            Sensitivity(
                name="highly-sensitive",
                title="Highly sensitive: genomes, mental health, infections with stigma.",
                suites=frozenset({"high"}),
                k_hospitals=4,
                k_patients=20,
                release_patients=None,
            ),
        )
    }
)
