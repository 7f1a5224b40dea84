"""``./ward bench NAME… [--json]``: run measurements and print them, as a table or one JSON object a line."""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import BENCHES
from bench.machine import head_line


def measure(names: Sequence[str], notes: Console) -> Iterator[dict[str, Any]]:
    """Rows of the named benches, as they come; what they say meanwhile goes to ``notes``."""
    for name in names:
        started = time.monotonic()
        notes.print(f"── {name}")
        for row in importlib.import_module(BENCHES[name]).run():
            yield {"bench": name, **row}
        notes.print(f"   {name} took {time.monotonic() - started:.1f} s")


def main() -> int:
    """Command line; 1 if a bench failed, after the others have run."""
    parser = argparse.ArgumentParser(prog="ward bench", description="Measurements by name.")
    parser.add_argument("names", nargs="+", choices=sorted(BENCHES), metavar="NAME", help=", ".join(sorted(BENCHES)))
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    notes = Console(stderr=True, highlight=False, markup=False)
    notes.print(head_line())
    table = Table("bench", "metric", "value", "unit")
    for row in measure(list(dict.fromkeys(options.names)), notes):
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            table.add_row(row["bench"], row["metric"], f"{row['value']:.4g}", row["unit"])
    if not options.json:
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
