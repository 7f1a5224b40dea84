"""The JSON of sites, devices, claims and enrolments."""

import base64
import binascii
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from controlplane.serializers import ListQuery
from keys.models import Reason
from latticeward.lifecycle import DeviceState, KeyState

_FIELD_LIMIT_CHARS: Final = 48_000
# In the last group the bits past the last byte are zero, so each value has one text.
_CANONICAL: Final = "^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?$"


@extend_schema_field({"type": "string", "pattern": _CANONICAL, "maxLength": _FIELD_LIMIT_CHARS})
class Base64UrlField(serializers.Field[bytes, str, str, Any]):
    """Bytes as base64url without padding, in its only canonical form."""

    def to_internal_value(self, data: Any) -> bytes:
        if not isinstance(data, str) or len(data) > _FIELD_LIMIT_CHARS:
            raise serializers.ValidationError("base64url text is expected, within bounds")
        try:
            raw = base64.b64decode(data + "=" * (-len(data) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as exc:
            raise serializers.ValidationError("not base64url") from exc
        if self.to_representation(raw) != data:
            raise serializers.ValidationError("not base64url in its canonical form")
        return raw

    def to_representation(self, value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode("ascii").rstrip("=")


class BeginSerializer(serializers.Serializer[Any]):
    """The body of ``POST /api/v1/enrolments``."""

    transcript = Base64UrlField()
    mac = Base64UrlField()


class BegunSerializer(serializers.Serializer[Any]):
    """Its answer."""

    enrolment = serializers.UUIDField()
    answer = Base64UrlField()
    mac = Base64UrlField()


class SignaturesSerializer(serializers.Serializer[Any]):
    """The three signatures over T2."""

    authentication = Base64UrlField()
    classical = Base64UrlField()
    signing = Base64UrlField()


class FinishSerializer(serializers.Serializer[Any]):
    """The body of ``POST /api/v1/enrolments/{id}/finish``."""

    challenge_mac = Base64UrlField()
    signatures = SignaturesSerializer()


class FinishedSerializer(serializers.Serializer[Any]):
    """Its answer."""

    device = serializers.UUIDField()
    state = serializers.CharField()


class DevicesQuery(ListQuery):
    """Filters and orders of the fleet."""

    orderings = {"name": "name", "requested_at": "requested_at", "site": "site__slug", "state": "state"}
    default_ordering = "site"

    state = serializers.ChoiceField(choices=sorted(DeviceState), required=False)
    suite = serializers.CharField(max_length=40, required=False)
    site = serializers.SlugField(max_length=63, required=False, help_text="slug of the hospital")
    device_class = serializers.SlugField(max_length=63, required=False)


class DoubtSerializer(serializers.Serializer[Any]):
    """What of a compromised device is marked."""

    invalid_from = serializers.DateTimeField(help_text="nothing that it signed from then on may be believed")
    submissions = serializers.IntegerField(allow_null=True, help_text="sent since then; null until they are marked")
    counted = serializers.IntegerField(allow_null=True, help_text="of these, how many rounds count")
    rounds = serializers.ListField(child=serializers.UUIDField(), help_text="that they were sent to")


class DeviceSerializer(serializers.Serializer[Any]):
    """A row of the fleet."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    site = serializers.CharField(help_text="slug of the hospital")
    site_name = serializers.CharField()
    device_class = serializers.CharField()
    state = serializers.CharField()
    silent = serializers.BooleanField()
    suite = serializers.CharField()
    key_epoch = serializers.IntegerField()
    requested_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField(allow_null=True)
    certificate_not_after_at = serializers.DateTimeField(allow_null=True)
    fingerprint = serializers.CharField(help_text="of the signing key, to compare with what the machine shows")
    doubt = DoubtSerializer(allow_null=True, help_text="of a compromised device")


class OwnKeySerializer(serializers.Serializer[Any]):
    """One key of the device that asks."""

    purpose = serializers.CharField()
    algorithm = serializers.CharField()
    key_id = serializers.CharField(help_text="hexadecimal, 32 bytes")
    epoch = serializers.IntegerField()
    state = serializers.ChoiceField(choices=sorted(KeyState))
    not_after = serializers.DateTimeField(allow_null=True)


class MeSerializer(serializers.Serializer[Any]):
    """What the server knows of the device that asks."""

    device = serializers.UUIDField()
    name = serializers.CharField()
    federation = serializers.UUIDField()
    site = serializers.CharField(help_text="slug of the hospital")
    device_class = serializers.CharField()
    state = serializers.ChoiceField(choices=sorted(DeviceState))
    suite = serializers.CharField()
    key_epoch = serializers.IntegerField()
    keys = OwnKeySerializer(many=True)
    certificate_not_after = serializers.DateTimeField(allow_null=True)
    renew_from = serializers.DateTimeField(allow_null=True, help_text="two thirds of the keys' validity")
    server_time = serializers.DateTimeField()


class DecisionSerializer(serializers.Serializer[Any]):
    """Why a person decided so; kept in the ledger."""

    why = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")


class RevokeSerializer(serializers.Serializer[Any]):
    """The reason of a revocation, and for a compromise since when."""

    reason = serializers.ChoiceField(choices=Reason.choices)
    invalid_from = serializers.DateTimeField(required=False, allow_null=True, default=None)
