"""Reads about devices: the fleet as people see it, and the keys that rounds rely on."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from controlplane.audit.models import AuditEntry
from controlplane.prepared import PreparedSelect
from devices.models import Device, Federation
from devices.suites import accepted_suites
from keys.models import Key, Owner
from keys.selectors import certificate_end, certificate_ends, compromises, key_standing, read_statement
from latticeward.crypto.keys import CompositeVerifyKey
from latticeward.crypto.public_key import speakable
from latticeward.errors import KeyUsageError, NotFoundError, WrongContextError
from latticeward.lifecycle import DeviceState, KeyState
from latticeward.renewal import renewal_opens_at
from latticeward.statements import verify_live

# Three long polls without a word.
SILENT_AFTER: Final = timedelta(seconds=75)


# The ledger's event that tells what a compromised device had sent; written by ``rounds``.
DOUBTED: Final = "device.doubted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """What of a compromised device is marked.

    Attributes:
        invalid_from: nothing that it signed from then on may be believed.
        submissions, counted: how many it had sent since then, and how many of them rounds count; None until marked.
        rounds: ids of the rounds that it sent them to.
    """

    invalid_from: datetime
    submissions: int | None = None
    counted: int | None = None
    rounds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """One device as the fleet page and the API show it; times aware UTC."""

    id: str
    name: str
    site: str
    site_name: str
    device_class: str
    state: str
    silent: bool
    suite: str
    key_epoch: int
    requested_at: datetime
    last_seen_at: datetime | None
    certificate_not_after_at: datetime | None
    fingerprint: str
    doubt: Doubt | None


def the_federation() -> Federation:
    """The one federation that this installation speaks for.

    Raises:
        NotFoundError: it has not been founded yet.
    """
    federation = Federation.objects.first()
    if federation is None:
        raise NotFoundError("this installation has no federation yet")
    return federation


def fleet(federation: Federation) -> QuerySet[Device]:
    """Every device of the federation, by site and name; ``fleet_rows`` shows them."""
    return (
        Device.objects.filter(site__federation=federation)
        .select_related("site", "device_class")
        .order_by("site__name", "name", "id")
    )


def fleet_rows(devices: Iterable[Device]) -> list[FleetRow]:
    """These devices as people see them, in the same order; a few queries, however many they are."""
    devices = list(devices)
    ids = [str(device.id) for device in devices]
    ends = certificate_ends(ids)
    signing = Key.objects.filter(subject_id__in=ids, purpose="signing").order_by("epoch", "created_at")
    fingerprints = {key.subject_id: speakable(bytes.fromhex(key.key_id)) for key in signing}
    found = doubts(ids)
    now = timezone.now()
    return [
        FleetRow(
            id=str(device.id),
            name=device.name,
            site=device.site.slug,
            site_name=device.site.name,
            device_class=device.device_class.slug,
            state=device.state,
            silent=is_silent(device, now=now),
            suite=device.suite,
            key_epoch=device.key_epoch,
            requested_at=device.requested_at,
            last_seen_at=device.last_seen_at,
            certificate_not_after_at=ends.get(str(device.id)),
            fingerprint=fingerprints.get(str(device.id), ""),
            doubt=found.get(str(device.id)),
        )
        for device in devices
    ]


_SHOWN: Final = (KeyState.PRE_ACTIVE, KeyState.ACTIVE, KeyState.SUSPENDED, KeyState.DEACTIVATED)
_OWN_KEYS: Final = PreparedSelect(
    lambda subject_id: (
        Key.objects.filter(owner=Owner.DEVICE, state__in=_SHOWN, subject_id=subject_id)
        .order_by("-epoch", "purpose")
        .values_list("purpose", "algorithm", "key_id", "epoch", "state", "not_after_at")
    ),
    str,
)


def read_self(device: Device) -> dict[str, Any]:
    """What a device may know of itself, with its keys of the present epoch and those that are superseded."""
    subject = str(device.id)
    return {
        "device": device.id,
        "name": device.name,
        "federation": device.site.federation_id,
        "site": device.site.slug,
        "device_class": device.device_class.slug,
        "state": device.state,
        "suite": device.suite,
        "key_epoch": device.key_epoch,
        "keys": [
            {
                "purpose": purpose,
                "algorithm": algorithm,
                "key_id": key_id,
                "epoch": epoch,
                "state": state,
                "not_after": end,
            }
            for purpose, algorithm, key_id, epoch, state, end in _OWN_KEYS(subject)
        ],
        "certificate_not_after": certificate_end(subject),
        "renew_from": _renew_from(subject, device.key_epoch),
        "server_time": timezone.now(),
    }


@lru_cache(maxsize=4096)
def _renew_from(subject: str, epoch: int) -> datetime:
    # A statement's bytes never change, and one that is missing raises and is not remembered.
    return renewal_opens_at(read_statement(subject, epoch=epoch))


def doubts(device_ids: Collection[str]) -> dict[str, Doubt]:
    """Of some devices those that were compromised, with what of theirs is marked; at most two queries."""
    since = compromises(device_ids)
    if not since:
        return {}
    entries = AuditEntry.objects.filter(event=DOUBTED, subject_kind="device", subject_id__in=list(since))
    marks = dict(entries.values_list("subject_id", "details"))
    return {
        device_id: Doubt(
            invalid_from=invalid_from,
            submissions=marks.get(device_id, {}).get("submissions"),
            counted=marks.get(device_id, {}).get("counted"),
            rounds=tuple(marks.get(device_id, {}).get("rounds", ())),
        )
        for device_id, invalid_from in since.items()
    }


def is_silent(device: Device, *, now: datetime | None = None) -> bool:
    """Whether an active device has not been heard of for longer than its long polls take."""
    if device.state != DeviceState.ACTIVE:
        return False
    heard_at = device.last_seen_at or device.activated_at
    return heard_at is None or (now or timezone.now()) - heard_at > SILENT_AFTER


def renewal_asked(device: Device) -> dict[str, str] | None:
    """What the server asks of a device about its keys now: the suite of new ones and why, or None."""
    row = (
        Device.objects.filter(pk=device.pk).exclude(renewal_reason="").values("renewal_suite", "renewal_reason").first()
    )
    return {"suite": row["renewal_suite"], "reason": row["renewal_reason"]} if row else None


def active_devices(federation: Federation) -> list[Device]:
    """The devices that may take part in rounds now, with their sites, in a fixed order."""
    return list(
        Device.objects.filter(site__federation=federation, state=DeviceState.ACTIVE)
        .select_related("site__federation")
        .order_by("site__slug", "id")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """The encapsulation key that an active device holds now, as its row says: raw bytes, and the id in hex."""

    device_id: UUID
    epoch: int
    key_id: str
    algorithm: str
    raw: bytes


_ACTIVE: Final = PreparedSelect(
    lambda federation_id, suites: Device.objects.filter(
        site__federation_id=federation_id, state=DeviceState.ACTIVE, suite__in=suites
    ).values_list("id", "key_epoch"),
    UUID,
    list[str],
)
_ENCAPSULATION_KEYS: Final = PreparedSelect(
    lambda subjects: Key.objects.filter(
        owner=Owner.DEVICE, subject_id__in=subjects, purpose="encapsulation", state=KeyState.ACTIVE
    ).values_list("subject_id", "epoch", "key_id", "algorithm", "public_key"),
    list[str],
)


def encapsulation_keys(federation: Federation) -> dict[UUID, HeldKey]:
    """What may be sealed to each active device now, by device id; three queries, and no key is parsed.

    A device without an active key of its present epoch, or with keys of a retired suite, is left out: it must not keep
    the others from their model.
    """
    active = _ACTIVE(federation.id, accepted_suites())
    epochs = {str(device_id): (device_id, epoch) for device_id, epoch in active}
    found = {}
    for subject, epoch, key_id, algorithm, raw in _ENCAPSULATION_KEYS(epochs):
        device_id, present = epochs[subject]
        if epoch == present:
            found[device_id] = HeldKey(
                device_id=device_id, epoch=epoch, key_id=key_id, algorithm=algorithm, raw=bytes(raw)
            )
    return found


_SIGNING_KEYS: Final = PreparedSelect(
    lambda subjects: Key.objects.filter(subject_id__in=subjects, purpose="signing", state=KeyState.ACTIVE).values_list(
        "subject_id", "epoch", "public_key", "algorithm"
    ),
    list[str],
)


def signing_keys(devices: Iterable[Device]) -> dict[UUID, CompositeVerifyKey]:
    """What verifies messages that each of these devices signs now, by device id; those without a key are left out."""
    by_id = {str(device.id): device for device in devices}
    return {
        by_id[subject].id: CompositeVerifyKey.from_raw(bytes(raw), algorithm)
        for subject, epoch, raw, algorithm in _SIGNING_KEYS(by_id.keys())
        if epoch == by_id[subject].key_epoch
    }


def superseded_signing_key(
    device: Device, key_id: bytes, *, round_opened_at: datetime | None, now: datetime
) -> CompositeVerifyKey:
    """A signing key that the device has replaced, for what it signed in a round that was opened before.

    Args:
        key_id: as the message names it.
        round_opened_at: of the round that the message belongs to, which must still be open.

    Raises:
        WrongContextError: the device never had such a key.
        KeyUsageError, CertificateNotValidError: it may not be relied on for this (any more).
    """
    rows = Key.objects.filter(subject_id=str(device.id), purpose="signing", key_id=key_id.hex())
    key = rows.select_related("revocation").first()
    if key is None:
        raise WrongContextError(f"device {device.id} never had the signing key {key_id.hex()[:12]}")
    if key.state != KeyState.DEACTIVATED or key.superseded_at is None:
        raise KeyUsageError(f"the signing key {key_id.hex()[:12]} of device {device.id} is {key.state}")
    statement = read_statement(str(device.id), epoch=key.epoch)
    verify_live(statement, key_standing(key), now=now, round_opened_at=round_opened_at)
    return CompositeVerifyKey.from_raw(bytes(key.public_key), key.algorithm)


def registered_signing_key(device: Device, key_id: bytes) -> CompositeVerifyKey:
    """The signing key of this id, if it is or was this device's; for reading what was accepted earlier.

    Raises:
        KeyUsageError: the device never had such a key.
    """
    key = Key.objects.filter(subject_id=str(device.id), purpose="signing", key_id=key_id.hex()).first()
    if key is None:
        raise KeyUsageError(f"device {device.id} never had the signing key {key_id.hex()[:12]}")
    return CompositeVerifyKey.from_raw(bytes(key.public_key), key.algorithm)
