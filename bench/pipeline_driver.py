"""Drives the rounds of ``bench pipeline``: ``python -m bench.pipeline_driver PARAMETERS`` with the settings of a system
that nobody else uses. Prints one JSON row a line."""

import json
import os
import socket
import sys
from pathlib import Path

import django


def main(parameters: int) -> None:
    """Prepare the system, start its processes, measure."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["LATTICEWARD_PUBLIC_URL"] = f"http://127.0.0.1:{port}"
    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    django.setup()
    # Only now: models cannot be imported before Django is set up.
    from django.core.management import call_command

    from bench.pipeline_rounds import measure
    from controlplane.startup import prepare

    call_command("migrate", verbosity=0)
    prepare()
    for metric, value, unit in measure(parameters, port=port, home=Path(os.environ["LATTICEWARD_VAR"])):
        print(json.dumps({"metric": metric, "value": round(value, 3), "unit": unit}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
