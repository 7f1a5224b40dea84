"""The JSON of keys: what is known of each, and what became of it. Never a secret, not even wrapped."""

from typing import Any

from rest_framework import serializers

from controlplane.serializers import ListQuery
from keys.models import Owner
from latticeward.lifecycle import KeyState


class KeysQuery(ListQuery):
    """Filters and orders of the keys."""

    orderings = {"created_at": "created_at", "purpose": "purpose", "uses": "uses"}

    owner = serializers.ChoiceField(choices=Owner.values, required=False)
    purpose = serializers.CharField(max_length=40, required=False)
    state = serializers.ChoiceField(choices=sorted(KeyState), required=False)
    algorithm = serializers.CharField(max_length=40, required=False)
    subject = serializers.CharField(max_length=40, required=False, help_text="id of the device or the federation")


class KeyRow(serializers.Serializer[Any]):
    """One key: its SP 800-57 state, its dates, and how often it was used."""

    id = serializers.UUIDField()
    owner = serializers.ChoiceField(choices=Owner.values)
    subject = serializers.CharField(source="subject_id", help_text="id of the device, or of the federation")
    purpose = serializers.CharField()
    algorithm = serializers.CharField()
    key_id = serializers.CharField(help_text="SHA-256 of algorithm id and raw public key")
    epoch = serializers.IntegerField()
    state = serializers.ChoiceField(choices=sorted(KeyState))
    created_at = serializers.DateTimeField()
    not_before_at = serializers.DateTimeField(allow_null=True, help_text="activated")
    not_after_at = serializers.DateTimeField(allow_null=True, help_text="end of its use")
    suspended_at = serializers.DateTimeField(allow_null=True)
    superseded_at = serializers.DateTimeField(allow_null=True)
    overlap_until = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(source="revocation.revoked_at", default=None, allow_null=True)
    reason = serializers.CharField(source="revocation.reason", default=None, allow_null=True)
    invalid_from = serializers.DateTimeField(source="revocation.invalid_from", default=None, allow_null=True)
    uses = serializers.IntegerField(help_text="signed, verified or sealed to; counted in batches")
    last_used_at = serializers.DateTimeField(allow_null=True)


class KeyCertificate(serializers.Serializer[Any]):
    """A certificate of a key."""

    serial = serializers.CharField()
    fingerprint = serializers.CharField(help_text="SHA-256 of the DER")
    not_before_at = serializers.DateTimeField()
    not_after_at = serializers.DateTimeField()


class CertificatesQuery(ListQuery):
    """Filters and orders of the certificates."""

    orderings = {"created_at": "created_at", "not_after_at": "not_after_at"}

    purpose = serializers.CharField(max_length=40, required=False, help_text="of the key")
    subject = serializers.CharField(max_length=40, required=False, help_text="id of the device or the federation")


class CertificateRow(KeyCertificate):
    """A certificate with its key and the standing of that."""

    subject = serializers.CharField(source="key.subject_id", help_text="id of the device, or of the federation")
    purpose = serializers.CharField(source="key.purpose")
    algorithm = serializers.CharField(source="key.algorithm")
    key = serializers.UUIDField(source="key_id")
    state = serializers.ChoiceField(choices=sorted(KeyState), source="key.state", help_text="of the key")
    revoked_at = serializers.DateTimeField(source="key.revocation.revoked_at", default=None, allow_null=True)
    reason = serializers.CharField(source="key.revocation.reason", default=None, allow_null=True)


class KeyEvent(serializers.Serializer[Any]):
    """One entry of the ledger about a key."""

    event = serializers.CharField()
    actor = serializers.CharField()
    at = serializers.DateTimeField(source="recorded_at")
    details = serializers.JSONField()  # type: ignore[var-annotated]


class KeyAnswer(KeyRow):
    """One key with its certificates and its history."""

    certificates = KeyCertificate(many=True)
    history = KeyEvent(many=True, help_text="oldest first")
