"""The fleet as pages show it: every device on three axes (connection, credential, work), and who waits for approval."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Exists, OuterRef

from devices.models import Device, Federation, Site
from devices.selectors import SILENT_AFTER, Doubt, doubts
from frontend.words import WORK_OF, Word, word_of
from keys.models import Key
from latticeward.crypto.public_key import speakable
from latticeward.lifecycle import ROUND, DeviceState, ParticipantState, RoundState, TrainingState
from rounds.models import Participant, Round

LATE_FOR: Final = timedelta(minutes=10)
# The key whose fingerprint the agent shows at enrolment and a person compares.
_COMPARED: Final = "signing"


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device on its three axes."""

    device: Device
    connection: Word
    credential: Word
    work: Word
    fingerprint: str
    doubt: Doubt | None = None

    @property
    def is_pending(self) -> bool:
        return self.device.state == DeviceState.PENDING


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One hospital with its devices."""

    site: Site
    devices: tuple[DeviceRow, ...]


def read_fleet(*, now: datetime, fingerprints_of: Collection[str] | None = None) -> list[DeviceRow]:
    """All devices, those that wait for a person first, then by hospital and name; two or three queries.

    Args:
        fingerprints_of: the device states whose fingerprints are read; None for all.
    """
    devices = list(Device.objects.select_related("site", "device_class").order_by("site__name", "name"))
    shown = [device for device in devices if fingerprints_of is None or device.state in fingerprints_of]
    fingerprints = _fingerprints(shown) if shown else {}
    working = _working()
    revoked = [str(device.id) for device in devices if device.state == DeviceState.REVOKED]
    found = doubts(revoked) if revoked else {}
    rows = [
        DeviceRow(
            device=device,
            connection=word_of("connection", connection_of(device.last_seen_at, now)),
            credential=word_of("credential", device.state),
            work=word_of("work", working.get(device.id, "idle")),
            fingerprint=fingerprints.get(str(device.id), ""),
            doubt=found.get(str(device.id)),
        )
        for device in devices
    ]
    return sorted(rows, key=lambda row: not row.is_pending)


def by_site(federation: Federation | None, rows: Iterable[DeviceRow]) -> list[SiteRow]:
    """The same rows under their hospitals, hospitals without a device included; one query."""
    if federation is None:
        return []
    grouped: dict[object, list[DeviceRow]] = {}
    for row in rows:
        grouped.setdefault(row.device.site_id, []).append(row)
    return [SiteRow(site, tuple(grouped.get(site.id, ()))) for site in federation.sites.order_by("name")]


def connection_of(last_seen_at: datetime | None, now: datetime) -> str:
    """online, late, offline, or unknown for a device that never called."""
    if last_seen_at is None:
        return "unknown"
    silent = now - last_seen_at
    return "online" if silent <= SILENT_AFTER else "late" if silent <= LATE_FOR else "offline"


def _fingerprints(devices: list[Device]) -> dict[str, str]:
    keys = Key.objects.filter(subject_id__in=[str(device.id) for device in devices], purpose=_COMPARED)
    rows = keys.order_by("epoch").values_list("subject_id", "key_id")
    return {subject: speakable(bytes.fromhex(key_id)) for subject, key_id in rows}


def _working() -> dict[object, str]:
    """What each device does in the newest round of each running training; one query."""
    newest: dict[object, int] = {}
    working: dict[object, str] = {}
    rows = (
        Participant.objects.filter(round__training__state=TrainingState.RUNNING)
        .order_by("-round__number")
        .values_list("device_id", "round__training_id", "round__number", "round__state", "state")[:2000]
    )
    for device_id, training_id, number, round_state, state in rows:
        if newest.setdefault(training_id, number) != number:
            continue
        # A counted update of a round that is over is no work any more.
        over = round_state in ROUND.terminal and state in (ParticipantState.ACCEPTED, ParticipantState.JOINED)
        doing = "idle" if over else WORK_OF.get(state, "idle")
        if working.get(device_id, "idle") == "idle":
            working[device_id] = doing
    return working


def failed_rounds(limit: int = 5) -> list[Round]:
    """The newest rounds whose failure nothing has mended yet; one query.

    A later published round of the same training mends it; a training that was stopped or completed needs nobody.
    """
    later = Round.objects.filter(
        training=OuterRef("training"), number__gt=OuterRef("number"), state=RoundState.PUBLISHED
    )
    failed = Round.objects.filter(
        ~Exists(later), state=RoundState.FAILED, training__state__in=(TrainingState.RUNNING, TrainingState.FAILED)
    ).select_related("training")
    return list(
        failed.only("number", "state", "failure_code", "closed_at", "training__title").order_by("-created_at")[:limit]
    )
