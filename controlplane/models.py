"""What the control plane remembers about people's requests: sign-in links, and answers to repeat."""

from django.conf import settings
from django.db import models


class SignInLink(models.Model):
    """A link that signs one person in once; only the hash of its token is kept."""

    token_hash = models.CharField(max_length=64, primary_key=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)


class KeptAnswer(models.Model):
    """The first answer to a write that carried an idempotency key; without a status it is still being worked on."""

    actor = models.CharField(max_length=80, help_text="whose key this is: user:<id> or device:<id>")
    key = models.CharField(max_length=128)
    fingerprint = models.CharField(max_length=64, help_text="hex SHA-256 of method, address and body")
    attempt = models.UUIDField(help_text="who works on it now; changes when an attempt that died is taken over")
    begun_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    status = models.PositiveSmallIntegerField(null=True)
    body = models.TextField(default="", help_text="the JSON that was answered, without what is shown only once")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["actor", "key"], name="one_answer_a_key")]
