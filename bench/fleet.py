"""A fleet of simulated devices rotates its keys, and leaves a retired suite: all with real keys, through the door.

The devices' rows are made directly; from there on everything is real: each device signs its requests, makes its new
keys, proves them, is issued a certificate by the authority worker's own batches, and checks what it gets. Two processes
are the devices together with the web tier that answers them, one is the authority worker; all share the machine's
cores and one PostgreSQL database, made for the bench and dropped after it.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any, Final

from bench.installation import services

DEVICES: Final = 1000
DEVICE_PROCESSES: Final = 2
AT_ONCE: Final = 200
SITES: Final = 10
# Each process plays so many of its devices at a time.
CONCURRENT: Final = 8
TIMEOUT_SECONDS: Final = 600


def run() -> Iterator[dict[str, Any]]:
    """Seconds from the start of a job until its last device is done, for a rotation and for a retirement."""
    with tempfile.TemporaryDirectory(prefix="latticeward-bench-") as var, services() as addresses:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LATTICEWARD_")}
        environment |= {
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "LATTICEWARD_VAR": var,
            **addresses,
        }
        ran = subprocess.run(
            [sys.executable, "-m", "bench.fleet"], env=environment, stdout=subprocess.PIPE, timeout=TIMEOUT_SECONDS
        )
        if ran.returncode != 0:
            raise RuntimeError(f"the fleet ended with status {ran.returncode}")
        for name, seconds in json.loads(ran.stdout.splitlines()[-1]).items():
            yield {"metric": f"{name}_{DEVICES}_s", "value": round(seconds, 1), "unit": "s"}


# --- inside the process that has the settings ------------------------------------------------------------------------


def main() -> None:
    """Make the fleet, rotate it, retire its suite; prints the seconds as JSON."""
    import django

    django.setup()
    from datetime import timedelta

    from django.core.management import call_command
    from django.utils import timezone

    from devices import rotation, suites
    from devices.models import Federation

    call_command("migrate", verbosity=0)
    devices = make_fleet(DEVICES)
    federation = Federation.objects.get()
    suites.accept_suite(federation=federation, suite="high", actor="bench")
    measured = {}
    with Fleet(devices) as fleet:
        started = time.perf_counter()
        job = rotation.start_rotation(federation=federation, scope="fleet", actor="bench", at_once=AT_ONCE)
        fleet.wait_for(job)
        measured["fleet_rotation"] = time.perf_counter() - started

        started = time.perf_counter()
        retired = rotation.retire_suite(
            federation=federation,
            suite="hybrid",
            retire_at=timezone.now() + timedelta(days=1),
            actor="bench",
            at_once=AT_ONCE,
        )
        assert retired is not None
        fleet.wait_for(retired)
        measured["suite_retirement"] = time.perf_counter() - started
    require_rotated(devices)
    print(json.dumps(measured))


def make_fleet(count: int) -> dict[str, dict[str, str]]:
    """Rows, keys and certificates of ``count`` active devices; their seeds in hexadecimal, by device id."""
    from uuid import uuid4

    from django.db import transaction
    from django.utils import timezone

    from devices.models import Device, DeviceClass
    from devices.services import found_federation, order_for
    from devices.sites import create_site
    from keys.issuing import issue_certificates
    from keys.models import Key, Owner
    from latticeward.device_keys import DeviceKeys

    federation = found_federation(slug="fleet", name="Fleet")
    sites = [
        create_site(federation=federation, slug=f"site-{number}", name=f"Site {number}", actor="bench")
        for number in range(SITES)
    ]
    kind, now = DeviceClass.objects.get(federation=federation, slug="workstation"), timezone.now()
    seeds: dict[str, dict[str, str]] = {}
    for first in range(0, count, 100):
        rows, keys = [], []
        for number in range(first, min(first + 100, count)):
            made = DeviceKeys.generate()
            device = Device(
                id=uuid4(),
                site=sites[number % SITES],
                name=f"device {number}",
                device_class=kind,
                state="active",
                suite="hybrid",
                requested_at=now,
                activated_at=now,
                last_seen_at=now,
            )
            rows.append(device)
            seeds[str(device.id)] = export(made)
            named = {"authentication": made.public.authentication, "classical": made.public.classical}
            named |= {"signing": made.public.signing, "encapsulation": made.public.encapsulation}  # type: ignore[dict-item]
            keys += [
                Key(
                    owner=Owner.DEVICE,
                    subject_id=str(device.id),
                    purpose=role,
                    algorithm=made.public.to_wire()[role]["algorithm"],
                    key_id=key.key_id.hex(),
                    public_key=key.raw,
                    created_at=now,
                )
                for role, key in named.items()
            ]
        with transaction.atomic():
            Device.objects.bulk_create(rows)
            Key.objects.bulk_create(keys)
            issue_certificates([order_for(device, epoch=1) for device in rows], actor="bench", feed=federation.feed)
    return seeds


def export(keys: Any) -> dict[str, str]:
    """A device's seeds, to hand it to its process."""
    roles = ("authentication", "classical", "signing", "decapsulation")
    return {role: getattr(keys, role).export_seed().hex() for role in roles}


def require_rotated(devices: dict[str, dict[str, str]]) -> None:
    """Refuse a figure of a fleet that did not really do it."""
    from devices.models import Device
    from keys.models import Certificate

    done = Device.objects.filter(key_epoch=3, suite="high").count()
    if done != len(devices) or Certificate.objects.filter(key__owner="device").count() != 3 * len(devices):
        raise RuntimeError(f"{done} of {len(devices)} devices have keys of their third epoch")


class Fleet:
    """The devices' processes and the authority worker's, for as long as the context lasts."""

    def __init__(self, devices: dict[str, dict[str, str]]) -> None:
        names = list(devices)
        context = get_context("spawn")
        parts = [{name: devices[name] for name in names[part::DEVICE_PROCESSES]} for part in range(DEVICE_PROCESSES)]
        self._processes = [context.Process(target=play, args=(part,), daemon=True) for part in parts]
        self._processes.append(context.Process(target=issue, daemon=True))

    def __enter__(self) -> "Fleet":
        for process in self._processes:
            process.start()
        time.sleep(8)  # all of them have their settings and have loaded their keys
        return self

    def wait_for(self, job: Any) -> None:
        """Return when a job is over; every process must live until then."""
        while job.state != "completed":
            time.sleep(0.05)
            job.refresh_from_db()
            for process in self._processes:
                if not process.is_alive():
                    raise RuntimeError("a process of the fleet has ended")

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()


def issue() -> None:
    """The authority worker: what its tasks do, without a broker in between."""
    import django

    django.setup()
    from devices.renewal_issuing import issue_renewals
    from devices.rotation_asking import advance_rotations

    while True:
        done = issue_renewals()
        advance_rotations()
        if not done:
            time.sleep(0.05)


def play(seeds: dict[str, dict[str, str]]) -> None:
    """The devices of one process, and the door that answers them."""
    import django

    django.setup()
    asyncio.run(_play(seeds))


async def _play(seeds: dict[str, dict[str, str]]) -> None:
    from asgiref.sync import sync_to_async

    from bench.fleet_device import SimulatedDevice
    from devices.models import Device

    devices = {name: SimulatedDevice(name, values) for name, values in seeds.items()}
    slots = asyncio.Semaphore(CONCURRENT)
    busy: set[str] = set()

    async def renew(name: str, suite: str) -> str:
        async with slots:
            await devices[name].renew(suite)
        return name

    def asked() -> list[tuple[str, str]]:
        rows = Device.objects.filter(pk__in=list(devices)).exclude(renewal_reason="")
        return [(str(identity), suite) for identity, suite in rows.values_list("id", "renewal_suite")]

    running: set[asyncio.Task[str]] = set()
    while True:
        # Before the question: its answer may be older than a renewal that ends while it is asked.
        over = {task for task in running if task.done()}
        busy -= {task.result() for task in over}
        running -= over
        for name, suite in await sync_to_async(asked)():
            if name not in busy:
                busy.add(name)
                running.add(asyncio.create_task(renew(name, suite)))
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    main()
