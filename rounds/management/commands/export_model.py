"""Write a model version as a file, on a machine that holds the round workers' key file."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from latticeward.errors import LatticewardError
from latticeward.model_files import MODEL_FORMATS
from rounds.registry.selectors import published_model
from rounds.services.exports import format_of, record_written, write_model_file


class Command(BaseCommand):
    help = "Write a published model version as safetensors or npz; the ledger keeps that it was done, and why."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", type=UUID, help="id of the version, as in its page's address")
        parser.add_argument("--format", choices=sorted(MODEL_FORMATS), default="safetensors")
        parser.add_argument("--out", type=Path, help="a new file; without it a name of its own in this folder")
        parser.add_argument("--licence", default="", help="the terms that the file names")
        parser.add_argument("--reason", required=True, help="why; it goes into the ledger")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            model, form = published_model(options["model"]), format_of(options["format"])
            file = write_model_file(model, form, licence=options["licence"])
            path = options["out"] or Path(file.name)
            # Nothing is overwritten, and nobody else on this machine reads it.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            record_written(model, form, file, reason=options["reason"])
            with os.fdopen(handle, "wb") as out:
                out.write(file.content)
        except LatticewardError as error:
            raise CommandError(f"{error} ({error.code})") from error
        except OSError as error:
            raise CommandError(f"cannot write the file: {error}") from error
        digest = bytes(model.weights_digest).hex()
        self.stdout.write(f"{path}: {len(file.content)} bytes, {form.name}, weights digest {digest}")
