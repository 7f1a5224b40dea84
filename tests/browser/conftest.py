"""A browser, a control plane, and a watch over everything that a page must not do."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest

from frontend import vendor

ROOT: Final = Path(__file__).resolve().parents[2]
FLAGS: Final = [
    "--headless",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class ControlPlane:
    """A running server and the hand that plays its workers."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LATTICEWARD_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.server", str(port)],
            cwd=ROOT,
            env={**environment, "LATTICEWARD_VAR": str(folder), "LATTICEWARD_PUBLIC_URL": self.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        for _ in range(300):
            assert self._process.poll() is None, "the server did not start"
            try:
                with urlopen(f"{self.url}/healthz", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server did not answer within 30 s")

    def do(self, command: str, **arguments: Any) -> dict[str, str]:
        """One step of the workers; returns when it is committed."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, str] = json.loads(self._process.stdout.readline())
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    vendor.bring(report=False)
    running = ControlPlane(tmp_path_factory.mktemp("var"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    # Not at the top: collecting these tests must not need Playwright.
    from playwright.sync_api import sync_playwright

    path = os.environ.get("LATTICEWARD_TEST_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, plane: ControlPlane) -> Iterator[Any]:
    """A page of an own session; the test fails on any console message, page error, or foreign request."""
    context = chromium.new_context(base_url=plane.url, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    complaints: list[str] = []

    def on_console(message: Any) -> None:
        # A content-security report is a console error too.
        if message.type in ("error", "warning") and not _is_expected(message.text):
            complaints.append(f"{message.type}: {message.text}")

    def on_request(request: Any) -> None:
        if not request.url.startswith((plane.url, "data:")):
            complaints.append(f"foreign request: {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
    page.on("request", on_request)
    yield page
    context.close()
    assert complaints == []


def _is_expected(text: str) -> bool:
    # What a browser itself says when a socket is refused, as it is in the test of a broken line.
    return "WebSocket connection to" in text and "failed" in text


@pytest.fixture
def signed_in(page: Any, plane: ControlPlane) -> Any:
    """The page, signed in by a one-time link."""
    page.goto(f"/sign-in/{plane.do('link')['token']}/")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
    return page
