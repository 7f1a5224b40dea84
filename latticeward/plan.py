"""The plan: what every round of a training promises, signed once and never changed.

``RoundPlan.validate`` refuses mixtures that cannot hold what they promise, with the reason in words. Bytes are
deterministic CBOR (``docs/protocol.md``, "Plan"); the digest over them is what rounds, envelopes and records bind.
What does not live here: due times and the base model of one round (``messages.Assignment``).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Self

from latticeward import canonical
from latticeward.aggregation import AGGREGATORS
from latticeward.canonical import Fields
from latticeward.crypto.suites import get_suite
from latticeward.errors import IncompatiblePlanError, MalformedMessageError
from latticeward.optimisers import check_settings
from latticeward.plan_parts import (
    LARGEST_COHORT,
    SENSITIVITIES,
    Budget,
    CohortRule,
    MetricRelease,
    PlanPart,
    PrivacyBudget,
    StageSeconds,
    StopRule,
    StragglerRule,
)
from latticeward.protection import PROTECTIONS, View
from latticeward.starts import NamedVersion
from latticeward.updates.metrics import METRICS
from latticeward.updates.tensors import TensorLayout

PLAN_LIMIT_BYTES: Final = 256 * 1024
# The fixed-point grid must be finer than this share of the clip norm, or rounding would be felt (decision: 64 bits).
COARSEST_STEP: Final = 1e-6


# What a hospital's update weighs in the mean: its training examples up to the cap, or the same as any other's.
WEIGHT_RULES: Final = ("examples", "equal")
PARTS: Final[Mapping[str, type[PlanPart]]] = MappingProxyType(
    {
        "stage_seconds": StageSeconds,
        "cohort": CohortRule,
        "stop": StopRule,
        "budget": Budget,
        "privacy": PrivacyBudget,
        "release": MetricRelease,
        "stragglers": StragglerRule,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """The parameters that all rounds of one training share.

    Attributes:
        job: name of the learning job that every agent must know.
        trainer: settings of the local training, as plain numbers and strings.
        layout: the tensors behind the flat vector, d numbers.
        initial: how version 0 of the model follows from nothing but this plan, or the version of another training that
            this one starts from (``starts.NamedVersion``).
        clip_norm: C > 0, the bound on an update's L2 norm, in the unit of the weights.
        weight_rule: ``examples`` or ``equal``.
        weight_cap: W > 0, examples at which a hospital's weight stops growing.
        sensitivity: a name of ``SENSITIVITIES``: what the data ask of the plan.
        cohort: who is invited.
        cohort_bound: N, devices that the fixed-point ring has room for.
        quorum: accepted updates without which a round has no result.
        k_hospitals, k_patients: pooled values from fewer are not stored, shown or sent.
        metric: ``auc`` (binned) or ``accuracy``; metric_size integers travel beside the update.
        release: whether hospitals' own metrics may be shown.
        noise_multiplier, privacy: differential privacy of the sum and what all rounds together may spend of it.
        evaluate_last: whether a last round without training measures the final model.
        stop, budget: what ends the training before its last round.
        stage_seconds, stragglers: deadlines, and what becomes of updates that miss theirs.
    """

    training_id: str
    federation_id: str
    title: str
    job: str
    trainer: Mapping[str, int | float | str]
    layout: TensorLayout
    initial: Mapping[str, int | str | bytes]
    rounds: int
    suite: str
    protection: str = "sealed"
    aggregator: str = "mean"
    server_optimiser: Mapping[str, int | float | str]
    clip_norm: float
    weight_rule: str = "examples"
    weight_cap: float
    sensitivity: str = "sensitive"
    cohort: CohortRule = field(default_factory=CohortRule)
    cohort_bound: int
    ring_bits: int = 32
    quorum: int
    k_hospitals: int
    k_patients: int
    noise_multiplier: float = 0.0
    privacy: PrivacyBudget = field(default_factory=PrivacyBudget)
    metric: str
    metric_size: int
    release: MetricRelease = field(default_factory=MetricRelease)
    evaluate_last: bool = True
    stop: StopRule = field(default_factory=StopRule)
    budget: Budget = field(default_factory=Budget)
    stage_seconds: StageSeconds = field(default_factory=StageSeconds)
    stragglers: StragglerRule = field(default_factory=StragglerRule)
    created_at: int

    def validate(self) -> Self:
        """Refuse what cannot hold.

        Raises:
            IncompatiblePlanError: with the clash in words.
            UnsupportedSuiteError: the suite is unknown or makes nothing new.
        """
        start = self.start
        get_suite(self.suite).require_makeable()
        refusals = {
            f"the protection {self.protection!r} is not known": self.protection not in PROTECTIONS,
            f"the aggregator {self.aggregator!r} is not known": self.aggregator not in AGGREGATORS,
            "the clip norm must be a positive number": not (math.isfinite(self.clip_norm) and self.clip_norm > 0),
            "the weight cap must be a positive number": not (math.isfinite(self.weight_cap) and self.weight_cap > 0),
            "a training has 1 to 10,000 rounds": not 1 <= self.rounds <= 10_000,
            "the quorum must be at least 2: one hospital's update alone would be an individual": self.quorum < 2,
            "the quorum cannot be larger than the cohort bound": self.quorum > self.cohort_bound,
            "the k-minimum of hospitals cannot be larger than the quorum, or no round could publish": (
                self.k_hospitals > self.quorum
            ),
            "the k-minimum of hospitals must be at least 2 and of patients at least 1": (
                self.k_hospitals < 2 or self.k_patients < 1
            ),
            f"the cohort bound lies between 2 and {LARGEST_COHORT:,}": not 2 <= self.cohort_bound <= LARGEST_COHORT,
            "the ring has 32 or 64 bits": self.ring_bits not in (32, 64),
            "noise needs an aggregator whose noise is proven; this version adds none": self.noise_multiplier != 0.0,
            f"the metric {self.metric!r} is not known, or has another number of counts": (
                self.metric not in METRICS or METRICS[self.metric].size != self.metric_size
            ),
            f"the weight rule {self.weight_rule!r} is not known": self.weight_rule not in WEIGHT_RULES,
            f"the sensitivity {self.sensitivity!r} is not known": self.sensitivity not in SENSITIVITIES,
            "a training does not start from a version of its own": (
                start is not None and start.training_id == self.training_id
            ),
        }
        for name in PARTS:
            refusals |= getattr(self, name).refusals()
        _refuse(refusals)
        _refuse(self._mixtures() | self._below_sensitivity())
        check_settings(self.server_optimiser)
        return self

    def _mixtures(self) -> dict[str, bool]:
        """What known parts cannot promise together; the reason names both."""
        protection, aggregator = PROTECTIONS[self.protection], AGGREGATORS[self.aggregator]
        cohort = self.cohort
        return {
            f"the aggregator {self.aggregator!r} needs to see {aggregator.needs} updates, "
            f"and the protection {self.protection!r} shows the server only their sum": (
                aggregator.needs not in protection.reveals
            ),
            f"a hospital's own metric cannot be released: the protection {self.protection!r} shows only sums": (
                self.release.hospital_metrics and View.INDIVIDUAL not in protection.reveals
            ),
            "the fixed-point step would be too coarse for this cohort: use a 64-bit ring": (
                2 ** (self.ring_bits - 1) < self.cohort_bound / COARSEST_STEP
            ),
            "the size of a draw lies between the quorum, or no round could publish, and the cohort bound": (
                cohort.rule == "draw" and not self.quorum <= cohort.size <= self.cohort_bound
            ),
            "the weight cap and the cohort bound leave room for fewer patients than the k-minimum asks for": (
                self.weight_rule == "examples" and self.cohort_bound * self.weight_cap < self.k_patients
            ),
            "the cohort names fewer hospitals than the k-minimum asks for": (
                cohort.rule == "sites" and len(cohort.sites) < self.k_hospitals
            ),
            "a privacy budget needs noise that spends it: without noise there is no epsilon to promise": (
                self.privacy.epsilon is not None and self.noise_multiplier == 0.0
            ),
        }

    def _below_sensitivity(self) -> dict[str, bool]:
        """What the data's sensitivity asks and the plan does not give."""
        asked = SENSITIVITIES[self.sensitivity]
        release, least = self.release, asked.release_patients
        return {
            f"{asked.name} data may not be sealed with the suite {self.suite!r}": self.suite not in asked.suites,
            f"{asked.name} data need a k-minimum of {asked.k_hospitals} hospitals and {asked.k_patients} patients": (
                self.k_hospitals < asked.k_hospitals or self.k_patients < asked.k_patients
            ),
            f"hospitals' own metrics of {asked.name} data are never released": (
                release.hospital_metrics and least is None
            ),
            f"hospitals' own metrics of {asked.name} data need at least {least} patients in each class": (
                release.hospital_metrics and least is not None and release.patients_per_class < least
            ),
        }

    def to_bytes(self) -> bytes:
        """Deterministic CBOR, at most ``PLAN_LIMIT_BYTES``."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        fields["layout"] = self.layout.to_wire()
        for name in PARTS:
            fields[name] = getattr(self, name).to_wire()
        for name in ("trainer", "initial", "server_optimiser"):
            fields[name] = dict(fields[name])
        for name in ("clip_norm", "weight_cap", "noise_multiplier"):
            fields[name] = float(fields[name])
        return canonical.encode({"type": "plan", "v": 1, **fields})

    @property
    def start(self) -> NamedVersion | None:
        """The version of another training that this one starts from; None if its start follows from the plan.

        Raises:
            IncompatiblePlanError: ``initial`` names a version in a form that is none.
        """
        return NamedVersion.from_initial(self.initial)

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for this plan everywhere."""
        return plan_digest(self.to_bytes())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read a plan and check its form, not its signature; call ``validate`` for its sense.

        Raises:
            MalformedMessageError, MessageTooLargeError: not the canonical bytes of a plan.
        """
        fields = Fields(canonical.decode(raw, limit_bytes=PLAN_LIMIT_BYTES), "plan")
        if fields.text("type") != "plan" or fields.integer("v", 1, 1) != 1:
            raise MalformedMessageError("not a plan of version 1")
        plan = cls(
            training_id=fields.text("training_id"),
            federation_id=fields.text("federation_id"),
            title=fields.text("title"),
            job=fields.text("job"),
            trainer=fields.map("trainer"),
            layout=TensorLayout.from_wire(fields.list("layout")),
            initial=fields.map("initial"),
            rounds=fields.integer("rounds", 0, 2**31),
            suite=fields.text("suite"),
            protection=fields.text("protection"),
            aggregator=fields.text("aggregator"),
            server_optimiser=fields.map("server_optimiser"),
            clip_norm=fields.number("clip_norm"),
            weight_rule=fields.text("weight_rule"),
            weight_cap=fields.number("weight_cap"),
            sensitivity=fields.text("sensitivity"),
            cohort=CohortRule.from_wire(fields.map("cohort")),
            cohort_bound=fields.integer("cohort_bound", 0, 2**31),
            ring_bits=fields.integer("ring_bits", 0, 64),
            quorum=fields.integer("quorum", 0, 2**31),
            k_hospitals=fields.integer("k_hospitals", 0, 2**31),
            k_patients=fields.integer("k_patients", 0, 2**31),
            noise_multiplier=fields.number("noise_multiplier"),
            privacy=PrivacyBudget.from_wire(fields.map("privacy")),
            metric=fields.text("metric"),
            metric_size=fields.integer("metric_size", 0, 65_536),
            release=MetricRelease.from_wire(fields.map("release")),
            evaluate_last=fields.boolean("evaluate_last"),
            stop=StopRule.from_wire(fields.map("stop")),
            budget=Budget.from_wire(fields.map("budget")),
            stage_seconds=StageSeconds.from_wire(fields.map("stage_seconds")),
            stragglers=StragglerRule.from_wire(fields.map("stragglers")),
            created_at=fields.integer("created_at", 0, 2**53),
        )
        fields.end()
        return plan


def plan_digest(raw: bytes) -> bytes:
    """The digest of a plan's canonical bytes (32 bytes)."""
    return canonical.digest("latticeward/plan/v1", raw)


def _refuse(refusals: Mapping[str, bool]) -> None:
    for reason, refused in refusals.items():
        if refused:
            raise IncompatiblePlanError(reason)
