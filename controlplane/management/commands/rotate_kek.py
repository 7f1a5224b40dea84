"""``manage.py rotate_kek``: change the vault's key-encryption keys while everything runs."""

from argparse import ArgumentParser
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from devices.models import Claim, Encipherment, Enrolment, Renewal
from keys import rewrapping, vault
from keys.models import Key
from keys.rewrapping import WrappedColumn
from keys.vault import GROUPS_OF_ROLE
from keys.vault_providers import Group
from latticeward.errors import LatticewardError
from rounds.models import ModelExport, ModelVersion, Partial, Round

ACTOR: Final = "system"
# Every column that holds wrapped secrets; tests/keys/test_rewrapping.py holds that none is missing.
COLUMNS: Final = (
    WrappedColumn(
        model=Key,
        column="wrapped_secret",
        purpose=lambda row: str(row.purpose),
        algorithm=lambda row: str(row.algorithm),
        needs=("purpose", "algorithm"),
    ),
    WrappedColumn(model=Claim, column="wrapped_key", purpose=lambda row: "claim"),
    WrappedColumn(model=Enrolment, column="wrapped_challenge", purpose=lambda row: "challenge"),
    WrappedColumn(model=Renewal, column="wrapped_challenge", purpose=lambda row: "challenge"),
    WrappedColumn(model=Encipherment, column="wrapped_challenge", purpose=lambda row: "challenge"),
    WrappedColumn(model=Round, column="wrapped_decapsulation_seed", purpose=lambda row: "round-decapsulation"),
    WrappedColumn(
        model=Partial,
        column="wrapped_key",
        purpose=lambda row: "partial",
        row_id=lambda row: f"{row.round_id}/{row.slot}",
        needs=("round_id", "slot"),
    ),
    WrappedColumn(model=ModelVersion, column="wrapped_content_key", purpose=lambda row: "model-content"),
    WrappedColumn(model=ModelExport, column="wrapped_seed", purpose=lambda row: "model-download"),
)


class Command(BaseCommand):
    help = (
        "Make a new version of the key-encryption keys of this process's role, wrap every secret under it, and say how "
        "far it is. Safe to interrupt and to repeat. Where key files lie on several machines, take the steps one by "
        "one and copy the file after --stage and after --activate."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--group", action="append", choices=[str(group) for group in Group])
        step = parser.add_mutually_exclusive_group()
        step.add_argument("--stage", action="store_true", help="only add a version that is read and does not wrap yet")
        step.add_argument("--activate", action="store_true", help="only let the added version wrap")
        step.add_argument("--rewrap", action="store_true", help="only wrap what is still under an older version")
        step.add_argument("--retire", action="store_true", help="forget older versions once nothing is under them")

    def handle(self, *args: Any, **options: Any) -> None:
        groups = [Group(name) for name in options["group"] or sorted(GROUPS_OF_ROLE[settings.ROLE])]
        try:
            for group in groups:
                self._rotate(group, options)
        except LatticewardError as error:
            raise CommandError(str(error)) from error

    def _rotate(self, group: Group, options: dict[str, Any]) -> None:
        every = not any(options[step] for step in ("stage", "activate", "rewrap", "retire"))
        if options["stage"] or every:
            version = vault.stage_version(group)
            rewrapping.tell("vault.version_staged", group, ACTOR, staged=version)
            self.stdout.write(f"{group}: version {version} is there; it is read and does not wrap yet")
        if options["activate"] or every:
            version = vault.activate_version(group)
            rewrapping.tell("vault.version_activated", group, ACTOR)
            self.stdout.write(f"{group}: version {version} wraps from now on")
        if options["rewrap"] or every:
            self._rewrap(group)
        if options["retire"]:
            retired = rewrapping.retire(COLUMNS, group, actor=ACTOR)
            names = ", ".join(map(str, retired))
            self.stdout.write(f"{group}: " + (f"version {names} forgotten" if retired else "no older version"))

    def _rewrap(self, group: Group) -> None:
        outcome = rewrapping.rewrap(
            COLUMNS,
            group,
            actor=ACTOR,
            progress=lambda label, done: self.stdout.write(f"{group}: {label}, {done} rows looked at"),
        )
        self.stdout.write(f"{group}: {outcome.rewrapped} secrets wrapped anew, {outcome.present} were so already")
        for name in outcome.refused:
            self.stderr.write(f"does not open, left as it is: {name}")
        if outcome.refused:
            raise CommandError(f"{group}: {len(outcome.refused)} rows do not open; do not retire the older version")
