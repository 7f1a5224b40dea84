"""What the authority worker does with keys by the clock."""

from celery import shared_task

from keys import endings, ledger, publication, renewal, rotation, usage


@shared_task
def keep_authority_current() -> None:
    """A new receipt key before the old one ends; a trust statement for a new address or year."""
    rotation.keep_current()


@shared_task
def renew_server_keys() -> None:
    """Renew the server's own keys that have come near their end, the issuing authority included."""
    renewal.keep_renewed()


@shared_task
def keep_keys() -> None:
    """Tell of keys that end soon, destroy the secrets of those out of use, and add up how often keys were used."""
    endings.tell_endings()
    endings.destroy_ended_secrets()
    usage.flush_uses()


@shared_task
def sequence_ledger() -> None:
    """Number what waits, and sign the new head."""
    ledger.keep_ledger()


@shared_task
def publish_revocations() -> None:
    """Renew the revocation list and the status answers that have fallen due."""
    publication.keep_published()
