"""What must not be kept: round keys after the recomputation window, and blobs that nothing names."""

import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from controlplane.audit.services import record
from rounds.models import ModelExport, ModelVersion, Partial, Round, Submission
from rounds.services.uploads import sweep_orphaned_chunks
from rounds.storage import delete_blob, is_older

RECOMPUTATION_WINDOW: Final = timedelta(days=7)
# A worker stores first and commits then; an orphan this old is no work in flight.
ORPHAN_AGE: Final = timedelta(hours=1)


def destroy_round_keys() -> int:
    """Destroy the secrets of rounds that ended a window ago, and what only they could open; returns how many."""
    old = Round.objects.filter(
        wrapped_decapsulation_seed__isnull=False, closed_at__lt=timezone.now() - RECOMPUTATION_WINDOW
    )
    destroyed = 0
    for ended in old:
        with transaction.atomic():
            rows = Round.objects.filter(pk=ended.pk, wrapped_decapsulation_seed__isnull=False)
            if rows.update(wrapped_decapsulation_seed=None):
                # A partial with one member is that hospital's plain update, so its key goes with the round's.
                Partial.objects.filter(round=ended).update(wrapped_key=b"")
                record("round_key.destroyed", actor="system", feed=ended.feed, subject=("round", ended.id))
                destroyed += 1
                doomed = Partial.objects.filter(round=ended).values_list("blob", flat=True)
                sent = Submission.objects.filter(participant__round=ended).values_list("blob", flat=True)
                kept = set(Submission.objects.exclude(participant__round=ended).values_list("blob", flat=True))
                blobs = (set(doomed) | set(sent)) - kept
                for name in blobs:
                    transaction.on_commit(partial(delete_blob, name))
    return destroyed


def sweep_orphaned_blobs() -> int:
    """Delete blobs that no row names and that are older than any work in flight; returns how many."""
    named = set(Submission.objects.values_list("blob", flat=True))
    named |= set(Partial.objects.values_list("blob", flat=True))
    named |= set(ModelVersion.objects.values_list("body_blob", flat=True))
    named |= set(ModelVersion.objects.exclude(optimiser_blob="").values_list("optimiser_blob", flat=True))
    named |= set(ModelExport.objects.exclude(blob="").values_list("blob", flat=True))
    before = time.time() - ORPHAN_AGE.total_seconds()
    removed = 0
    for path in Path(settings.BLOB_DIR).glob("??/*"):
        if path.name not in named and is_older(path, before):
            delete_blob(path.name)
            removed += 1
    for path in (Path(settings.BLOB_DIR) / "incoming").glob("*"):
        if is_older(path, before):
            path.unlink(missing_ok=True)
            removed += 1
    return removed + sweep_orphaned_chunks(before)
