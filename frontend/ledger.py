"""The ledger as people read it: what happened, who did it, to what; and the newest checkpoint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.contrib.auth.models import User
from django.urls import reverse

from controlplane.audit.events import EVENTS
from controlplane.audit.models import AuditEntry
from devices.models import Device
from frontend.words import sentence_of_code

_PAGES: Final = {"training": "training", "round": "round", "model": "model"}


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One entry in words."""

    entry: AuditEntry
    meaning: str
    actor: str
    about: str
    explanation: str
    url: str


def read_rows(entries: Sequence[AuditEntry], *, devices: Mapping[str, str] | None = None) -> list[LedgerRow]:
    """Entries with names instead of ids; at most two queries more.

    Args:
        devices: names of all devices by id, if the caller has them.
    """
    users = _user_names(entries)
    devices = _device_names(entries) if devices is None else devices
    return [
        LedgerRow(
            entry=entry,
            meaning=EVENTS.get(entry.event, entry.event),
            actor=_actor(entry.actor, users, devices),
            about=_about(entry, devices),
            explanation=sentence_of_code(str(entry.details.get("code") or "")),
            url=_url(entry),
        )
        for entry in entries
    ]


def kinds() -> list[str]:
    """The nouns by which the ledger can be filtered."""
    return sorted({event.partition(".")[0] for event in EVENTS})


def _user_names(entries: Iterable[AuditEntry]) -> dict[str, str]:
    actors = (entry.actor.partition(":") for entry in entries)
    ids = {int(identity) for kind, _, identity in actors if kind == "user" and identity.isdecimal()}
    return {str(pk): name for pk, name in User.objects.filter(pk__in=ids).values_list("pk", "username")} if ids else {}


def _device_names(entries: Iterable[AuditEntry]) -> dict[str, str]:
    ids = set()
    for entry in entries:
        kind, _, identity = entry.actor.partition(":")
        named = (identity if kind == "device" else "", entry.subject_id if entry.subject_kind == "device" else "")
        ids |= {candidate for candidate in (*named, entry.details.get("device")) if _is_uuid(candidate)}
    rows = Device.objects.filter(pk__in=ids).values_list("pk", "name", "site__name") if ids else ()
    return {str(pk): f"{name}, {site}" for pk, name, site in rows}


def _actor(actor: str, users: Mapping[str, str], devices: Mapping[str, str]) -> str:
    kind, _, identity = actor.partition(":")
    match kind:
        case "user":
            return users.get(identity, f"person {identity}")
        case "device":
            return devices.get(identity, f"device {identity[:8]}")
        case "worker":
            return f"{identity} worker"
        case _:
            return "the system"


def _about(entry: AuditEntry, devices: Mapping[str, str]) -> str:
    details = entry.details
    device = devices.get(entry.subject_id) or devices.get(str(details.get("device", "")))
    if device:
        return device
    if isinstance(details.get("alias"), str):
        return f"alias {details['alias']}"
    if isinstance(details.get("number"), int):
        return f"{entry.subject_kind.replace('_', ' ')} {details['number']}"
    return f"{entry.subject_kind.replace('_', ' ')} {entry.subject_id[:8]}"


def _url(entry: AuditEntry) -> str:
    page = _PAGES.get(entry.subject_kind)
    return reverse(page, args=[entry.subject_id]) if page and _is_uuid(entry.subject_id) else ""


def _is_uuid(text: object) -> bool:
    try:
        UUID(str(text))
    except ValueError:
        return False
    return True
