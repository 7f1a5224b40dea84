"""What keys cost a server in service: requests to authenticate, and what is published about certificates."""

from collections.abc import Iterator
from typing import Any, Final

from bench.installation import Installation, installation
from bench.signed_requests import DEVICES, enrolled_device, send_all, signed_requests

REQUESTS: Final = 300
NO_ROUND: Final = "6f2b8a4e-1f07-4f0e-9d5a-000000000404"


def run() -> Iterator[dict[str, Any]]:
    """Yields every ``keys`` figure."""
    with installation() as server:
        yield from _requests(server)


def _requests(server: Installation) -> Iterator[dict[str, Any]]:
    server.api.post("/api/v1/sites", {"slug": "northside", "name": "Northside Hospital"})
    devices = [enrolled_device(server, f"bench-{number}") for number in range(DEVICES)]

    def rate(method: str, path: str, query: str, body: bytes, *, expected: int) -> float:
        for count in (REQUESTS // 5, REQUESTS):  # connections, caches and prepared statements first
            sent = [signed_requests(device, method, path, query, body, count=count) for device in devices]
            answered = send_all(server.address, sent, expected=expected)
        return round(answered, 1)

    # A body that is no JSON object: authenticated, digest checked, then refused for its form, so that nothing but
    # authentication is measured.
    join = f"/api/v1/rounds/{NO_ROUND}/join"
    yield _row("signed_requests_door_per_s", rate("POST", join, "", b"[]", expected=400), "1/s")
    yield _row("work_questions_per_s", rate("GET", "/api/v1/work", "wait=0", b"", expected=200), "1/s")


def _row(metric: str, value: float, unit: str) -> dict[str, Any]:
    return {"metric": metric, "value": value, "unit": unit}
