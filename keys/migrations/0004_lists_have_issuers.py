import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("keys", "0003_several_issuers")]

    operations = [
        migrations.AlterField(
            model_name="revocationlist",
            name="issuer",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="revocation_lists", to="keys.certificate"
            ),
        ),
    ]
