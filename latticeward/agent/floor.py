"""The hospital's own floor: the weakest plan that this machine will take part in, whoever signed it.

The server's signature says that a plan is the federation's. Whether it is good enough for this hospital is for the
hospital to say, in a local file that no message can change. ``require`` refuses with the reason in words, for the
people who will read it in the log.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, Self

from latticeward.errors import MalformedMessageError, PlanBelowFloorError
from latticeward.plan import RoundPlan

_TRAINER_LIMITS: Final = MappingProxyType({"epochs": 50.0, "learning_rate": 10.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What a plan must at least promise.

    Attributes:
        protections: names that this hospital accepts.
        suites: ids of the suites that it accepts.
        quorum: fewest accepted updates behind a result.
        k_hospitals, k_patients: lowest k-minimum of pooled values.
        clip_norm_max: largest clip norm; a larger one would let one hospital's data show more.
        noise_multiplier_min: least noise; 0 accepts plans without differential privacy.
        metrics: names of the metrics whose counts may leave under protection.
        sensitivities: names of the profiles that are strict enough for this hospital's data.
        release_patients_min: fewest patients of each class under which this hospital's own metric may be shown to the
            others; 0 refuses every plan that shows it.
        straggler_seconds_max: longest wait for a quorum after the due time; who waits for the last one can choose when
            to stop, and opens the sum of as few hospitals as the quorum allows.
        rounds_max: most rounds of one training.
        trainer_max: largest value of named trainer settings.
    """

    protections: tuple[str, ...] = ("sealed",)
    suites: tuple[str, ...] = ("hybrid",)
    quorum: int = 2
    k_hospitals: int = 2
    k_patients: int = 5
    clip_norm_max: float = 100.0
    noise_multiplier_min: float = 0.0
    metrics: tuple[str, ...] = ("auc", "accuracy")
    sensitivities: tuple[str, ...] = ("routine", "sensitive", "highly-sensitive")
    release_patients_min: int = 0
    straggler_seconds_max: int = 86_400
    rounds_max: int = 1_000
    trainer_max: Mapping[str, float] = field(default_factory=lambda: _TRAINER_LIMITS)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Read the ``[floor]`` table of the configuration; what it does not name keeps its default.

        Raises:
            MalformedMessageError: an unknown name or a value of another type. A misspelt floor protects nobody.
        """
        known = {item.name for item in fields(cls)}
        read: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise MalformedMessageError(f"the floor has no line named {name!r}")
            read[name] = _typed(name, value, getattr(cls(), name))
        return cls(**read)

    def require(self, plan: RoundPlan) -> None:
        """Refuse a plan below this floor.

        Raises:
            PlanBelowFloorError: with the first reason, in words.
        """
        releases = plan.release.hospital_metrics
        refusals = {
            f"its protection is {plan.protection!r}": plan.protection not in self.protections,
            f"its suite is {plan.suite!r}": plan.suite not in self.suites,
            f"its quorum is {plan.quorum}, and at least {self.quorum} is asked": plan.quorum < self.quorum,
            f"it pools values from {plan.k_hospitals} hospitals, and at least {self.k_hospitals} is asked": (
                plan.k_hospitals < self.k_hospitals
            ),
            f"it shows values of {plan.k_patients} patients, and at least {self.k_patients} is asked": (
                plan.k_patients < self.k_patients
            ),
            f"its clip norm is {plan.clip_norm}, and at most {self.clip_norm_max} is allowed": (
                plan.clip_norm > self.clip_norm_max
            ),
            f"its noise multiplier is {plan.noise_multiplier}, and at least {self.noise_multiplier_min} is asked": (
                plan.noise_multiplier < self.noise_multiplier_min
            ),
            f"it asks for the metric {plan.metric!r}": plan.metric not in self.metrics,
            f"it is made for {plan.sensitivity} data": plan.sensitivity not in self.sensitivities,
            "it shows each hospital's own metric to the others": releases and self.release_patients_min == 0,
            f"it shows a hospital's own metric from {plan.release.patients_per_class} patients in each class on, and "
            f"at least {self.release_patients_min} are asked": (
                releases and plan.release.patients_per_class < self.release_patients_min
            ),
            f"it waits {plan.stragglers.seconds} s for stragglers, at most {self.straggler_seconds_max} are allowed": (
                plan.stragglers.seconds > self.straggler_seconds_max
            ),
            f"it has {plan.rounds} rounds, and at most {self.rounds_max} are allowed": plan.rounds > self.rounds_max,
        }
        for name, limit in self.trainer_max.items():
            value = plan.trainer.get(name, 0.0)
            beyond = not isinstance(value, int | float) or value > limit
            refusals[f"its trainer setting {name} is {value}, and at most {limit} is allowed"] = beyond
        for reason, refused in refusals.items():
            if refused:
                raise PlanBelowFloorError(f"the plan is below this hospital's floor: {reason}")


def _typed(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif isinstance(default, Mapping):
        if isinstance(value, Mapping) and all(_is_number(item) for item in value.values()):
            return MappingProxyType({key: float(item) for key, item in value.items()})
    elif isinstance(default, float):
        if _is_number(value):
            return float(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise MalformedMessageError(f"the floor's line {name!r} has a value of the wrong kind")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
