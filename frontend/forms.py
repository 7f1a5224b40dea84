"""Every action that a person can take on a page, as a form."""

from django import forms
from django.contrib.auth.forms import AuthenticationForm


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
