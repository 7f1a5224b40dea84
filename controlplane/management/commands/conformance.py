"""Print how the cryptography fares against published vectors, and against our own frozen ones."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from latticeward.crypto.conformance import run_conformance
from latticeward.crypto.providers import suite_state
from latticeward.crypto.suites import SUITES


class Command(BaseCommand):
    help = "Run published and frozen test vectors and print a table; fails if any case does."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--vectors",
            type=Path,
            default=Path(settings.BASE_DIR).parent / "shared" / "vectors",
            help="folder with composite/, ascon/ and httpsig/ vectors",
        )
        parser.add_argument("--json", action="store_true", help="one JSON object a set")

    def handle(self, *args: Any, **options: Any) -> None:
        folder = options["vectors"]
        rows = run_conformance(folder if folder.is_dir() else None)
        if options["json"]:
            self.stdout.write("\n".join(json.dumps(asdict(row)) for row in rows))
        else:
            width = max(len(row.name) for row in rows)
            for row in rows:
                ran = f"{row.passed} of {row.cases} passed"
                result = f"skipped: {row.skipped}" if row.skipped else ran
                self.stdout.write(f"{row.name:<{width}}  {row.source:<22}  {result}")
            self.stdout.write("\nSuites")
            for suite in SUITES.values():
                strength = f"NIST category {suite.nist_category}"
                self.stdout.write(f"{suite.id:<{width}}  {strength:<22}  {suite_state(suite)}")
        if failed := sum(row.failed for row in rows):
            raise CommandError(f"{failed} cases failed: do not run this build.")
