"""Whether federation was worth it: the final model beside each hospital alone and beside central training."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.board import Scene, name_of
from bench.references import evaluate_vector, reference_results
from latticeward.jobs import JOB_SPECS
from latticeward.updates.tensors import FloatVector


def newest_model(home: Path, *, training: str) -> tuple[int, FloatVector] | None:
    """The number and vector of the newest model that an agent has stored; None if it is of another training."""
    try:
        with np.load(home / "model.npz", allow_pickle=False) as arrays:
            if str(arrays["training_id"]) != training:
                return None
            return int(arrays["number"]), arrays["vector"]
    except (OSError, KeyError, ValueError):
        return None


def compare(job: str, vector: FloatVector) -> dict[str, Any]:
    """Exact figures of the final model and of the references, on the same test rows."""
    return {"metric": JOB_SPECS[job].metric, **evaluate_vector(job, vector), **reference_results(job)}


def medians(scene: Scene) -> dict[str, Any]:
    """Times of the published training rounds: whole, after the last update, and stage by stage in milliseconds."""
    rounds = [row for row in scene.rounds if row["state"] == "published" and row["kind"] == "training"]
    stages: dict[str, list[float]] = {}
    for row in rounds:
        for measured in (row["stage_seconds"], *(participant["stage_seconds"] for participant in row["participants"])):
            for stage, seconds in measured.items():
                stages.setdefault(stage, []).append(1000 * seconds)
    return {
        "seconds_per_round_median": _median([row["seconds"] for row in rounds]),
        "seconds_last_update_to_published_median": _median([row["seconds_last_update_to_published"] for row in rounds]),
        "stage_milliseconds_median": {stage: round(statistics.median(values), 3) for stage, values in stages.items()},
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 4) if known else None


def print_comparison(console: Console, comparison: Mapping[str, Any], *, rounds: int) -> None:
    """The table that a person reads at the end."""
    metric = str(comparison["metric"]).upper()
    pooled = comparison["pooled"]
    table = Table(title=f"Pooled {metric} on the hospitals' held-out patients", title_justify="left")
    table.add_column("trained on")
    table.add_column(metric, justify="right")
    table.add_column("against federated", justify="right")
    table.add_row(f"[bold]all hospitals, federated ({rounds} rounds)", f"[bold]{pooled:.3f}", "")
    central = comparison["central"]
    table.add_row("all rows in one place (central)", f"{central:.3f}", _gap(central, pooled))
    for site, value in comparison["single"].items():
        table.add_row(f"{name_of(site)} alone", f"{value:.3f}", _gap(value, pooled))
    console.print(table)
    parts = []
    for site, found in comparison["by_site"].items():
        if found["value"] is not None:
            warning = " (small sample: one patient moves it by points)" if found["small_sample"] else ""
            parts.append(f"{name_of(site)} {found['value']:.3f}{warning}")
    console.print(f"The federated model at each hospital: {'; '.join(parts)}.", soft_wrap=True)


def _gap(value: float, pooled: float) -> str:
    return f"{value - pooled:+.3f}"
