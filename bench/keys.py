"""What keys cost a server in service: requests to authenticate, and what is published about certificates."""

from collections.abc import Iterator
from typing import Any, Final

from bench import fleet
from bench.installation import Installation, installation
from bench.published import revocation_list, status_answers
from bench.signed_requests import DEVICES, enrolled_device, send_all, signed_requests, verified_bare
from latticeward.agent.identity import Identity

REQUESTS: Final = 80
BARE: Final = 2000
NO_ROUND: Final = "6f2b8a4e-1f07-4f0e-9d5a-000000000404"


def run() -> Iterator[dict[str, Any]]:
    """Yields every ``keys`` figure."""
    yield from fleet.run()
    yield _row("crl_10000_ms", revocation_list(), "ms")
    # One address asks as a whole federation does.
    with installation(LATTICEWARD_LIMIT_DEVICE="0", LATTICEWARD_LIMIT_PUBLIC="0") as server:
        server.api.post("/api/v1/sites", {"slug": "northside", "name": "Northside Hospital"})
        devices = [enrolled_device(server, f"bench-{number}") for number in range(DEVICES)]
        yield _row("ocsp_per_s", status_answers(server, devices), "1/s")
        yield from _requests(server, devices)


def _requests(server: Installation, devices: list[Identity]) -> Iterator[dict[str, Any]]:
    def rate(method: str, path: str, query: str, body: bytes, *, expected: int) -> float:
        for count in (REQUESTS // 5, REQUESTS):  # connections, caches and prepared statements first
            sent = [signed_requests(device, method, path, query, body, count=count) for device in devices]
            answered = send_all(server.address, sent, expected=expected)
        return answered

    # A body that is no JSON object: authenticated, digest checked, then refused for its form, so that nothing but
    # authentication is measured.
    join = f"/api/v1/rounds/{NO_ROUND}/join"
    yield _row("signed_requests_bare_per_s", verified_bare(devices[0], count=BARE), "1/s")
    yield _row("signed_requests_door_per_s", rate("POST", join, "", b"[]", expected=400), "1/s")
    yield _row("signed_requests_drf_per_s", rate("GET", "/api/v1/me", "", b"", expected=200), "1/s")
    yield _row("work_questions_per_s", rate("GET", "/api/v1/work", "wait=0", b"", expected=200), "1/s")


def _row(metric: str, value: float, unit: str) -> dict[str, Any]:
    return {"metric": metric, "value": round(value, 1), "unit": unit}
