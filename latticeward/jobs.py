"""The learning jobs as both ends know them: the model's shape and the committed defaults, and no data.

The server plans from these lines and never imports ``latticeward.agent``; the agent adds the loading of its
own site's rows (``agent/jobs``). A job is a line here and a file there. Learning rates, epochs and clip norms
were chosen by the pooled AUC on the split of seed 7 and are part of the job: a run needs no tuning and can be
repeated, and its AUC is a little more hopeful than on patients whom no choice was made on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from latticeward.updates.tensors import TensorLayout, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One learning job.

    Attributes:
        name: as in the plan.
        title: as shown to people.
        sites: slugs of the hospitals whose rows the job knows.
        metric: a name of ``updates.metrics.METRICS``.
        trainer: a name of ``agent.trainers.TRAINERS``.
        needs_torch: whether an agent needs PyTorch for it.
        layout: the tensors behind the flat vector, d numbers.
        initial: how version 0 of the model is made (``updates.tensors.initial_vector``).
        default_plan: fields of ``RoundPlan`` that the job proposes; an operator may override them.
    """

    name: str
    title: str
    sites: tuple[str, ...]
    metric: str
    trainer: str
    needs_torch: bool
    layout: TensorLayout
    initial: Mapping[str, int | str]
    default_plan: Mapping[str, Any]


HEART_FEATURES: Final = 35
THYROID_FEATURES: Final = 27
WATCH_CHANNELS: Final = 6
# Samples of a window: four seconds at 25 Hz.
WATCH_WINDOW: Final = 100

HEART: Final = JobSpec(
    name="heart",
    title="Heart disease, four hospitals",
    sites=("cleveland", "hungary", "switzerland", "va-long-beach"),
    metric="auc",
    trainer="numpy_linear",
    needs_torch=False,
    layout=TensorLayout((TensorSpec("weight", (HEART_FEATURES,)), TensorSpec("bias", (1,)))),
    initial=MappingProxyType({"kind": "zeros"}),
    default_plan=MappingProxyType(
        {
            "rounds": 15,
            # No hospital has 512 training rows, so a round is one step on all of them. These hospitals differ so much
            # (6 to 64 % healthy) that longer local runs pull apart and end lower; raise the epochs to see it.
            "trainer": MappingProxyType(
                {"epochs": 1, "batch_size": 512, "learning_rate": 2.0, "l2": 0.01, "proximal_mu": 0.0}
            ),
            "server_optimiser": MappingProxyType({"name": "fedavg"}),
            "clip_norm": 4.0,
            "weight_cap": 400.0,
            "cohort_bound": 16,
            "ring_bits": 32,
            "quorum": 3,
            "k_hospitals": 3,
            "k_patients": 10,
        }
    ),
)

THYROID: Final = JobSpec(
    name="thyroid",
    title="Thyroid conditions, four referral sites",
    sites=("svi", "svhc", "stmw", "other"),
    metric="auc",
    trainer="torch_mlp",
    needs_torch=True,
    layout=TensorLayout(
        (
            TensorSpec("hidden1.weight", (THYROID_FEATURES, 64)),
            TensorSpec("hidden1.bias", (64,)),
            TensorSpec("hidden2.weight", (64, 32)),
            TensorSpec("hidden2.bias", (32,)),
            TensorSpec("output.weight", (32, 1)),
            TensorSpec("output.bias", (1,)),
        )
    ),
    initial=MappingProxyType({"kind": "glorot", "seed": 7}),
    default_plan=MappingProxyType(
        {
            "rounds": 20,
            "trainer": MappingProxyType(
                {"epochs": 1, "batch_size": 64, "learning_rate": 0.003, "l2": 0.0, "proximal_mu": 0.0}
            ),
            "server_optimiser": MappingProxyType({"name": "fedavg"}),
            "clip_norm": 8.0,
            "weight_cap": 4000.0,
            "cohort_bound": 16,
            "ring_bits": 32,
            "quorum": 3,
            "k_hospitals": 3,
            "k_patients": 10,
        }
    ),
)

WATCH: Final = JobSpec(
    name="watch",
    title="Shoulder exercises by smartwatch, four clinics",
    sites=("harbour-clinic", "meadow-clinic", "hill-clinic", "river-clinic"),
    metric="accuracy",
    trainer="torch_cnn",
    needs_torch=True,
    layout=TensorLayout(
        (
            TensorSpec("conv1.weight", (32, WATCH_CHANNELS, 5)),
            TensorSpec("conv1.bias", (32,)),
            TensorSpec("conv2.weight", (64, 32, 5)),
            TensorSpec("conv2.bias", (64,)),
            TensorSpec("conv3.weight", (64, 64, 5)),
            TensorSpec("conv3.bias", (64,)),
            TensorSpec("output.weight", (64, 7)),
            TensorSpec("output.bias", (7,)),
        )
    ),
    initial=MappingProxyType({"kind": "glorot", "seed": 7}),
    default_plan=MappingProxyType(
        {
            "rounds": 20,
            "trainer": MappingProxyType(
                {"epochs": 1, "batch_size": 32, "learning_rate": 0.003, "l2": 0.0, "proximal_mu": 0.0}
            ),
            "server_optimiser": MappingProxyType({"name": "fedavg"}),
            "clip_norm": 8.0,
            "weight_cap": 2000.0,
            "cohort_bound": 16,
            "ring_bits": 32,
            "quorum": 3,
            "k_hospitals": 3,
            "k_patients": 10,
        }
    ),
)

JOB_SPECS: Final[Mapping[str, JobSpec]] = MappingProxyType({spec.name: spec for spec in (HEART, THYROID, WATCH)})
