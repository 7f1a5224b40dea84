"""Curves by round as an SVG picture that needs no script and reads on light and dark pages alike. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final

WIDTH, HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 186, 48, 40
_LABEL_HEIGHT: Final = 15.0
_STYLE: Final = """
  .page { fill: #ffffff } .grid { stroke: #d8dee4 } text { fill: #24292f; font: 12px system-ui, sans-serif }
  .title { font-size: 15px; font-weight: 600 } .axis { fill: #57606a }
  polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round }
  .federated { stroke: #0b66c3; stroke-width: 3 } text.federated { fill: #0b66c3; stroke: none; font-weight: 600 }
  .central { stroke: #57606a; stroke-dasharray: 7 4 } text.central { stroke: none }
  .single { stroke: #b35900; stroke-dasharray: 2 3 } text.single { fill: #b35900; stroke: none }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .grid { stroke: #30363d } text { fill: #e6edf3 } .axis { fill: #9198a1 }
    .federated { stroke: #58a6ff } text.federated { fill: #58a6ff } .central { stroke: #9198a1 }
    .single { stroke: #f0a04b } text.single { fill: #f0a04b }
  }
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: what it is called, its kind (federated, central or single) and its value after each round."""

    name: str
    kind: str
    values: Sequence[float]


def draw(curves: Sequence[Curve], *, title: str, unit: str) -> str:
    """The picture, with a description of its last values for those who cannot see it.

    Args:
        curves: at least one, all of the same length, at least 2; the first is named first at the right.
        unit: of the values, as people say it.
    """
    low, high = _range([value for curve in curves for value in curve.values])
    rounds = len(curves[0].values)

    def place(index: int, value: float) -> tuple[float, float]:
        across = _LEFT + (WIDTH - _LEFT - _RIGHT) * index / (rounds - 1)
        return across, _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    parts = [f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="6"/>']
    parts.append(f'<text class="title" x="{_LEFT}" y="26">{escape(title)}</text>')
    step = 0.05 if high - low <= 0.5 else 0.1
    for tick in range(round(low / step), round(high / step) + 1):
        _, y = place(0, tick * step)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick * step:.2f}</text>')
    for number in sorted({1, *range(5, rounds + 1, 5), rounds}):
        x, _ = place(number - 1, low)
        parts.append(f'<text class="axis" x="{x:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{number}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">rounds</text>')
    # The thick line last, so that it lies on top.
    for curve in reversed(curves):
        points = " ".join("{:.1f},{:.1f}".format(*place(index, value)) for index, value in enumerate(curve.values))
        parts.append(f'<polyline class="{curve.kind}" points="{points}"/>')
    heights = _spread([place(0, curve.values[-1])[1] for curve in curves])
    for curve, y in zip(curves, heights, strict=True):
        label = f"{curve.name} {curve.values[-1]:.3f}"
        parts.append(f'<text class="{curve.kind}" x="{WIDTH - _RIGHT + 8}" y="{y + 4:.1f}">{escape(label)}</text>')
    said = "; ".join(f"{curve.name} {curve.values[-1]:.3f}" for curve in curves)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    told = f"<title>{escape(title)}</title><desc>{escape(unit)} after {rounds} rounds: {escape(said)}</desc>"
    return "\n".join([head, told, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Whole twentieths around the values."""
    low, high = int(min(values) * 20) / 20, -int(-max(values) * 20 // 1) / 20
    return low, max(high, low + 0.05)


def _spread(heights: Sequence[float]) -> list[float]:
    """The same heights, moved as little as needed for labels not to lie on each other."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + _LABEL_HEIGHT)
    over = placed[order[-1]] - (HEIGHT - _BOTTOM)
    for index in reversed(order):
        if over <= 0:
            break
        placed[index] -= over
        later = [placed[other] for other in order[: order.index(index)]]
        over = max(later, default=0.0) + _LABEL_HEIGHT - placed[index]
    return placed
