"""One-time sign-in links."""

from django.conf import settings
from django.db import models


class SignInLink(models.Model):
    """A link that signs one person in once; only the hash of its token is kept."""

    token_hash = models.CharField(max_length=64, primary_key=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
