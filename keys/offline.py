"""Taking root and trust anchor out of the service, and back in for a ceremony."""

from typing import Final

from django.db import transaction

from controlplane.audit.services import record
from keys import vault
from keys.models import Authority, Key, Owner
from keys.services import forget_loaded_keys, open_secret, require_seed_of
from latticeward import canonical
from latticeward.canonical import Fields
from latticeward.crypto.passphrase import lock, unlock
from latticeward.crypto.signing import Purpose
from latticeward.errors import CustodyError
from latticeward.lifecycle import KeyState

OFFLINE: Final = ("root", str(Purpose.TRUST))
_LABEL: Final = "latticeward root and trust anchor"
_LIMIT_BYTES: Final = 65_536


def export_offline(*, passphrase: str, actor: str) -> bytes:
    """Root and trust anchor as one file under a passphrase; the service keeps them until ``remove_offline``.

    Raises:
        CustodyError: they have left already, or are not this process's to read.
        KeyUsageError: the passphrase is too short.
    """
    rows = _rows()
    seeds = {key.key_id: open_secret(key) for key in rows}
    locked = lock(canonical.encode({"seeds": seeds}), passphrase=passphrase, label=_LABEL)
    _record("exported", rows, actor)
    return locked


def remove_offline(*, file: bytes, passphrase: str, actor: str) -> None:
    """Take both secrets out of the database, after the file has proven that it opens and holds them.

    Raises:
        DecryptionError: wrong passphrase or damaged file; nothing was removed.
        CustodyError: the file holds other keys; nothing was removed.
    """
    rows = _rows()
    _matching_seeds(rows, file, passphrase)
    with transaction.atomic():
        for key in rows:
            Key.objects.filter(pk=key.pk).update(wrapped_secret=None)
        _record("removed", rows, actor)
    forget_loaded_keys()


def restore_offline(*, file: bytes, passphrase: str, actor: str) -> None:
    """Bring both secrets back for a ceremony: a new server key, a new issuing authority, a new trust statement.

    Raises:
        DecryptionError: wrong passphrase or damaged file.
        CustodyError: the file holds other keys than this authority's.
    """
    rows = _rows()
    seeds = _matching_seeds(rows, file, passphrase)
    with transaction.atomic():
        for key in rows:
            wrapped = vault.wrap(seeds[key.key_id], purpose=key.purpose, row_id=str(key.id), algorithm=key.algorithm)
            Key.objects.filter(pk=key.pk).update(wrapped_secret=wrapped)
        _record("restored", rows, actor)


def _rows() -> list[Key]:
    # In the order in which everybody changes keys (``in_lock_order``).
    return list(Key.objects.filter(owner=Owner.AUTHORITY, purpose__in=OFFLINE, state=KeyState.ACTIVE).order_by("pk"))


def _matching_seeds(rows: list[Key], file: bytes, passphrase: str) -> dict[str, bytes]:
    fields = Fields(
        canonical.decode(unlock(file, passphrase=passphrase, label=_LABEL), limit_bytes=_LIMIT_BYTES), "offline keys"
    )
    seeds = dict(fields.map("seeds"))
    fields.end()
    for key in rows:
        if key.key_id not in seeds:
            raise CustodyError(f"the file does not hold the {key.purpose} key {key.key_id[:12]}")
        require_seed_of(key, seeds[key.key_id])
    return seeds


def _record(what: str, rows: list[Key], actor: str) -> None:
    authority = Authority.objects.get()
    with transaction.atomic():
        record(
            f"offline_keys.{what}",
            actor=actor,
            feed=authority.feed,
            subject=("federation", authority.federation_id),
            details={"keys": {key.purpose: key.key_id for key in rows}},
        )
