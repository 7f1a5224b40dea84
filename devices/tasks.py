"""What workers do with devices. Every task may run twice or be lost: ``sweep`` finds what was lost."""

from typing import Final

from celery import shared_task
from django.core.cache import cache

from devices import (
    encipherment,
    encipherment_issuing,
    nonces,
    renewal,
    renewal_issuing,
    rotation_asking,
    services,
    suites,
)
from devices.models import Device, Encipherment, Federation, Renewal
from keys.tasks import keep_authority_current, publish_revocations
from latticeward.lifecycle import DeviceState, EnciphermentState, RenewalState

# A message that nobody took up in this time is taken for lost.
_ASKED_SECONDS: Final = 2
_ASKED: Final = "issuing-asked"


def ask_to_issue() -> None:
    """Have the authority worker issue for all devices that are approved by now: one message for many of them.

    Whoever finds the mark set need not send a message: the worker removes the mark before it looks who waits. A message
    that is lost is found missing by ``sweep``.
    """
    if cache.add(_ASKED, 1, timeout=_ASKED_SECONDS):
        issue_devices.delay()


@shared_task(acks_late=True)
def issue_devices() -> None:
    """Make certificates and statements of all approved devices."""
    cache.delete(_ASKED)
    while services.issue_approved(limit=services.ISSUING_BATCH) == services.ISSUING_BATCH:
        pass


@shared_task(acks_late=True)
def issue_renewals() -> None:
    """Make the certificates of all proven renewals; whichever call comes first does the work of those behind it."""
    while renewal_issuing.issue_renewals() == renewal_issuing.BATCH:
        pass
    rotation_asking.advance_rotations()


@shared_task(acks_late=True)
def issue_encipherments() -> None:
    """Make the certificates of all proven encipherment keys, and the lists that name the ones they supersede."""
    while encipherment_issuing.issue_encipherments() == encipherment_issuing.BATCH:
        pass
    publish_revocations.delay()


@shared_task
def advance_rotations() -> None:
    """Ask the first devices of a new rotation, and the next ones of those that run."""
    rotation_asking.advance_rotations()


@shared_task
def sweep() -> None:
    """Expire what is over, keep the authority current, and enqueue again what a crash left approved."""
    services.expire_enrolments()
    renewal.forget_challenges()
    nonces.forget_ended()
    encipherment.forget_challenges()
    suites.retire_due()
    for federation in Federation.objects.all():
        rotation_asking.ask_due(federation)
    rotation_asking.advance_rotations()
    keep_authority_current.delay()
    publish_revocations.delay()
    if Device.objects.filter(state=DeviceState.APPROVED).exists():
        ask_to_issue()
    if Renewal.objects.filter(state=RenewalState.PROVEN).exists():
        issue_renewals.delay()
    if Encipherment.objects.filter(state=EnciphermentState.PROVEN).exists():
        issue_encipherments.delay()
