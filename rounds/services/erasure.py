"""Erasing the envelopes of submissions as soon as it is decided that they will never be counted."""

from collections.abc import Iterable
from uuid import UUID

from django.db import transaction

from rounds.models import Submission
from rounds.storage import delete_blob


def erase_after_commit(submission_ids: Iterable[UUID]) -> None:
    """Erase the envelopes of submissions that will never be counted, once the decision is committed.

    Nobody recomputes them, so they need not wait for the window's end. The same bytes may have come from two devices:
    a copy that waits or counts keeps them.
    """
    doomed = list(submission_ids)

    def erase() -> None:
        names = set(Submission.objects.filter(pk__in=doomed).values_list("blob", flat=True))
        needed = Submission.objects.filter(blob__in=names, outcome__in=("", "accepted"))
        for name in names - set(needed.values_list("blob", flat=True)):
            delete_blob(name)

    transaction.on_commit(erase)
