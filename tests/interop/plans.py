"""Plans after section 12 of docs/protocol.md, the model that a training starts from, and contributions (14.1)."""

import math
import secrets
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from tests.interop import wire
from tests.interop.client import Device
from tests.interop.pcg64 import raw_outputs
from tests.interop.wire import require

PLAN = (
    "training_id federation_id title job trainer layout initial rounds suite protection aggregator server_optimiser"
    " clip_norm weight_rule weight_cap sensitivity cohort cohort_bound ring_bits quorum k_hospitals k_patients"
    " noise_multiplier privacy metric metric_size release evaluate_last stop budget stage_seconds stragglers created_at"
)


def assigned(device: Device, round_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plan and assignment of a round, checked against each other."""
    raw, told = device.assignment(round_id)
    plan = wire.read(raw, "plan", PLAN, 256 * 1024)
    require(all(told[name] == plan[name] for name in ("federation_id", "training_id")), "another training")
    require((plan["suite"], plan["protection"]) == ("hybrid", "sealed"), "a plan that this client cannot follow")
    return plan, told


def starting_weights(device: Device, plan: dict[str, Any]) -> bytes:
    """What the first round begins with, as little-endian float32: described by the plan, or another's version."""
    initial = plan["initial"]
    if initial["kind"] != "version":
        return version_zero(plan)
    require(initial.keys() == {"kind", "model", "training", "digest"}, "a start with other fields")
    manifest, weights = device.model(initial["model"])
    named = (initial["training"], initial["digest"])
    require((manifest["training_id"], manifest["weights_digest"]) == named, "another version than the plan names")
    return weights


def version_zero(plan: dict[str, Any]) -> bytes:
    """The model before the first round, as little-endian float32."""
    raw, weights = raw_outputs(plan["initial"].get("seed", 0)), bytearray()
    for shape in (tensor["shape"] for tensor in plan["layout"]):
        size = math.prod(shape)
        if plan["initial"]["kind"] == "zeros" or len(shape) < 2:
            weights += bytes(4 * size)
            continue
        width = math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
        for _ in range(size):
            u = (next(raw) >> 11) * 2.0**-53
            weights += struct.pack("<f", (2 * u - 1) * width)
    return bytes(weights)


def contribution(
    plan: dict[str, Any], kind: str, update: Sequence[float], examples: float, counts: Sequence[int]
) -> bytes:
    """What a device says of a round of this kind: update, weight and metric counts, as the plan's integers."""
    clip, cap, cohort, bits = (plan[name] for name in ("clip_norm", "weight_cap", "cohort_bound", "ring_bits"))
    scale = math.floor(Fraction(2 ** (bits - 1) - 1) / (cohort * Fraction(clip)))
    bound = (2 ** (bits - 1) - 1) // cohort
    share = min(examples, cap) / cap
    norm = math.hypot(*update)
    shrink = clip / norm if norm > clip else 1.0
    numbers = [
        max(-bound, min(bound, math.floor(scale * share * x * shrink + secrets.randbits(53) * 2.0**-53)))
        if kind == "training"
        else 0
        for x in update
    ]
    numbers += [min(round(share * scale * clip), bound), *counts]
    require(len(numbers) == len(update) + 1 + plan["metric_size"], "another number of counts")
    return b"".join((number % 2**bits).to_bytes(bits // 8, "little") for number in numbers)
