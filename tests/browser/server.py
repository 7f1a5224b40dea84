"""A real control plane for browser tests, in a process of its own: ``python -m tests.browser.server PORT``.

The same settings, database engine, ASGI application and live hub as embedded mode; only the workers are missing, whose
part the test plays by one JSON line a step on standard input: ``{"do": name, ...}``, answered by one JSON line.
"""

import os
import sys
import threading

import django
import uvicorn


def main(port: int) -> None:
    """Serve until standard input ends."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    django.setup()
    # Only now: models cannot be imported before Django is set up.
    from django.core.management import call_command

    from tests.browser.workers import door, obey

    call_command("migrate", verbosity=0)
    threading.Thread(target=obey, daemon=True).start()
    uvicorn.run(door, host="127.0.0.1", port=port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main(int(sys.argv[1]))
