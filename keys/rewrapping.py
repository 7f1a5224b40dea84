"""Changing a key-encryption key while everything runs: every wrapped column, batch by batch, each secret checked.

A secret is opened under the old version, wrapped under the present one, opened again and compared, and only then put
in the place of exactly the bytes that were read. So a crash loses nothing, a second run goes on where the first
stopped, and two runs at once do not hurt each other. A row that does not open is named and left as it is: it was
tampered with, and the old version must not be retired over it.

Which columns there are is for the caller to say, because this app does not know the others'
(``controlplane/management/commands/rotate_kek.py``).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import models, transaction

from controlplane.audit.services import record
from keys import vault
from keys.models import Authority
from keys.vault import GROUP_OF_PURPOSE
from keys.vault_providers import Group
from latticeward.errors import CustodyError

BATCH: Final = 200

Of = Callable[[Any], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedColumn:
    """One column that holds wrapped secrets, and what binds each to its row.

    Attributes:
        needs: further columns that ``purpose``, ``row_id`` and ``algorithm`` read.
        purpose, row_id, algorithm: as ``vault.wrap`` was called.
    """

    model: type[models.Model]
    column: str
    purpose: Of
    row_id: Of = field(default=lambda row: str(row.pk))
    algorithm: Of = field(default=lambda row: "")
    needs: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Table and column, for people."""
        return f"{self.model._meta.label}.{self.column}"


@dataclass(slots=True, kw_only=True)
class Rewrapped:
    """What a run did: secrets wrapped anew, those that were so already, and the rows that do not open, by name."""

    version: int
    rewrapped: int = 0
    present: int = 0
    refused: list[str] = field(default_factory=list)


def rewrap(
    columns: Iterable[WrappedColumn],
    group: Group,
    *,
    actor: str,
    progress: Callable[[str, int], None] = lambda label, done: None,
) -> Rewrapped:
    """Wrap every secret of a group under its present version; safe to repeat and to interrupt.

    Args:
        columns: all of them; those of other groups are passed over.
        progress: told the column and how many of its rows were looked at, after every batch.

    Raises:
        CustodyError: this process's role does not hold the group's key.
    """
    outcome = Rewrapped(version=vault.key_ring(group).wrapping)
    for column in columns:
        looked_at = 0
        for batch in _batches(column):
            with transaction.atomic():
                for row in batch:
                    if GROUP_OF_PURPOSE.get(column.purpose(row)) == group:
                        _rewrap_row(column, row, outcome)
            looked_at += len(batch)
            progress(column.label, looked_at)
    if outcome.rewrapped or outcome.refused:
        tell("vault.rewrapped", group, actor, rewrapped=outcome.rewrapped, refused=len(outcome.refused))
    return outcome


def retire(columns: Iterable[WrappedColumn], group: Group, *, actor: str) -> list[int]:
    """Forget the older versions of a group's key, if no row is wrapped under one; returns their numbers.

    Raises:
        CustodyError: a row still is (wrapped a moment ago, or tampered with), or the file changed a moment ago.
    """
    outcome = rewrap(columns, group, actor=actor)
    if outcome.refused:
        raise CustodyError(f"{len(outcome.refused)} rows do not open, the first is {outcome.refused[0]}")
    if retired := vault.retire_versions(group):
        tell("vault.versions_retired", group, actor, versions=retired)
    return retired


def tell(event: str, group: Group, actor: str, **details: Any) -> None:
    """Write a step of a rotation into the ledger, if there is a federation yet."""
    authority = Authority.objects.first()
    if authority is None:
        return
    version = vault.key_ring(group).wrapping
    with transaction.atomic():
        record(
            event,
            actor=actor,
            feed=authority.feed,
            subject=("key_encryption_key", group),
            details={"group": str(group), "version": version, **details},
        )


def _batches(column: WrappedColumn) -> Iterator[list[Any]]:
    rows = column.model._default_manager.exclude(**{f"{column.column}__isnull": True})
    rows = rows.only(column.column, *column.needs).order_by("pk")
    last = None
    while batch := list(rows.filter(**({"pk__gt": last} if last is not None else {}))[:BATCH]):
        yield batch
        last = batch[-1].pk


def _rewrap_row(column: WrappedColumn, row: Any, outcome: Rewrapped) -> None:
    raw = bytes(getattr(row, column.column))
    if not raw:
        return  # destroyed
    bound = {"purpose": column.purpose(row), "row_id": column.row_id(row), "algorithm": column.algorithm(row)}
    try:
        if vault.version_of(raw) == outcome.version:
            outcome.present += 1
            return
        secret = vault.unwrap(raw, **bound)
        wrapped = vault.wrap(secret, **bound)
        if vault.unwrap(wrapped, **bound) != secret:
            raise CustodyError("wrapped anew, it opens to something else")
    except CustodyError as error:
        outcome.refused.append(f"{column.label} {row.pk}: {error}")
        return
    # Whoever changed the row meanwhile wrapped it under the present version, or it is found by the next run.
    untouched = column.model._default_manager.filter(pk=row.pk, **{column.column: raw})
    outcome.rewrapped += untouched.update(**{column.column: wrapped})
