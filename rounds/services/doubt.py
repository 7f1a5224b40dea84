"""What a compromised device had sent: marked from the day on from which its keys may have been somebody else's.

Nothing is taken back. A published round stays what it was, its record says who took part, and exact sums cannot be
undone after noise and later rounds. The mark is for people: it stands on the device, on each of its rounds and in the
ledger, and says which results rest on a signature that may not be the hospital's. When the device sent something is
what this server received and logged, never what the device says.
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from controlplane.audit.models import AuditEntry
from controlplane.audit.services import record
from devices.models import Device
from devices.selectors import DOUBTED
from keys.selectors import compromises
from rounds.models import Submission


def doubtful_submissions(device_id: UUID | str, since: datetime) -> QuerySet[Submission]:
    """What a device handed in from an instant on, in the order of arrival."""
    rows = Submission.objects.filter(participant__device_id=device_id, received_at__gte=since)
    return rows.order_by("received_at")


def mark_doubtful() -> int:
    """Write into the ledger what each newly compromised device had sent since then; returns of how many devices."""
    since = compromises()
    if not since:
        return 0
    told = AuditEntry.objects.filter(event=DOUBTED, subject_kind="device", subject_id__in=list(since))
    left = set(since) - set(told.values_list("subject_id", flat=True))
    for device in Device.objects.filter(pk__in=left).select_related("site__federation"):
        _mark(device, since)
    return len(left)


def _mark(device: Device, since: Mapping[str, datetime]) -> None:
    invalid_from = since[str(device.id)]
    rows = doubtful_submissions(device.id, invalid_from).values_list("participant__round_id", "outcome")
    with transaction.atomic():
        # Two sweeps at once must not tell twice: the second waits here, and then finds the entry.
        Device.objects.select_for_update(no_key=True).get(pk=device.pk)
        if AuditEntry.objects.filter(event=DOUBTED, subject_kind="device", subject_id=str(device.id)).exists():
            return
        record(
            DOUBTED,
            actor="system",
            feed=device.site.federation.feed,
            subject=("device", device.id),
            details={
                "device": str(device.id),
                "invalid_from": invalid_from.isoformat().replace("+00:00", "Z"),
                "submissions": len(rows),
                "counted": sum(outcome == "accepted" for _, outcome in rows),
                "rounds": sorted({str(round_id) for round_id, _ in rows}),
            },
        )
