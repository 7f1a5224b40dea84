"""Each job's metric by round, drawn: federated beside all rows in one place and each hospital alone.

`./ward bench curves` trains them anew and writes `docs/img/curve-<job>.svg`. Updates pass clipping and the ring as in
a round, without keys and server, which change no bit of a model (``tests/rounds/test_reference.py``).
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.board import name_of
from bench.chart import Curve, draw
from bench.federation import run_federation
from bench.references import evaluate_vector, reference_vectors
from latticeward.agent.jobs import JOBS
from latticeward.updates.metrics import METRICS

PICTURES: Final = Path(__file__).parent.parent / "docs" / "img"


def run() -> Iterator[dict[str, Any]]:
    """The last value of each curve; a job whose framework is not installed is left out."""
    for name, job in JOBS.items():
        if job.needs_torch and importlib.util.find_spec("torch") is None:
            print(f"   PyTorch is not installed: {name} is left out", file=sys.stderr)
            continue
        curves = curves_of(name)
        title = METRICS[job.metric].title.removesuffix(" (binned)")
        picture = draw(curves, title=f"{job.title}: {title}", unit=title)
        (PICTURES / f"curve-{name}.svg").write_text(picture, encoding="utf-8")
        for curve in curves:
            yield {"metric": f"{name}: {curve.name}", "value": curve.values[-1], "unit": job.metric}


def curves_of(name: str) -> list[Curve]:
    """Federated, central, then the hospitals alone."""
    federated = run_federation(name, rounds=JOBS[name].default_plan["rounds"], through_ring=True).vectors
    found = [Curve("federated", "federated", [evaluate_vector(name, vector)["pooled"] for vector in federated])]
    for site, vectors in reference_vectors(name):
        values = [evaluate_vector(name, vector)["pooled"] for vector in vectors]
        found.append(Curve(f"{name_of(site)} alone" if site else "central", "single" if site else "central", values))
    return found
