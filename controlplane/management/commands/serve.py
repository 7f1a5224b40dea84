"""Start the control plane on this machine: web server, workers and heartbeat, and print how to get in."""

import contextlib
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from argparse import ArgumentParser
from types import FrameType
from typing import Any

import uvicorn
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from controlplane.celery import QUEUES
from controlplane.live import hub

FIRST_PORT = 8750
SWITCH_SECONDS = 0.0005


class Command(BaseCommand):
    help = "Start web server, workers and heartbeat. Without a broker everything runs inside this one process."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, help=f"default {FIRST_PORT}, or the next free one")
        parser.add_argument(
            "--announce", choices=("text", "json"), default="text", help="how to say that the server is ready"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        # The web server hands a signal on once it has shut down; unhandled, it would end us before the workers stop.
        signal.signal(signal.SIGTERM, _leave)
        if port is None:
            port = _free_port(host, FIRST_PORT)
            if port != FIRST_PORT and options["announce"] == "text":
                self.stdout.write(f"Port {FIRST_PORT} is in use; taking {port}.")
        elif not _is_free(host, port):
            raise CommandError(f"Port {port} is in use by another program. Choose another with --port.")
        if "LATTICEWARD_PUBLIC_URL" not in os.environ:
            # Child processes read the same variable, so all of them agree on the address.
            os.environ["LATTICEWARD_PUBLIC_URL"] = settings.PUBLIC_URL = f"http://{host}:{port}"
            settings.CSRF_TRUSTED_ORIGINS = [settings.PUBLIC_URL]
        call_command("migrate", interactive=False, verbosity=0)
        self._prepare()
        if settings.EMBEDDED:
            # Web loop, door and workers share one interpreter lock here. A thread that has it keeps it for this long
            # once others ask, and a database call gives it up each time: at the usual 5 ms they wait for each other
            # most of a round.
            sys.setswitchinterval(SWITCH_SECONDS)
        workers = _Workers()
        workers.start()
        try:
            self._serve(host, port, options["announce"])
        finally:
            workers.stop()

    def _prepare(self) -> None:
        from controlplane.startup import prepare
        from latticeward.errors import LatticewardError

        try:
            prepare()
        except LatticewardError as error:
            raise CommandError(str(error)) from error

    def _serve(self, host: str, port: int, announce: str) -> None:
        address = settings.PUBLIC_URL
        links = sign_in_links(address)

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                # Everything loaded by now stays for good: a full collection would walk it for 100 ms in mid-round.
                gc.collect()
                gc.freeze()
                if announce == "json":
                    print(json.dumps({"event": "ready", "address": address, **links}), flush=True)
                else:
                    how = f"\nSign in (once, 10 minutes): {links['sign_in']}" if links else ""
                    print(f"\nLatticeward is ready at {address}{how}\n", flush=True)

            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                hub.end()  # or long polls and sockets would hold the stop for their time
                super().handle_exit(sig, frame)

        config = uvicorn.Config(
            "controlplane.asgi:application",
            host=host,
            port=port,
            lifespan="on",
            log_level="warning",
            access_log=False,
            ws="websockets-sansio",
            timeout_graceful_shutdown=2,
            limit_concurrency=settings.MAX_CONNECTIONS,
            server_header=False,
            # Ours to judge, by the number of trusted proxies (controlplane/addresses.py); the server would believe
            # whoever writes X-Forwarded-For on this machine.
            proxy_headers=False,
        )
        server = Server(config)
        with contextlib.suppress(KeyboardInterrupt):
            server.run()


def sign_in_links(address: str) -> dict[str, str]:
    """One-time links for a machine to try things out; in production none, and no operator is made there.

    A link works once, so a tool that starts the server gets one of its own beside the person's.
    """
    from controlplane.sign_in import first_operator, make_sign_in_link

    if settings.PRODUCTION:
        return {}
    operator = first_operator()
    return {name: f"{address}/sign-in/{make_sign_in_link(operator)}/" for name in ("sign_in", "tool_sign_in")}


class _Workers:
    """Threads of this process without a broker, child processes with one."""

    def __init__(self) -> None:
        self._embedded: Any = None
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        if settings.EMBEDDED:
            from controlplane.embedded import EmbeddedWorker

            self._embedded = EmbeddedWorker()
            self._embedded.start()
            return
        celery = [sys.executable, "-m", "celery", "-A", "controlplane.celery"]
        queues = ",".join(QUEUES)
        commands = [
            [*celery, "worker", "-Q", queues, "-l", "WARNING", "--without-gossip", "--without-mingle"],
            [*celery, "beat", "-l", "WARNING", "-S", "celery.beat:Scheduler"],
        ]
        for command in commands:
            # Not in our process group: Ctrl-C reaches them through us, in order, and not twice.
            self._children.append(subprocess.Popen(command, start_new_session=True))

    def stop(self) -> None:
        if self._embedded:
            self._embedded.stop()
        for child in self._children:
            child.send_signal(signal.SIGTERM)
        for child in self._children:
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                logging.getLogger(__name__).warning("worker %s did not stop in time and was ended", child.pid)
                child.kill()
                child.wait()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_port(host: str, first: int) -> int:
    for port in range(first, first + 100):
        if _is_free(host, port):
            return port
    raise CommandError(f"No free port from {first} to {first + 99}. Choose one with --port.")
