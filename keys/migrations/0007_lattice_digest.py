"""Name the ML-KEM key inside each encapsulation key, so that no other key can have the same one."""

import hashlib
from typing import Any

from django.db import migrations, models

# How many bytes at the beginning of a public key are its ML-KEM key.
_LATTICE_BYTES = {"mlkem768-x25519": 1184, "mlkem1024-p384": 1568}


def name_lattice_keys(apps: Any, schema_editor: Any) -> None:
    keys = apps.get_model("keys", "Key")
    seen = set()
    batch = []
    rows = keys.objects.filter(algorithm__in=_LATTICE_BYTES, lattice_digest=None).order_by("created_at")
    for row in rows.only("algorithm", "public_key").iterator(chunk_size=500):
        row.lattice_digest = hashlib.sha256(bytes(row.public_key)[: _LATTICE_BYTES[row.algorithm]]).hexdigest()
        # Of two keys that share one, the later one is left without a name: it was registered when that was allowed.
        if row.lattice_digest not in seen:
            seen.add(row.lattice_digest)
            batch.append(row)
        if len(batch) == 500:
            keys.objects.bulk_update(batch, ["lattice_digest"])
            batch = []
    keys.objects.bulk_update(batch, ["lattice_digest"])


class Migration(migrations.Migration):
    dependencies = [
        ("keys", "0006_holds_of_superseded_keys"),
    ]

    operations = [
        migrations.AddField(
            model_name="key",
            name="lattice_digest",
            field=models.CharField(
                blank=True,
                help_text="hex SHA-256 of the ML-KEM key in it: no two keys share one",
                max_length=64,
                null=True,
                unique=True,
            ),
        ),
        migrations.AlterField(
            model_name="key",
            name="purpose",
            field=models.TextField(help_text="a role of the vault's table or of a device's four keys, or encipherment"),
        ),
        migrations.RunPython(name_lattice_keys, migrations.RunPython.noop, elidable=True),
    ]
