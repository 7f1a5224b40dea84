"""The comparison of a finished training with what each hospital could have reached alone, as rows. Pure.

The numbers are computed outside the server, on the same split, and reported by an operator's tool:
``{"metric", "pooled", "central", "single": {hospital: value}, "test_examples": {hospital: n}, "warnings": {hospital:
sentence}}``; the last two may be missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from frontend.words import metric_name


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the comparison; ``kind`` is federated, central or single."""

    label: str
    value: float
    kind: str
    hospital: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All lines, the federated result first, then central training, then the hospitals by name."""

    metric: str
    bars: tuple[Bar, ...]

    @property
    def sentence(self) -> str:
        """The outcome in words, without praise: who is above, by how much."""
        federated = next((bar for bar in self.bars if bar.kind == "federated"), None)
        if federated is None:
            return ""
        name = metric_name(self.metric)
        parts = [f"The federated model reaches {name} {federated.value:.3f}"]
        singles = [bar for bar in self.bars if bar.kind == "single"]
        if singles:
            best = max(singles, key=lambda bar: bar.value)
            parts.append(f"the best hospital alone, {best.hospital}, {best.value:.3f}")
        central = next((bar for bar in self.bars if bar.kind == "central"), None)
        if central is not None:
            parts.append(f"central training on all data {central.value:.3f}")
        return "; ".join(parts) + "."

    @property
    def warnings(self) -> tuple[Bar, ...]:
        return tuple(bar for bar in self.bars if bar.warning)


def read_comparison(stored: Mapping[str, Any] | None) -> Comparison | None:
    """Rows from the stored numbers; None if there are none to show."""
    if not stored:
        return None
    warnings = stored.get("warnings") or {}
    bars = []
    if isinstance(stored.get("pooled"), int | float):
        bars.append(Bar("Federated, all hospitals", float(stored["pooled"]), "federated"))
    if isinstance(stored.get("central"), int | float):
        bars.append(Bar("Central, all data in one place", float(stored["central"]), "central"))
    for hospital, value in sorted((stored.get("single") or {}).items()):
        if isinstance(value, int | float):
            bars.append(Bar(f"{hospital} alone", float(value), "single", hospital, str(warnings.get(hospital, ""))))
    return Comparison(str(stored.get("metric", "auc")), tuple(bars)) if bars else None
