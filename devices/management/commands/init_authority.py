"""``manage.py init_authority``: the first root of trust of an installation, and its two offline keys.

It stands here and not in ``keys`` because an authority speaks for a federation, and ``keys`` does not know devices.
"""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from devices.services import found_federation
from keys import offline, passphrases, vault
from keys.selectors import trust_anchor
from latticeward.errors import LatticewardError


class Command(BaseCommand):
    help = (
        "Make the federation, its authority and the key files of this process's role. Run it once for the role "
        "`authority`, then once for each other role on a machine that will hold that role's key file."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--federation", help="slug; stands in every certificate")
        parser.add_argument("--name", help="the federation's name, for people")
        parser.add_argument("--export-offline", type=Path, metavar="FILE", help="write root and trust anchor to FILE")
        parser.add_argument("--remove-offline", type=Path, metavar="FILE", help="take out of service what FILE holds")
        parser.add_argument("--restore-offline", type=Path, metavar="FILE", help="bring back what FILE holds")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["export_offline"]:
                self._export(options["export_offline"])
            elif options["remove_offline"]:
                file = options["remove_offline"].read_bytes()
                offline.remove_offline(file=file, passphrase=passphrases.ask(), actor="system")
                self.stdout.write("Root and trust anchor are out of service. Keep the file and its passphrase apart.")
            elif options["restore_offline"]:
                file = options["restore_offline"].read_bytes()
                offline.restore_offline(file=file, passphrase=passphrases.ask(), actor="system")
                self.stdout.write("Root and trust anchor are back. Remove them again after the ceremony.")
            else:
                self._found(options["federation"], options["name"])
        except LatticewardError as error:
            raise CommandError(str(error)) from error

    def _found(self, slug: str | None, name: str | None) -> None:
        if settings.ROLE not in ("all", "authority"):
            made = vault.initialise()
            self.stdout.write(f"Key files made for role {settings.ROLE}: {', '.join(made) or 'none, they exist'}.")
            return
        if not slug:
            raise CommandError("--federation is needed to make an authority")
        federation = found_federation(slug=slug, name=name or slug.capitalize())
        self.stdout.write(f"The authority speaks for {federation.name} ({federation.id}).")
        self.stdout.write(f"Fingerprint of the trust anchor: {trust_anchor().key.fingerprint}")

    def _export(self, path: Path) -> None:
        locked = offline.export_offline(passphrase=passphrases.ask(twice=True), actor="system")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(locked)
        self.stdout.write(f"Root and trust anchor are in {path}. Check that it opens: --remove-offline needs it.")
