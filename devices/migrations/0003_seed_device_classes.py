"""Every federation gets the first classes, and every class that a device or claim named becomes a row.

Apart from the changes of the tables, because PostgreSQL alters no table whose rows wait for a check of this transaction.
"""

from typing import Any

from django.db import migrations
from django.utils import timezone

SEEDS: dict[str, dict[str, Any]] = {
    "workstation": {"name": "Workstation", "description": "A computer of a department or a laboratory"},
    "edge-server": {"name": "Edge server", "description": "A server in the hospital's own computer room"},
    "gateway": {"name": "Gateway", "description": "Speaks for machines that cannot", "rotate_after_days": 365},
    "wearable-hub": {
        "name": "Wearable hub",
        "description": "Collects what wearables measure; often without AES instructions",
        "battery": "rechargeable",
        "suite_floor": "constrained",
        "default_suite": "constrained",
        "rotate_after_days": 180,
    },
    "imaging": {"name": "Imaging", "description": "Beside a scanner or an archive of images"},
}


def forwards(apps: Any, schema_editor: Any) -> None:
    device_classes = apps.get_model("devices", "DeviceClass")
    members = [apps.get_model("devices", "Device"), apps.get_model("devices", "Claim")]
    for federation in apps.get_model("devices", "Federation").objects.all():
        named = {
            slug
            for model in members
            for slug in model.objects.filter(site__federation=federation).values_list("class_slug", flat=True)
        }
        for slug in sorted({*SEEDS, *named}):
            terms = {"suite_floor": "hybrid", "default_suite": "hybrid", **SEEDS.get(slug, {"name": slug.capitalize()})}
            row = device_classes.objects.create(federation=federation, slug=slug, created_at=timezone.now(), **terms)
            for model in members:
                model.objects.filter(site__federation=federation, class_slug=slug).update(device_class=row)


def backwards(apps: Any, schema_editor: Any) -> None:
    for name in ("Device", "Claim"):
        for row in apps.get_model("devices", name).objects.select_related("device_class"):
            type(row).objects.filter(pk=row.pk).update(class_slug=row.device_class.slug)


class Migration(migrations.Migration):
    dependencies = [("devices", "0002_device_class")]

    operations = [migrations.RunPython(forwards, backwards)]
