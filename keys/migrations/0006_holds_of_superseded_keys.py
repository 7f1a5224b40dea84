"""Put the earlier certificates of devices that are suspended now on hold as well; the date alone says what is held."""

from typing import Any

from django.db import migrations, models
from django.db.models import F
from django.utils import timezone


def hold(apps: Any, schema_editor: Any) -> None:
    Key = apps.get_model("keys", "Key")
    Key.objects.filter(state="suspended", suspended_at=None).update(suspended_at=F("not_before_at"))
    replaced = Key.objects.filter(state="deactivated", suspended_at=None, not_after_at__gt=timezone.now())
    for row in Key.objects.filter(state="suspended", purpose="authentication").only("subject_id", "suspended_at"):
        replaced.filter(subject_id=row.subject_id).update(suspended_at=row.suspended_at)


class Migration(migrations.Migration):
    dependencies = [("keys", "0005_uses_and_endings")]

    operations = [
        migrations.AlterField(
            model_name="key",
            name="suspended_at",
            field=models.DateTimeField(null=True, help_text="since when, while its subject is suspended"),
        ),
        migrations.RunPython(hold, migrations.RunPython.noop),
    ]
