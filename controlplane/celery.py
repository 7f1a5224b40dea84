"""The Celery application: queues by role, messages of ids only, and the heartbeat.

Queues: ``intake`` opens updates, ``aggregate`` moves rounds on and computes models, ``authority`` signs and issues.
A worker of one role takes one queue, so a stolen intake machine cannot sign. Tasks carry ids, never payloads; they
are idempotent and acknowledged late, so a killed worker's task runs again.
"""

import gc
import os
import sys
from typing import Any

from celery import Celery
from celery.signals import task_postrun, worker_init, worker_process_init
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

QUEUES = ("intake", "aggregate", "authority")
# What is not named here is the aggregate worker's. Whoever signs or issues stands under authority.
ROUTES = {
    "rounds.tasks.process_update": {"queue": "intake"},
    **{f"rounds.tasks.{name}": {"queue": "authority"} for name in ("sign_training", "sign_round", "publish_round")},
    "devices.tasks.*": {"queue": "authority"},
    "keys.tasks.*": {"queue": "authority"},
}

app = Celery("latticeward")


@app.on_configure.connect  # type: ignore[untyped-decorator]
def configure(sender: Any, **_: Any) -> None:
    """Read Django's settings when the application is first used, not when this file is imported."""
    embedded = settings.EMBEDDED
    sender.conf.update(
        broker_url=settings.CELERY_BROKER_URL,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"polling_interval": 0.005} if embedded else {"confirm_publish": True},
        task_default_queue="aggregate",
        task_routes=ROUTES,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_concurrency=settings.CELERY_WORKER_CONCURRENCY,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        # Celery would end every connection before and after each task; ``give_back`` ends those that failed.
        CELERY_DB_REUSE_MAX=sys.maxsize,
        event_queue_expires=60,
        timezone="UTC",
        beat_schedule={
            "sequence the ledger": {"task": "keys.tasks.sequence_ledger", "schedule": 1.0, "options": {"expires": 1.0}},
            "advance rounds and pick up what a crash left": {
                "task": "rounds.tasks.sweep",
                "schedule": 2.0,
                "options": {"expires": 2.0},
            },
            "seal models for newcomers": {
                "task": "rounds.tasks.seal_for_newcomers",
                "schedule": 5.0,
                "options": {"expires": 5.0},
            },
            "renew the server's own keys": {
                "task": "keys.tasks.renew_server_keys",
                "schedule": 600.0,
                "options": {"expires": 600.0},
            },
            "tell of keys that end, destroy those that ended": {
                "task": "keys.tasks.keep_keys",
                "schedule": 300.0,
                "options": {"expires": 300.0},
            },
            "destroy what must not be kept": {
                "task": "rounds.tasks.keep_house",
                "schedule": 3600.0,
                "options": {"expires": 3600.0},
            },
            "devices' and keys' housekeeping": {
                "task": "devices.tasks.sweep",
                "schedule": 5.0,
                "options": {"expires": 5.0},
            },
        },
    )


@worker_init.connect  # type: ignore[untyped-decorator]
def refuse_unsound_worker(**_: Any) -> None:
    """Stop a worker's start with one sentence when a primitive, a key or the set-up is not as it must be."""
    from django.core.management.base import SystemCheckError
    from django.db import connections

    from controlplane.startup import require_sound_process
    from latticeward.errors import LatticewardError

    try:
        require_sound_process()
    except (LatticewardError, SystemCheckError) as error:
        raise SystemExit(str(error)) from error
    # The processes that the worker forks must not share its connection, nor a pool whose threads stay behind.
    for connection in connections.all(initialized_only=True):
        connection.close()
        if close_pool := getattr(connection, "close_pool", None):
            close_pool()


@worker_process_init.connect  # type: ignore[untyped-decorator]
def settle(**_: Any) -> None:
    """Make a process that a worker has forked ready for many tasks."""
    from django.db import connections

    for connection in connections.all():
        # One task at a time: one connection, kept open, and no pool. What the database has ended since the last task is
        # found out before the next one relies on it.
        connection.settings_dict["OPTIONS"].pop("pool", None)
        connection.settings_dict.update(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    # What was loaded before the first task is never garbage: looking through it would stop a task for milliseconds, and
    # write to pages that all of a worker's processes share.
    gc.collect()
    gc.freeze()


@task_postrun.connect  # type: ignore[untyped-decorator]
def give_back(**_: Any) -> None:
    """Let go of connections that failed in this task; the others stay open for the next."""
    from django.db import close_old_connections

    close_old_connections()


app.autodiscover_tasks(["keys", "devices", "rounds"])
