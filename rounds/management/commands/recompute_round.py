"""Ask whether a published round follows from the envelopes that it counted; for auditors, on an aggregation worker."""

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from latticeward.errors import LatticewardError
from rounds.services.recomputation import recompute_round


class Command(BaseCommand):
    help = "Work a published round out again from its stored envelopes and compare; fails if anything differs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("round", type=UUID, help="id of the round, as in its page's address")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = recompute_round(options["round"])
        except LatticewardError as error:
            raise CommandError(f"{error} ({error.code})") from error
        model = f"model digest {done.weights_digest.hex()}" if done.weights_digest else "no model, a measurement"
        self.stdout.write(f"Yes: {done.updates} updates in {done.partials} partial sums give the same bits; {model}.")
