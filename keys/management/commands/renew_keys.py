"""``manage.py renew_keys``: the server's own keys by hand, with root and anchor from their offline file if need be."""

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from keys import offline, passphrases, publication, rotation
from keys.renewal import RENEWABLE, SCHEDULES, due_purposes, renew
from keys.selectors import server_keys
from latticeward.errors import LatticewardError

ACTOR = "system"


class Command(BaseCommand):
    help = (
        "Show when the server's own keys end, or renew them: those that are due (--due), all (--all), or those of one "
        "purpose (--purpose). --purpose issuing signs a new issuing authority and leaves the old one beside it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--due", action="store_true", help="renew what has come near its end")
        what.add_argument("--all", action="store_true", help="renew every key that can be renewed")
        what.add_argument("--purpose", action="append", choices=RENEWABLE, help="renew this one; may be repeated")
        parser.add_argument(
            "--offline", type=Path, metavar="FILE", help="bring root and anchor from FILE and take them out again after"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        purposes = options["purpose"] or (RENEWABLE if options["all"] else due_purposes() if options["due"] else ())
        try:
            with _offline_keys(options["offline"] if purposes else None):
                for purpose in purposes:
                    key = renew(purpose, actor=ACTOR)
                    end = f"{key.not_after_at:%Y-%m-%d}"
                    self.stdout.write(f"{purpose}: {key.algorithm} key {key.key_id[:16]} until {end}")
                if purposes:
                    rotation.keep_current(actor=ACTOR)
                    publication.keep_published(actor=ACTOR)
        except LatticewardError as error:
            raise CommandError(str(error)) from error
        if not purposes:
            self._show()

    def _show(self) -> None:
        due, now = due_purposes(), timezone.now()
        for purpose, schedule in SCHEDULES.items():
            key = server_keys(purpose).first()
            if key is None or key.not_after_at is None:
                continue
            note = "due" if purpose in due else ""
            if schedule.renew_before is None:
                note = "is not renewed"
            self.stdout.write(
                f"{purpose:<20} {key.algorithm:<16} {key.key_id[:16]}  ends {key.not_after_at:%Y-%m-%d}, "
                f"in {(key.not_after_at - now).days} days  {note}".rstrip()
            )


@contextmanager
def _offline_keys(path: Path | None) -> Iterator[None]:
    """Root and anchor in service for as long as this lasts, if they are in a file; taken out again whatever happens."""
    if path is None:
        yield
        return
    try:
        file = path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    passphrase = passphrases.ask()
    offline.restore_offline(file=file, passphrase=passphrase, actor=ACTOR)
    try:
        yield
    finally:
        offline.remove_offline(file=file, passphrase=passphrase, actor=ACTOR)
