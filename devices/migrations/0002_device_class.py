"""Device classes become rows; the words that stood in their place stay beside them until the next step."""

import uuid

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("devices", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="DeviceClass",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("slug", models.SlugField(max_length=63)),
                ("name", models.CharField(max_length=100)),
                ("description", models.CharField(default="", max_length=200)),
                (
                    "battery",
                    models.CharField(
                        choices=[
                            ("mains", "on the mains"),
                            ("rechargeable", "charged every day"),
                            ("wearable", "worn, charged when it can be"),
                        ],
                        default="mains",
                        max_length=16,
                    ),
                ),
                (
                    "suite_floor",
                    models.CharField(help_text="the weakest suite that a device of this class may use", max_length=40),
                ),
                (
                    "default_suite",
                    models.CharField(help_text="chosen when the federation and the device accept it", max_length=40),
                ),
                ("auto_approve", models.BooleanField(default=False, help_text="unless the claim says otherwise")),
                ("certificate_days", models.PositiveSmallIntegerField(default=90)),
                (
                    "rotate_after_days",
                    models.PositiveSmallIntegerField(help_text="null: never for its age", null=True),
                ),
                (
                    "rotate_after_uses",
                    models.PositiveBigIntegerField(help_text="signatures; null: never for their number", null=True),
                ),
                ("created_at", models.DateTimeField()),
                (
                    "federation",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="device_classes",
                        to="devices.federation",
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("federation", "slug"), name="one_device_class_a_slug")],
            },
        ),
        *(
            operation
            for model, plural in (("device", "devices"), ("claim", "claims"))
            for operation in (
                migrations.RenameField(model_name=model, old_name="device_class", new_name="class_slug"),
                migrations.AddField(
                    model_name=model,
                    name="device_class",
                    field=models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name=plural,
                        to="devices.deviceclass",
                    ),
                ),
            )
        ),
        migrations.AlterField(
            model_name="claim",
            name="auto_approve",
            field=models.BooleanField(default=None, help_text="null: as the class says when it is used", null=True),
        ),
    ]
