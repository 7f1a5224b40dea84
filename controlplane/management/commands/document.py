"""Write the documents that are drawn from tables in the code; a test holds that the files equal what this writes."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from latticeward.lifecycle import MACHINES, Machine

_INTRODUCTION = """# Lifecycle

*Generated from `latticeward/lifecycle/` by `./ward manage document`; do not edit.*

A state is never assigned, it is moved by an event. `controlplane.transitions.apply_transition` is the only writer of a
state column: it looks up the row, updates under the condition that the state is still the row's source, and records
the audit entry, in one transaction; the live event follows the commit. States in bold are final.
"""


def lifecycle_document() -> str:
    """The text of ``docs/lifecycle.md``."""
    return "\n".join([_INTRODUCTION, *(_section(machine) for machine in MACHINES)])


def _section(machine: Machine) -> str:
    lines = [f"## {machine.name.capitalize()}", "", f"Begins in `{machine.initial}`.", ""]
    lines += ["```mermaid", "stateDiagram-v2", f"    [*] --> {machine.initial}"]
    lines += [f"    {row.source} --> {row.target}: {row.event}" for row in machine.rows]
    lines += [f"    {state} --> [*]" for state in sorted(machine.terminal)]
    lines += ["```", "", "| from | event | to | who | audit |", "|---|---|---|---|---|"]
    for row in machine.rows:
        target = f"**{row.target}**" if row.target in machine.terminal else row.target
        lines.append(f"| {row.source} | {row.event} | {target} | {row.trigger} | {row.audit_event} |")
    return "\n".join([*lines, ""])


class Command(BaseCommand):
    help = "Write docs/lifecycle.md from the tables in the code."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--folder", type=Path, default=Path(settings.BASE_DIR) / "docs")

    def handle(self, *args: Any, **options: Any) -> None:
        (options["folder"] / "lifecycle.md").write_text(lifecycle_document(), encoding="utf-8")
