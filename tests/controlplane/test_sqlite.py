"""Many threads of one process write to SQLite without a locked database and without lost writes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def test_threads_queue_for_the_writer_and_lose_nothing(tmp_path: Path) -> None:
    # A process of its own: the test settings use plain SQLite in memory, and this is about the real backend.
    program = textwrap.dedent(
        """
        import threading, django
        django.setup()
        from django.core.management import call_command
        from django.db import connection, connections, transaction
        call_command("migrate", "audit", verbosity=0)
        from controlplane.audit.services import record

        def write(name):
            for _ in range(25):
                with transaction.atomic():
                    record("user.signed_in", actor=name, feed="shared", subject=("user", 1))
            try:
                with transaction.atomic():
                    record("user.signed_in", actor=name, feed="shared", subject=("user", 1))
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            connections.close_all()

        threads = [threading.Thread(target=write, args=(f"user:{n}",)) for n in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        from controlplane.audit.models import AuditEntry
        numbers = list(AuditEntry.objects.order_by("feed_seq").values_list("feed_seq", flat=True))
        assert numbers == list(range(1, 201)), numbers
        with connection.cursor() as cursor:
            assert cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        print("held")
        """
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LATTICEWARD_")},
        "LATTICEWARD_VAR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
    }
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.strip() == "held", ran.stderr
