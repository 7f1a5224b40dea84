"""What workers do with devices. Every task may run twice or be lost: ``sweep`` finds what was lost."""

from uuid import UUID

from celery import shared_task

from devices import renewal, renewal_issuing, rotation, services, suites
from devices.models import Device, Federation, Renewal
from keys.tasks import keep_authority_current, publish_revocations
from latticeward.lifecycle import DeviceState, RenewalState


@shared_task(acks_late=True)
def issue_device(device_id: str) -> None:
    """Make certificate and statement of an approved device; the first call does the work of those behind it."""
    while Device.objects.filter(pk=UUID(device_id), state=DeviceState.APPROVED).exists():
        if services.issue_approved(limit=services.ISSUING_BATCH) < services.ISSUING_BATCH:
            return


@shared_task(acks_late=True)
def issue_renewals() -> None:
    """Make the certificates of all proven renewals; whichever call comes first does the work of those behind it."""
    while renewal_issuing.issue_renewals() == renewal_issuing.BATCH:
        pass
    rotation.advance_rotations()


@shared_task
def advance_rotations() -> None:
    """Ask the first devices of a new rotation, and the next ones of those that run."""
    rotation.advance_rotations()


@shared_task
def sweep() -> None:
    """Expire what is over, keep the authority current, and enqueue again what a crash left approved."""
    services.expire_enrolments()
    renewal.forget_challenges()
    suites.retire_due()
    for federation in Federation.objects.all():
        rotation.ask_due(federation)
    rotation.advance_rotations()
    keep_authority_current.delay()
    publish_revocations.delay()
    for device_id in Device.objects.filter(state=DeviceState.APPROVED).values_list("id", flat=True):
        issue_device.delay(str(device_id))
    if Renewal.objects.filter(state=RenewalState.PROVEN).exists():
        issue_renewals.delay()
