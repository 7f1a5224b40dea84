"""Write the record file of a published round: what a person checks offline."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from keys.selectors import trust_anchor
from latticeward.errors import LatticewardError
from rounds.services.records import record_file


class Command(BaseCommand):
    help = "Write a published round's record with plan, trust statement and ledger proof into one file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("round", type=UUID, help="id of the round, as in its page's address")
        parser.add_argument("file", type=Path, help="where to write it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            raw = record_file(options["round"])
        except LatticewardError as error:
            raise CommandError(f"{error} ({error.code})") from error
        options["file"].write_bytes(raw)
        anchor = trust_anchor().fingerprint.hex()
        command = f"python -m latticeward.verify_record {options['file']} --anchor {anchor}"
        self.stdout.write(f"{len(raw)} bytes, checked without this server by: {command}")
