"""Every action that a person can take on a page, as a form."""

from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import Any, Final
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm

from devices.models import Battery, DeviceClass, Federation, Scope, Site
from devices.sites import time_zones
from latticeward.crypto.suites import MAKEABLE, SUITES
from latticeward.jobs import JOB_SPECS
from latticeward.model_files import MODEL_FORMATS

ORDER_LIMIT_BYTES: Final = 100_000
_LOOKS: Final = {
    "select": "form-select",
    "checkbox": "form-check-input",
}


class SignInForm(AuthenticationForm):
    """Name and password; pasting and password managers are welcome."""

    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": "Name and password do not belong together. Both are case-sensitive.",
    }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.label_suffix = ""
        for field in self.fields.values():
            field.widget.attrs["class"] = "form-control"


class ApproveForm(forms.Form):
    """Letting a device in: the person says that they compared the fingerprint."""

    compared = forms.BooleanField(
        error_messages={"required": "Compare the fingerprint with the device's screen first, then tick the box."}
    )


class DeclineForm(forms.Form):
    """Not letting a device in: the reason goes into the ledger."""

    reason = forms.CharField(
        max_length=200, error_messages={"required": "Say in a few words why: the reason goes into the ledger."}
    )


class LookingForm(forms.Form):
    """A form in the looks of the pages; ``_form.html`` shows it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        for field in self.fields.values():
            look = _LOOKS.get(getattr(field.widget, "input_type", ""), "form-control")
            field.widget.attrs.setdefault("class", look)
            field.widget.attrs.setdefault("autocomplete", "off")


class HoursField(forms.IntegerField):
    """For how long a claim code is good; the installation's limit is the most and the default."""

    def __init__(self) -> None:
        limit = settings.CLAIM_HOURS
        super().__init__(min_value=1, max_value=limit, initial=limit, label="Good for, in hours")


class ClaimForm(LookingForm):
    """One claim code for one machine."""

    prefix = "one"
    site = forms.ModelChoiceField(Site.objects.none(), label="Hospital", empty_label=None)
    device_class = forms.ModelChoiceField(DeviceClass.objects.none(), label="Device class", empty_label=None)
    approval = forms.ChoiceField(
        choices=[
            ("class", "as the class says"),
            ("person", "a person compares the fingerprint"),
            ("automatic", "at once, without a person"),
        ],
        label="Approval",
    )
    bound_to = forms.CharField(
        required=False,
        max_length=64,
        label="Only for the key with this fingerprint",
        help_text="As the agent prints it. Leave it empty if the machine has not made its keys yet.",
    )

    hours = HoursField()

    def __init__(self, federation: Federation | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["site"].queryset = Site.objects.filter(federation=federation).order_by("name")  # type: ignore[attr-defined]
        classes = DeviceClass.objects.filter(federation=federation).order_by("name")
        self.fields["device_class"].queryset = classes  # type: ignore[attr-defined]

    @property
    def auto_approve(self) -> bool | None:
        """None for what the class says."""
        return {"class": None, "person": False, "automatic": True}[self.cleaned_data["approval"]]


class ClaimBulkForm(LookingForm):
    """Many claim codes from a CSV file or from what was pasted."""

    prefix = "many"
    file = forms.FileField(required=False, label="CSV file", max_length=200)
    text = forms.CharField(
        required=False,
        strip=False,
        max_length=ORDER_LIMIT_BYTES,
        label="or its lines",
        widget=forms.Textarea(attrs={"rows": 4, "placeholder": "site,device_class,count", "class": "form-control"}),
        help_text="Columns: site, device_class, and if wanted count and fingerprint. All codes are made, or none.",
    )
    hours = HoursField()

    def clean(self) -> dict[str, Any]:
        """One of the two, as text under ``order``."""
        values = super().clean() or {}
        file, text = values.get("file"), values.get("text") or ""
        if bool(file) == bool(text.strip()):
            raise forms.ValidationError("Choose a file or write the lines: one of the two.")
        if file:
            if file.size > ORDER_LIMIT_BYTES:
                raise forms.ValidationError("The file is larger than any order: 100 kB at most.")
            try:
                text = file.read().decode("utf-8-sig")
            except UnicodeDecodeError as exc:
                raise forms.ValidationError("The file is not text in UTF-8.") from exc
        return {**values, "order": text}


class SiteForm(LookingForm):
    """What is kept of a hospital."""

    name = forms.CharField(max_length=200)
    time_zone = forms.CharField(
        max_length=64,
        initial="UTC",
        label="Time zone",
        help_text="Its IANA name, for example Europe/Berlin.",
        widget=forms.TextInput(attrs={"list": "time-zones", "class": "form-control"}),
    )
    contact_name = forms.CharField(required=False, max_length=100, label="Contact")
    contact_email = forms.CharField(required=False, max_length=254, label="E-mail")
    contact_phone = forms.CharField(required=False, max_length=40, label="Telephone")

    def zones(self) -> list[str]:
        """What the field offers while somebody types."""
        return sorted(time_zones())


class NewSiteForm(SiteForm):
    """A hospital that is added."""

    slug = forms.CharField(
        max_length=63, help_text="Lower-case letters, digits, hyphens. It stands in certificates and stays as it is."
    )
    field_order = ("slug",)


class ClassForm(LookingForm):
    """What a device class says."""

    name = forms.CharField(max_length=100)
    description = forms.CharField(required=False, max_length=200)
    battery = forms.ChoiceField(choices=Battery.choices, label="Lives")
    suite_floor = forms.ChoiceField(label="Suite floor", help_text="Offers of weaker suites are refused.")
    default_suite = forms.ChoiceField(
        label="Default suite", help_text="Chosen where the federation and the device accept it."
    )
    auto_approve = forms.BooleanField(required=False, label="Approve without a person, unless the claim says otherwise")
    certificate_days = forms.IntegerField(label="Certificates live, in days")
    rotate_after_days = forms.IntegerField(required=False, label="Rotate keys after days", help_text="Empty: never.")
    rotate_after_uses = forms.IntegerField(required=False, label="Rotate keys after uses", help_text="Empty: never.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(suite.id, f"{suite.id}: {suite.title}") for suite in SUITES.values() if suite.status in MAKEABLE]
        for name in ("suite_floor", "default_suite"):
            self.fields[name].choices = choices  # type: ignore[attr-defined]


class NewClassForm(ClassForm):
    """A device class that is added."""

    slug = forms.CharField(
        max_length=63, help_text="Lower-case letters, digits, hyphens. It stands in claim codes and stays as it is."
    )
    field_order = ("slug",)


_REASON = {"required": "Say in a few words why: the reason goes into the ledger."}


class ReasonForm(forms.Form):
    """A decision that needs no more than its reason."""

    reason = forms.CharField(max_length=500, error_messages=_REASON)


class ProposeForm(ReasonForm):
    """Proposing that an alias points at a version."""

    alias = forms.RegexField(
        r"^[a-z][a-z0-9-]{0,39}$",
        error_messages={
            "required": "Name the alias, for example production.",
            "invalid": "An alias has 1 to 40 lower-case letters, digits and hyphens, a letter first.",
        },
    )


class ExportForm(ReasonForm):
    """Asking for a version as a file."""

    format = forms.ChoiceField(
        choices=[(name, name) for name in MODEL_FORMATS], error_messages={"required": "Choose a format."}
    )
    licence = forms.CharField(max_length=200, required=False)


class CompareForm(forms.Form):
    """The version to compare with."""

    other = forms.UUIDField()


class TrainingForm(LookingForm):
    """A new training: what is learned, for how long, and what it starts from.

    Args:
        starts: versions that may be a start, as id and label.
    """

    job = forms.ChoiceField(choices=[(spec.name, spec.title) for spec in JOB_SPECS.values()])
    start_from = forms.ChoiceField(required=False, label="Starts from")
    title = forms.CharField(required=False, max_length=200, help_text="Empty: the job's own.")
    rounds = forms.IntegerField(
        required=False, min_value=1, max_value=10_000, help_text="At most. Empty: as many as the job proposes."
    )

    def __init__(self, starts: Sequence[tuple[str, str]], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["start_from"].choices = [("", "what the job describes"), *starts]  # type: ignore[attr-defined]

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for, as ``plan_for`` reads it: empty fields are not in it."""
        asked = {name: value for name, value in self.cleaned_data.items() if value}
        return {**asked, "start_from": UUID(asked["start_from"])} if "start_from" in asked else asked


class RotationForm(LookingForm):
    """Which devices are to renew their keys now."""

    scope = forms.ChoiceField(choices=Scope.choices, label="Devices of")
    value = forms.SlugField(required=False, max_length=63, label="Which: slug of the hospital or class, or the suite")

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        named = values.get("scope") in (Scope.SITE, Scope.DEVICE_CLASS, Scope.SUITE)
        if named and not values.get("value"):
            self.add_error("value", "Say which one.")
        if not named:
            values["value"] = ""
        return values


class RetireSuiteForm(LookingForm):
    """From when on a suite makes nothing new: a day to come, or now."""

    retire_at = forms.DateField(required=False)
    now = forms.BooleanField(required=False)

    def clean(self) -> dict[str, Any]:
        """``retire_at`` is the beginning of the day, UTC, or None for now."""
        values: dict[str, Any] = super().clean() or {}
        day = values.get("retire_at")
        if values.pop("now", False) == (day is not None):
            raise forms.ValidationError("Name the day from which the suite makes nothing new, or tick now: not both.")
        return {"retire_at": datetime.combine(day, time(), tzinfo=UTC) if day else None}
