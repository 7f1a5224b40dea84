"""Charts that need no script, as SVG text: the quorum bar, the comparison's bars, the change of tensors.

They use percentages instead of a view box, so that they fill any width while letters keep their size, and classes
instead of style attributes, which the content security policy forbids. Every chart carries a text for those who do not
see it; the table beside it holds the same numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from frontend.comparison import Bar
from frontend.sentences import say_share

# Room to the right of the longest bar for its value.
_FULL_WIDTH: Final = 84.0
_ROW_PX: Final = 46
# A classifier that guesses has this value: bars begin there, so that their length is what was learned.
_CHANCE: Final = {"auc": 0.5}


def quorum_bar(*, accepted: int, quorum: int, total: int) -> SafeString:
    """Updates counted, with two marks: the quorum and the total. Quorum is not total."""
    top = max(total, quorum, accepted, 1)
    slots = format_html_join(
        "",
        '<rect class="{}" x="{}%" y="22" width="{}%" height="16" rx="3"></rect>',
        (
            ("slot-filled" if place < accepted else "slot", _number(place * 100 / top), _number(100 / top - 0.6))
            for place in range(min(top, 64))
        ),
    )
    quorum_at, together = _number(quorum * 100 / top), quorum == top
    anchor = "end" if quorum > top / 2 else "start"
    quorum_mark = format_html(
        '<line class="mark mark-quorum" x1="{0}%" x2="{0}%" y1="16" y2="44"></line>'
        '<text class="mark-text" x="{0}%" y="11" dx="{1}" text-anchor="{2}">{3}</text>',
        quorum_at if not together else "99.7",
        "0",
        anchor,
        f"quorum {quorum}, total {total}" if together else f"quorum {quorum}",
    )
    total_mark = format_html(
        '<line class="mark" x1="99.7%" x2="99.7%" y1="16" y2="44"></line>'
        '<text class="mark-text" x="100%" y="58" text-anchor="end">total {}</text>',
        total,
    )
    return format_html(
        '<svg class="chart-svg" width="100%" height="62" role="img" aria-label="{}">{}{}{}</svg>',
        f"{accepted} of {total} updates counted; the quorum is {quorum}",
        slots,
        quorum_mark,
        "" if together else total_mark,
    )


def comparison_bars(bars: Sequence[Bar], *, metric: str) -> SafeString:
    """One bar a line, label above, value behind; bars begin at chance level where there is one."""
    lowest = min((bar.value for bar in bars), default=0.0)
    start = _CHANCE.get(metric, 0.0)
    if lowest < start:
        start = math.floor(lowest * 10) / 10
    rows = format_html_join(
        "",
        '<text class="bar-label" x="0" y="{}">{}</text>'
        '<rect class="bar bar-{}" x="0" y="{}" width="{}%" height="16" rx="3"></rect>'
        '<text class="bar-value" x="{}%" y="{}" dx="6">{}</text>',
        (
            (
                place * _ROW_PX + 14,
                bar.label,
                bar.kind,
                place * _ROW_PX + 20,
                _number(_length(bar.value, start)),
                _number(_length(bar.value, start)),
                place * _ROW_PX + 33,
                f"{bar.value:.3f}",
            )
            for place, bar in enumerate(bars)
        ),
    )
    foot = len(bars) * _ROW_PX + 12
    axis = format_html(
        '<text class="mark-text" x="0" y="{0}">{1}</text>'
        '<text class="mark-text" x="{2}%" y="{0}" text-anchor="end">1</text>',
        foot,
        f"{start:g} (chance)" if start == _CHANCE.get(metric) else f"{start:g}",
        _number(_FULL_WIDTH),
    )
    said = "; ".join(f"{bar.label} {bar.value:.3f}" for bar in bars)
    return format_html(
        '<svg class="chart-svg" width="100%" height="{}" role="img" aria-label="{}">{}{}</svg>',
        foot + 6,
        said,
        rows,
        axis,
    )


def tensor_bars(tensors: Sequence[Mapping[str, Any]]) -> SafeString:
    """One bar a tensor: its relative change (norm of the change by norm before), or its norm where that was zero.

    The longest bar is the tensor that changed most; a tensor without a counterpart has no bar and says why.
    """
    sizes = [row["relative"] if row["relative"] is not None else row["l2"] or 0.0 for row in tensors]
    top = max(sizes, default=0.0) or 1.0
    rows = format_html_join(
        "",
        '<text class="bar-label" x="0" y="{}">{}</text>'
        '<rect class="bar bar-{}" x="0" y="{}" width="{}%" height="16" rx="3"></rect>'
        '<text class="bar-value" x="{}%" y="{}" dx="6">{}</text>',
        (
            (
                place * _ROW_PX + 14,
                row["name"],
                "federated" if row["change"] == "changed" else "single",
                place * _ROW_PX + 20,
                _number(max(0.4, size / top * _FULL_WIDTH)),
                _number(max(0.4, size / top * _FULL_WIDTH)),
                place * _ROW_PX + 33,
                _say_change(row),
            )
            for place, (row, size) in enumerate(zip(tensors, sizes, strict=True))
        ),
    )
    said = "; ".join(f"{row['name']} {_say_change(row)}" for row in tensors)
    return format_html(
        '<svg class="chart-svg" width="100%" height="{}" role="img" aria-label="{}">{}</svg>',
        len(tensors) * _ROW_PX + 4,
        said,
        rows,
    )


def _say_change(row: Mapping[str, Any]) -> str:
    if row["change"] != "changed":
        return str(row["change"])
    if row["relative"] is None:
        return f"{row['l2']:.3g} from zero"
    return say_share(row["relative"])


def _length(value: float, start: float) -> float:
    return max(0.4, (value - start) / (1 - start) * _FULL_WIDTH)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
