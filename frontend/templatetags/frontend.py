"""Tags of the pages: icons, states, times, charts, and the import map with the page's nonce."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django import template
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from controlplane.permissions import roles_of
from frontend.charts import bars
from frontend.comparison import Bar, Comparison
from frontend.sentences import name_round, say_duration, say_share
from frontend.views.access import EVERY_ROLE, KEY_READERS
from frontend.words import Word, metric_name, sentence_of_code, word_of
from latticeward.crypto.suites import Suite
from rounds.registry.selectors import AtHospital

register = template.Library()

_MODULES: Final = {"live": "frontend/live.js"}
# Address name, word, icon, and who may open it; a page below an entry counts as that entry.
_NAVIGATION: Final = (
    ("overview", "Overview", "home", EVERY_ROLE),
    ("trainings", "Trainings", "rounds", EVERY_ROLE),
    ("models", "Models", "model", EVERY_ROLE),
    ("devices", "Devices", "device", KEY_READERS),
    ("keys", "Keys", "key", KEY_READERS),
    ("ledger", "Ledger", "ledger", KEY_READERS),
)
_BELOW: Final = {
    "training": "trainings",
    "training-new": "trainings",
    "round": "trainings",
    "round-account": "trainings",
    "key": "keys",
    "model": "models",
    "model-difference": "models",
    **dict.fromkeys(
        (
            "claims",
            "claim-order",
            "claim-bulk",
            "sites",
            "site",
            "device-classes",
            "device-class",
            "rotations",
            "rotation",
        ),
        "devices",
    ),
}
# The pages about who may take part, as tabs of one place.
_FLEET: Final = (
    ("devices", "Devices"),
    ("claims", "Claim codes"),
    ("sites", "Hospitals"),
    ("device-classes", "Device classes"),
    ("rotations", "Keys and suites"),
)
_FLEET_BELOW: Final = {
    "claim-order": "claims",
    "claim-bulk": "claims",
    "site": "sites",
    "device-class": "device-classes",
    "rotation": "rotations",
}


@register.simple_tag(takes_context=True)
def importmap(context: dict[str, Any]) -> SafeString:
    """Module names to addresses, each through ``static`` (a folder prefix would miss hashed names)."""
    imports = {name: static(path) for name, path in _MODULES.items()}
    # "<" cannot end the script element early once it is written as an escape.
    text = json.dumps({"imports": imports}).replace("<", "\\u003c")
    request = context["request"]
    return format_html(
        '<script type="importmap" nonce="{}">{}</script>',
        request.csp_nonce,
        mark_safe(text),  # noqa: S308 - our own addresses, escaped above
    )


@register.simple_tag(takes_context=True)
def navigation(context: dict[str, Any]) -> list[dict[str, object]]:
    """The entries that this person may open."""
    request = context["request"]
    here = request.resolver_match.url_name if request.resolver_match else ""
    return [
        {"url": reverse(name), "text": text, "icon": shape, "here": _BELOW.get(here, here) == name}
        for name, text, shape, allowed in _NAVIGATION
        if roles_of(request.user) & set(allowed)
    ]


@register.simple_tag(takes_context=True)
def fleet_tabs(context: dict[str, Any]) -> list[dict[str, object]]:
    """Devices, claim codes, hospitals, classes: all for the same roles."""
    match = context["request"].resolver_match
    here = match.url_name if match else ""
    return [{"url": reverse(name), "text": text, "here": _FLEET_BELOW.get(here, here) == name} for name, text in _FLEET]


@register.simple_tag(takes_context=True)
def role_names(context: dict[str, Any]) -> str:
    """The person's roles in words."""
    return ", ".join(sorted(roles_of(context["request"].user))) or "no role yet"


@register.simple_tag
def icon(name: str) -> SafeString:
    """A shape of the sprite in ``icons.html``; decoration only, a word always stands beside it."""
    return format_html('<svg class="icon" aria-hidden="true" focusable="false"><use href="#i-{}"></use></svg>', name)


@register.simple_tag
def state(word: Word | str, table: str = "") -> SafeString:
    """A state as word, shape and colour; the plain sentence is its tooltip."""
    row = word_of(table, word) if isinstance(word, str) else word
    return format_html(
        '<span class="state state-{}" title="{}">{}{}</span>', row.tone, row.sentence, icon(row.icon), row.text
    )


@register.simple_tag
def ago(moment: datetime | None, never: str = "never", zone: str = "UTC") -> SafeString:
    """A time relative to now, with the absolute one in a hospital's zone as tooltip; ``live.js`` keeps it fresh."""
    if moment is None:
        return format_html("{}", never)
    return format_html(
        '<time datetime="{}" title="{}" data-ago>{} ago</time>',
        moment.isoformat(),
        _there(moment, zone).strftime("%Y-%m-%d %H:%M:%S %Z"),
        say_duration(timezone.now() - moment),
    )


@register.simple_tag
def clock(moment: datetime | None, zone: str = "UTC", never: str = "never") -> SafeString:
    """A time as the clock of a hospital shows it, with its zone; the tooltip is UTC."""
    if moment is None:
        return format_html("{}", never)
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        moment.isoformat(),
        moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        _there(moment, zone).strftime("%d %b %Y, %H:%M %Z"),
    )


def _there(moment: datetime, zone: str) -> datetime:
    # A zone that a later release of the data dropped must not close the page.
    try:
        return moment.astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        return moment.astimezone(UTC)


@register.filter
def meaning(code: str) -> str:
    """The plain sentence of a refusal or failure code."""
    return sentence_of_code(code)


@register.filter(name="metric_name")
def say_metric_name(metric: str) -> str:
    """The metric's name as people say it."""
    return metric_name(metric)


@register.filter(name="round_name")
def say_round_name(kind: str, number: int) -> str:
    """A round's name."""
    return name_round(kind, number)


@register.filter
def suite_parts(suite: Suite) -> str:
    """The algorithms of a suite in one line."""
    return f"{suite.kem}, {suite.body}, {suite.signature}"


@register.filter
def unlocalised(value: float) -> str:
    """A number as a program reads it, whatever the language of the page."""
    return repr(float(value))


@register.filter
def hexadecimal(value: bytes) -> str:
    """Bytes as lower-case hex."""
    return bytes(value).hex()


@register.filter(name="base64")
def in_base64(value: str) -> str:
    """A text for a ``data:`` address."""
    return base64.b64encode(value.encode()).decode("ascii")


# What may stand before a column's name, up to a colon, and what the head then looks like.
_HEADS: Final = {
    "": '<th scope="col" role="columnheader">{}</th>',
    "number": '<th scope="col" role="columnheader" class="number">{}</th>',
    "hidden": '<th scope="col" role="columnheader"><span class="visually-hidden">{}</span></th>',
}


@register.simple_tag
def column_heads(*columns: str) -> SafeString:
    """The head of a list: a name for each column, as ``number:Devices`` where numbers stand in it."""
    parted = (column.rpartition(":") for column in columns)
    heads = [format_html(_HEADS[kind], name) for kind, _, name in parted]
    # The roles stay said: on a narrow screen the style sheet stacks the rows, and browsers forget that it is a table.
    return format_html('<thead role="rowgroup"><tr role="row">' + "{}" * len(heads) + "</tr></thead>", *heads)


@register.simple_tag
def quorum_bar(accepted: int, quorum: int, total: int) -> SafeString:
    """The bar with two marks."""
    return bars.quorum_bar(accepted=accepted, quorum=quorum, total=total)


@register.simple_tag
def comparison_bars(comparison: Comparison) -> SafeString:
    """The comparison as bars."""
    return bars.comparison_bars(comparison.bars, metric=comparison.metric)


@register.simple_tag
def tensor_bars(tensors: list[dict[str, Any]]) -> SafeString:
    """How much each tensor changed, as bars."""
    return bars.tensor_bars(tensors)


@register.simple_tag
def hospital_bars(rows: Sequence[AtHospital], metric: str) -> SafeString:
    """A version's metric at each hospital that may be shown."""
    shown = [Bar(row.hospital, row.value, "single", row.hospital) for row in rows]
    return bars.comparison_bars(shown, metric=metric)


@register.filter
def short_digest(value: bytes) -> str:
    """The first twelve hexadecimal digits of a digest; the whole one stands on the version's page."""
    return bytes(value).hex()[:12]


@register.filter
def shape(sides: list[int] | None) -> str:
    """A tensor's shape, such as "27 x 64"; a dash where there is none."""
    if sides is None:
        return "\u2013"
    return " \u00d7 ".join(str(side) for side in sides) or "1"


@register.filter
def percent(share: float) -> str:
    """A share of one in per cent."""
    return say_share(share)
