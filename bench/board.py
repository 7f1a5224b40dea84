"""What the demonstration shows in the terminal: steps, then one live board, or plain lines without a terminal."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from latticeward.updates.metrics import METRICS

SITE_NAMES: Final[Mapping[str, str]] = {
    "cleveland": "Cleveland",
    "hungary": "Hungary",
    "switzerland": "Switzerland",
    "va-long-beach": "VA Long Beach",
    "svi": "SVI",
    "svhc": "SVHC",
    "stmw": "STMW",
    "other": "Other sites",
    "harbour-clinic": "Harbour Clinic",
    "meadow-clinic": "Meadow Clinic",
    "hill-clinic": "Hill Clinic",
    "river-clinic": "River Clinic",
}
# Word and shape, so that colour only repeats what is said.
_STATES: Final = {
    "invited": ("○", "dim"),
    "joined": ("◐", "cyan"),
    "submitted": ("◕", "yellow"),
    "accepted": ("●", "green"),
    "rejected": ("✗", "red"),
    "dropped": ("–", "red"),
    "excluded": ("⊘", "red"),
}
_PHASES: Final = ("recruiting", "collecting", "aggregating", "published")
_BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Scene:
    """A training as the API tells it: its row, and its rounds in order."""

    training: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]

    @property
    def current(self) -> Mapping[str, Any] | None:
        """The newest round."""
        return self.rounds[-1] if self.rounds else None

    @property
    def measured(self) -> list[float]:
        """The pooled metric of each model version, as the server knows it."""
        return [entry["value"] for entry in self.training["metrics"]]

    @property
    def accepted(self) -> int:
        """Accepted updates of all rounds."""
        return sum(row["accepted"] for row in self.rounds)


class Board:
    """Progress on standard error; standard output is left to the result."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._address_lines: Sequence[str] = ()
        self._told = 0
        self._live: Live | None = None

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step of the set-up, with the seconds that it took."""
        started = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(f"  … {title}", soft_wrap=True)
        try:
            with self.console.status(title):
                yield
        except BaseException:
            self.console.print(f"  [red]✗[/] {title}", soft_wrap=True)
            raise
        self.console.print(f"  [green]✓[/] {title} ({time.monotonic() - started:.1f} s)", soft_wrap=True)

    def announce(self, *lines: str) -> None:
        """Where the pages are: said at once; the first line, which stays true, is repeated under the board."""
        self._address_lines = lines[:1]
        for line in lines:
            self.say(f"    {line}")

    def say(self, text: str, *, style: str = "") -> None:
        """One line, unwrapped, so that addresses can be copied."""
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The time in which ``show`` draws the live board."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=8) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def show(self, scene: Scene, *, seconds: float) -> None:
        """Draw the training; without a terminal, one line for each round that ended."""
        if self._live is not None:
            self._live.update(self._panel(scene, seconds))
            return
        ended = [row for row in scene.rounds if row["state"] in ("published", "failed", "aborted")]
        for row in ended[self._told :]:
            self.say(f"  {_round_line(row, scene)}")
        self._told = len(ended)

    def _panel(self, scene: Scene, seconds: float) -> Panel:
        training, current = scene.training, scene.current
        done, total = training["rounds_done"], training["rounds_max"]
        filled = round(30 * done / max(total, 1))
        parts: list[Any] = [
            Text(f"{'━' * filled}{'─' * (30 - filled)}  {done} of {total} rounds, {seconds:.0f} s"),
            Text(""),
        ]
        if current is not None:
            parts += [_phase_line(current), _sites(scene), Text(""), _metric_line(scene)]
        parts += [Text(line, style="dim") for line in self._address_lines]
        return Panel(Group(*parts), title=f"{training['title']} · {training['suite']} · {training['state']}", width=78)


def _phase_line(current: Mapping[str, Any]) -> Text:
    kind = "Measuring the last model" if current["kind"] == "evaluation" else f"Round {current['number']}"
    line = Text(f"{kind}: ")
    for phase in _PHASES:
        line.append(f" {phase} ", style="reverse" if phase == current["state"] else "dim")
    if current["state"] not in _PHASES:
        line.append(f" {current['state']}")
    line.append(f"\n{current['accepted']} of {current['invited']} updates accepted, quorum {current['quorum']}\n")
    return line


def _sites(scene: Scene) -> Table:
    table = Table(box=None, padding=(0, 2), show_edge=False)
    for column in ("hospital", "this round", "updates accepted"):
        table.add_column(column, header_style="dim", justify="left" if column != "updates accepted" else "right")
    for participant in sorted((scene.current or {})["participants"], key=lambda row: row["site"]):
        mark, style = _STATES.get(participant["state"], ("?", ""))
        accepted = sum(
            other["state"] == "accepted"
            for row in scene.rounds
            for other in row["participants"]
            if other["device"] == participant["device"]
        )
        said = " ".join(filter(None, (mark, participant["state"], participant["code"])))
        table.add_row(name_of(participant["site"]), Text(said, style=style), str(accepted))
    return table


def _metric_line(scene: Scene) -> Text:
    values = scene.measured
    if not values:
        return Text("no model measured yet")
    # From chance to perfect: a scale that does not move while one looks at it.
    bars = "".join(_BARS[min(7, max(0, int((value - 0.5) / 0.5 * 8)))] for value in values[-40:])
    return Text(f"pooled {METRICS[scene.training['metric']].title}  {bars}  {values[-1]:.3f}")


def _round_line(row: Mapping[str, Any], scene: Scene) -> str:
    value = row["metric"]["value"]
    kind = "measuring the last model" if row["kind"] == "evaluation" else f"round {row['number']}"
    parts = [f"{kind} {row['state']}: {row['accepted']} of {row['invited']} updates (quorum {row['quorum']})"]
    if row["seconds"] is not None:
        parts.append(f"{row['seconds']:.2f} s")
    if value is not None:
        parts.append(f"{scene.training['metric']} of its base model {value:.3f}")
    if row["failure_code"]:
        parts.append(row["failure_code"])
    return ", ".join(parts)


def name_of(site: str) -> str:
    """A hospital's name for people."""
    return SITE_NAMES.get(site, site)


def result_console(*, to_stderr: bool) -> Console:
    """Where the result table goes."""
    return Console(file=sys.stderr if to_stderr else sys.stdout, highlight=False)
