"""Keys as pages show them: whose each is, how it stands, and when it ends."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from devices.models import Device
from frontend.sentences import say_duration
from frontend.words import Word, word_of
from keys.endings import Ending
from keys.models import Key, Owner


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key with its owner's name."""

    key: Key
    owner: str
    word: Word


@dataclass(frozen=True, slots=True)
class EndingRow:
    """A key that ends soon, in words."""

    ending: Ending
    sentence: str


def key_rows(keys: Iterable[Key]) -> list[KeyRow]:
    """These keys with their owners' names; one query."""
    rows = list(keys)
    names = _names(rows)
    return [KeyRow(key=key, owner=_owner(key, names), word=word_of("key", key.state)) for key in rows]


def ending_rows(endings: Iterable[Ending], *, now: datetime) -> list[EndingRow]:
    """Such as "The certificate of edge-1, Cleveland ends in 12 days"; one query if a device is among them."""
    rows = list(endings)
    names = _names([row.key for row in rows])
    return [EndingRow(ending=row, sentence=_say(row, names, now)) for row in rows]


def _say(row: Ending, names: dict[str, str], now: datetime) -> str:
    what = f"certificate of {_owner(row.key, names)}" if row.is_device else f"server's {row.key.purpose} key"
    if row.ends_at <= now:
        return f"The {what} ended {say_duration(now - row.ends_at)} ago"
    return f"The {what} ends in {say_duration(row.ends_at - now)}"


def _owner(key: Key, names: dict[str, str]) -> str:
    if key.owner == Owner.AUTHORITY:
        return "the server"
    return names.get(key.subject_id, f"device {key.subject_id[:8]}")


def _names(keys: Iterable[Key]) -> dict[str, str]:
    ids = {key.subject_id for key in keys if key.owner == Owner.DEVICE}
    rows = Device.objects.filter(pk__in=ids).values_list("pk", "name", "site__name") if ids else ()
    return {str(pk): f"{name}, {site}" for pk, name, site in rows}
