"""What keys cost a server in service: requests to authenticate, and what is published about certificates."""

from collections.abc import Iterator
from typing import Any, Final

from bench.installation import Installation, installation
from bench.signed_requests import DEVICES, enrolled_device, send_all, signed_requests

DOOR_REQUESTS: Final = 300
UNKNOWN_ROUND: Final = "6f2b8a4e-1f07-4f0e-9d5a-000000000404"


def run() -> Iterator[dict[str, Any]]:
    """Yields every ``keys`` figure."""
    with installation() as server:
        yield from _requests(server)


def _requests(server: Installation) -> Iterator[dict[str, Any]]:
    server.api.post("/api/v1/sites", {"slug": "northside", "name": "Northside Hospital"})
    devices = [enrolled_device(server, f"bench-{number}") for number in range(DEVICES)]

    def rate(path: str, query: str, *, each: int, expected: int) -> float:
        for count in (each // 5, each):  # connections, caches and prepared statements first
            sent = [signed_requests(device, path, query, count=count) for device in devices]
            answered = send_all(server.address, sent, expected=expected)
        return round(answered, 1)

    # A round that does not exist: after the whole of authentication there is one look into the database.
    path = f"/api/v1/rounds/{UNKNOWN_ROUND}/assignment"
    yield _row("signed_requests_door_per_s", rate(path, "", each=DOOR_REQUESTS, expected=404), "1/s")
    yield _row("work_questions_per_s", rate("/api/v1/work", "wait=0", each=DOOR_REQUESTS, expected=200), "1/s")


def _row(metric: str, value: float, unit: str) -> dict[str, Any]:
    return {"metric": metric, "value": value, "unit": unit}
