"""The append-only audit ledger: entries, the numbering of live feeds, and signed checkpoints.

An entry is written in the transaction of the change that it tells of, unnumbered; the one sequencer gives it its
leaf number later, as transparency logs do, so that no global lock serialises the control plane. Its place in its
*feed* is fixed at once, under the feed's row lock: that number is what a browser replays from.
"""

import uuid

from django.db import models


class AuditEntry(models.Model):
    """One fact, who caused it, and what it is about. Never updated except for its leaf number and hash."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    event = models.TextField(help_text="<noun>.<past participle>, from audit/events.py")
    actor = models.TextField(help_text="user:<id>, device:<id>, worker:<role> or system")
    subject_kind = models.TextField()
    subject_id = models.TextField()
    details = models.JSONField(default=dict)
    feed = models.TextField(help_text="federation:<id> or round:<id>")
    feed_seq = models.BigIntegerField()
    recorded_at = models.DateTimeField()
    leaf_index = models.BigIntegerField(null=True, unique=True)
    leaf_hash = models.BinaryField(null=True, max_length=32)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["feed", "feed_seq"], name="one_entry_a_feed_number")]
        indexes = [
            models.Index(fields=["subject_kind", "subject_id"]),
            models.Index(fields=["recorded_at"]),
            models.Index(
                fields=["recorded_at"], condition=models.Q(leaf_index__isnull=True), name="entries_not_yet_in_the_tree"
            ),
        ]


class AuditFeed(models.Model):
    """The last number given out in a feed; the row is the feed's lock."""

    name = models.TextField(primary_key=True)
    last_seq = models.BigIntegerField(default=0)


class LedgerState(models.Model):
    """The sequencer's single row: how far the tree has grown, and its frontier."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    size = models.BigIntegerField(default=0)
    frontier = models.BinaryField(default=bytes)


class Checkpoint(models.Model):
    """A signed tree head."""

    size = models.BigIntegerField(primary_key=True)
    root = models.BinaryField(max_length=32)
    note = models.TextField(help_text="the signed note, as served")
    signed_at = models.DateTimeField()
