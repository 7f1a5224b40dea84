"""A worker's process and its database: one connection from task to task, and another when the database ended it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

# In a process of its own, since what is asked is what a forked one does with what it has.
_TASKS = """
import django
django.setup()
from celery.fixups.django import DjangoWorkerFixup
from celery.signals import task_postrun, task_prerun, worker_process_init
from django.db import connection
from controlplane.celery import app

app.finalize()
app.loader.init_worker()
fixup = DjangoWorkerFixup(app).install()  # signals hold it weakly
worker_process_init.send(sender=None)
task = app.tasks["rounds.tasks.sweep"]

def backend():
    task_prerun.send(sender=task, task=task)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        found = cursor.fetchone()[0]
    task_postrun.send(sender=task, task=task)
    return found

print(backend(), backend(), flush=True)
input()
print(backend(), flush=True)
"""


def test_connection_is_kept_from_task_to_task_and_replaced_when_the_database_ends_it() -> None:
    database = connection.settings_dict
    url = f"postgresql://{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    worker = subprocess.Popen(
        [sys.executable, "-c", _TASKS],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "controlplane.settings", "LATTICEWARD_DATABASE_URL": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdin and worker.stdout
        first, second = worker.stdout.readline().split()
        assert first == second
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [int(first)])  # waits until it has ended
        worker.stdin.write("\n")
        worker.stdin.flush()
        assert int(worker.stdout.readline()) != int(first)
    assert worker.returncode == 0
