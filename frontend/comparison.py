"""The comparison of a finished training with training alone and with central training, as rows. Pure.

The numbers are computed outside the server, on the same split, and reported by an operator's tool. Every bar is a
model measured on the held-out patients of all hospitals together, so that the bars can be compared; ``by_site`` is
another question: how the federated model does at each hospital.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from frontend.words import metric_name


@dataclass(frozen=True, slots=True)
class Bar:
    """One model; ``kind`` is federated, central or single (then ``hospital`` is the one that trained it)."""

    label: str
    value: float
    kind: str
    hospital: str = ""


@dataclass(frozen=True, slots=True)
class AtHospital:
    """The federated model on one hospital's own held-out patients; no value where they are all of one class."""

    hospital: str
    value: float | None
    examples: int | None
    small_sample: bool

    @property
    def warning(self) -> str:
        if self.value is None:
            return "No value: its held-out patients are all of one class."
        if self.small_sample:
            return "Small sample: fewer than ten held-out patients in one class, so one patient moves it by points."
        return ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The federated result first, then central training, then the hospitals alone by name."""

    metric: str
    bars: tuple[Bar, ...]
    at_hospitals: tuple[AtHospital, ...]

    @property
    def sentence(self) -> str:
        """The outcome in numbers."""
        parts = []
        name = metric_name(self.metric)
        by_kind = {bar.kind: bar for bar in self.bars}
        if "federated" in by_kind:
            parts.append(f"The federated model reaches {name} {by_kind['federated'].value:.3f}")
        singles = [bar for bar in self.bars if bar.kind == "single"]
        if singles:
            best = max(singles, key=lambda bar: bar.value)
            parts.append(f"the best hospital alone, {best.hospital}, {best.value:.3f}")
        if "central" in by_kind:
            parts.append(f"central training on all rows {by_kind['central'].value:.3f}")
        return "; ".join(parts) + "."


def read_comparison(stored: Mapping[str, Any] | None, names: Mapping[str, str]) -> Comparison | None:
    """Rows from the stored numbers; None if there are none to show.

    Args:
        stored: ``{"metric", "pooled", "central", "single": {site: value}, "by_site": {site: {"value", "examples",
            "small_sample"}}}``; any part may be missing.
        names: names of hospitals by the site's slug.
    """
    if not stored:
        return None
    bars = []
    for key, label, kind in (
        ("pooled", "All hospitals, federated", "federated"),
        ("central", "All rows in one place (central)", "central"),
    ):
        if isinstance(stored.get(key), int | float):
            bars.append(Bar(label, float(stored[key]), kind))
    for hospital, value in _named(stored.get("single"), names):
        if isinstance(value, int | float):
            bars.append(Bar(f"{hospital} alone", float(value), "single", hospital))
    at_hospitals = tuple(
        AtHospital(
            hospital=hospital,
            value=None if found.get("value") is None else float(found["value"]),
            examples=found.get("examples"),
            small_sample=bool(found.get("small_sample")),
        )
        for hospital, found in _named(stored.get("by_site"), names)
        if isinstance(found, Mapping)
    )
    return Comparison(str(stored.get("metric", "auc")), tuple(bars), at_hospitals) if bars else None


def _named(values: Mapping[str, Any] | None, names: Mapping[str, str]) -> list[tuple[str, Any]]:
    named = ((names.get(site, site), value) for site, value in (values or {}).items())
    return sorted(named, key=lambda row: row[0])
