"""Lists and answers know their issuer and what they tell; what was told before is told anew."""

import django.db.models.deletion
from django.db import migrations, models
from django.utils import timezone


def give_lists_their_issuer(apps, schema_editor):
    certificates = apps.get_model("keys", "Certificate").objects
    lists = apps.get_model("keys", "RevocationList").objects
    issuing = certificates.filter(key__owner="authority", key__purpose="issuing").first()
    lists.filter(issuer=None).update(issuer=issuing)
    apps.get_model("keys", "StatusAnswer").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [("keys", "0002_publication")]

    operations = [
        migrations.RemoveField(model_name="statusanswer", name="is_revoked"),
        migrations.AddField(
            model_name="key",
            name="suspended_at",
            field=models.DateTimeField(help_text="since when, while it is suspended", null=True),
        ),
        migrations.AddField(
            model_name="revocationlist",
            name="basis",
            field=models.TextField(
                default="", help_text="what was counted when it was made; another count calls for another list"
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="revocationlist",
            name="issuer",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="revocation_lists",
                to="keys.certificate",
            ),
        ),
        migrations.AddField(
            model_name="statusanswer",
            name="made_at",
            field=models.DateTimeField(default=timezone.now),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="statusanswer",
            name="told",
            field=models.TextField(
                blank=True, default="", help_text="empty for good, else the reason, or certificate_hold"
            ),
            preserve_default=False,
        ),
        migrations.RunPython(give_lists_their_issuer, migrations.RunPython.noop),
    ]
