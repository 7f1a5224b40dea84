"""An installation of the control plane for measurements: a database of its own on PostgreSQL, RabbitMQ, Redis.

The services are those that tests use (``LATTICEWARD_TEST_DATABASE_URL`` and its like, or their usual places on this
machine). Everything that is made here is removed at the end, and only processes that were started here are ended.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import psycopg
from kombu import Connection
from psycopg import sql

from bench.operator_api import OperatorApi
from bench.processes import Processes, start_server
from controlplane.celery import QUEUES
from tests.run import SERVICES


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A running control plane.

    Attributes:
        address: of its web server.
        api: an operator who is signed in.
        folder: its state, with ``logs``; agents of a bench may have their homes here.
        environment: what its processes were started with, for more of them.
        processes: ends them with the installation.
    """

    address: str
    api: OperatorApi
    folder: Path
    environment: dict[str, str]
    processes: Processes


@contextmanager
def installation(**variables: str) -> Iterator[Installation]:
    """Start one, and leave nothing behind.

    Args:
        variables: settings beside the addresses of the services.

    Raises:
        DemoError: a service does not answer, or the server does not start; the text says what to do.
    """
    with tempfile.TemporaryDirectory(prefix="latticeward-bench-") as scratch, services() as addresses:
        folder = Path(scratch)
        environment = {"LATTICEWARD_VAR": str(folder), **addresses, **variables}
        with Processes(logs=folder / "logs", environment=environment) as processes:
            ready: dict[str, Any] = start_server(processes, port=None)
            api = OperatorApi(ready["address"])
            api.sign_in(ready["tool_sign_in"])
            yield Installation(
                address=ready["address"], api=api, folder=folder, environment=environment, processes=processes
            )


@contextmanager
def services() -> Iterator[dict[str, str]]:
    """A database of its own, and the addresses of the other services, as settings of a control plane."""
    addresses = {name: os.environ.get(variable, usual) for name, (variable, usual) in SERVICES.items()}
    with own_database(addresses["PostgreSQL"]) as database:
        _forget_queues(addresses["RabbitMQ"])
        try:
            yield {
                "LATTICEWARD_DATABASE_URL": database,
                "LATTICEWARD_LIVE_URL": addresses["Redis"],
                "LATTICEWARD_BROKER_URL": addresses["RabbitMQ"],
            }
        finally:
            _forget_queues(addresses["RabbitMQ"])


@contextmanager
def own_database(server: str) -> Iterator[str]:
    """The address of a fresh database on a server, dropped at the end."""
    name = f"latticeward_bench_{token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _forget_queues(broker: str) -> None:
    # What an earlier run left on the broker speaks of another database.
    with Connection(broker) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            channel.queue_delete(queue)
