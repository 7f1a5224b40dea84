"""Devices and claims refer to their class, and no longer name it."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("devices", "0003_seed_device_classes")]

    operations = [
        operation
        for model, plural in (("device", "devices"), ("claim", "claims"))
        for operation in (
            # Backwards, the column comes back with this default, and the step before fills it.
            migrations.AlterField(
                model_name=model, name="class_slug", field=models.CharField(default="", max_length=63)
            ),
            migrations.RemoveField(model_name=model, name="class_slug"),
            migrations.AlterField(
                model_name=model,
                name="device_class",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT, related_name=plural, to="devices.deviceclass"
                ),
            ),
        )
    ]
