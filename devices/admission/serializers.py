"""The JSON of hospitals, device classes and claim codes."""

from typing import Any

from rest_framework import serializers

from controlplane.serializers import ListQuery
from devices.claims import lookup_of
from devices.models import Battery, Claim

_CSV_LIMIT_CHARS = 100_000


class SiteChangeSerializer(serializers.Serializer[Any]):
    """What can be changed of a hospital; what is left out stays."""

    name = serializers.CharField(max_length=200, required=False)
    time_zone = serializers.CharField(max_length=64, required=False, help_text="IANA name, for example Europe/Berlin")
    contact_name = serializers.CharField(max_length=100, required=False, allow_blank=True)
    contact_email = serializers.CharField(max_length=254, required=False, allow_blank=True)
    contact_phone = serializers.CharField(max_length=40, required=False, allow_blank=True)


class SiteSerializer(SiteChangeSerializer):
    """A hospital."""

    id = serializers.UUIDField(read_only=True)
    slug = serializers.SlugField(max_length=63)
    name = serializers.CharField(max_length=200)
    created_at = serializers.DateTimeField(read_only=True)


class SitesQuery(ListQuery):
    """Orders of the list of hospitals."""

    orderings = {"created_at": "created_at", "name": "name", "slug": "slug"}
    default_ordering = "name"


class DeviceClassChangeSerializer(serializers.Serializer[Any]):
    """What can be changed of a device class; what is left out stays, what may be null then means never."""

    name = serializers.CharField(max_length=100, required=False)
    description = serializers.CharField(max_length=200, required=False, allow_blank=True)
    battery = serializers.ChoiceField(choices=Battery.values, required=False)
    suite_floor = serializers.CharField(max_length=40, required=False, help_text="id of the weakest suite it may use")
    default_suite = serializers.CharField(max_length=40, required=False, help_text="chosen where all accept it")
    auto_approve = serializers.BooleanField(required=False, help_text="unless the claim says otherwise")
    certificate_days = serializers.IntegerField(required=False, help_text="1 to 366")
    rotate_after_days = serializers.IntegerField(required=False, allow_null=True, help_text="1 to 3650, or never")
    rotate_after_uses = serializers.IntegerField(required=False, allow_null=True, help_text="1 to 2^48, or never")


class DeviceClassSerializer(DeviceClassChangeSerializer):
    """A device class."""

    id = serializers.UUIDField(read_only=True)
    slug = serializers.SlugField(max_length=63)
    name = serializers.CharField(max_length=100)
    created_at = serializers.DateTimeField(read_only=True)


class DeviceClassesQuery(ListQuery):
    """Orders of the list of device classes."""

    orderings = {"created_at": "created_at", "name": "name", "slug": "slug"}
    default_ordering = "name"


class _ClaimTermsSerializer(serializers.Serializer[Any]):
    auto_approve = serializers.BooleanField(allow_null=True, default=None, help_text="null: as the class says")
    hours = serializers.IntegerField(
        min_value=1, max_value=720, allow_null=True, default=None, help_text="null: as long as this installation allows"
    )


class ClaimOrderSerializer(_ClaimTermsSerializer):
    """What a claim code is to be made for."""

    site = serializers.SlugField(max_length=63)
    device_class = serializers.SlugField(max_length=63, default="workstation")
    bound_to = serializers.CharField(
        max_length=64, default="", allow_blank=True, help_text="fingerprint of the one signing key that may use it"
    )


class ClaimBulkSerializer(_ClaimTermsSerializer):
    """Many codes at once: CSV with the columns site, device_class and optionally count and fingerprint."""

    csv = serializers.CharField(max_length=_CSV_LIMIT_CHARS, trim_whitespace=False)


class ClaimSerializer(serializers.Serializer[Any]):
    """A claim as it can be seen at any time: without its secret."""

    id = serializers.UUIDField()
    lookup = serializers.SerializerMethodField(help_text="its name for people; the code begins with it")
    site = serializers.CharField(source="site.slug")
    device_class = serializers.CharField(source="device_class.slug")
    auto_approve = serializers.BooleanField(allow_null=True)
    bound_to = serializers.CharField(source="bound_fingerprint")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    consumed_at = serializers.DateTimeField(allow_null=True)

    def get_lookup(self, claim: Claim) -> str:
        return lookup_of(claim)


class WatchedClaimSerializer(ClaimSerializer):
    """A claim with the wrong attempts of the last minutes."""

    refusals = serializers.SerializerMethodField(help_text="wrong codes that were tried in the last ten minutes")

    def get_refusals(self, claim: Claim) -> int:
        counted: dict[Any, int] = self.context.get("refusals", {})
        return counted.get(claim.id, 0)


class ClaimsQuery(ListQuery):
    """Filters and orders of the claim codes."""

    orderings = {"created_at": "created_at", "expires_at": "expires_at"}

    site = serializers.SlugField(max_length=63, required=False, help_text="slug of the hospital")
    device_class = serializers.SlugField(max_length=63, required=False)
    consumed = serializers.BooleanField(required=False, help_text="only used or cancelled ones, or only the others")


class CodeSerializer(ClaimSerializer):
    """A claim in the one answer that shows its code."""

    code = serializers.CharField(help_text="to be typed")
    uri = serializers.CharField(help_text="for a QR code or a file")


class NewClaimSerializer(CodeSerializer):
    """One new claim, with its QR code drawn."""

    qr = serializers.CharField(help_text="the machine form as an SVG element")
