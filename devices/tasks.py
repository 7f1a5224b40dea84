"""What workers do with devices. Every task may run twice or be lost: ``sweep`` finds what was lost."""

from uuid import UUID

from celery import shared_task

from devices import services
from devices.models import Device
from keys.tasks import keep_authority_current, publish_revocations
from latticeward.lifecycle import DeviceState


@shared_task(queue="authority", acks_late=True)
def issue_device(device_id: str) -> None:
    """Make the certificate and key statement of an approved device."""
    services.issue(device_id=UUID(device_id))


@shared_task(queue="authority")
def sweep() -> None:
    """Expire what is over, keep the authority current, and enqueue again what a crash left approved."""
    services.expire_enrolments()
    keep_authority_current.delay()
    publish_revocations.delay()
    for device_id in Device.objects.filter(state=DeviceState.APPROVED).values_list("id", flat=True):
        issue_device.delay(str(device_id))
