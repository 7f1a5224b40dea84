"""The operator's side of the REST API, with a session as a browser has it: cookies, CSRF token, one-time link."""

import json
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from typing import Any, Final
from urllib.parse import urlencode
from uuid import uuid4

from bench.processes import DemoError

TIMEOUT_SECONDS: Final = 30.0


class OperatorApi:
    """Requests of one signed-in operator to one control plane."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._cookies = CookieJar()
        # No proxy: the control plane of a demonstration is on this machine.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._cookies)
        )

    def sign_in(self, link: str) -> None:
        """Spend a one-time link as a person does: open its page, press its button."""
        self._send(urllib.request.Request(link))
        form = urlencode({"csrfmiddlewaretoken": self._csrf_token()}).encode("ascii")
        self._send(urllib.request.Request(link, data=form, headers={"Referer": link}))

    def get(self, path: str) -> Any:
        """The JSON at ``path``."""
        return self._json("GET", path, None)

    def rows(self, path: str) -> list[Any]:
        """All rows of the list at ``path``, page after page."""
        found: list[Any] = []
        following: str | None = path
        while following:
            page = self.get(following)
            found += page["results"]
            following = page["next"]
        return found

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to a JSON body."""
        return self._json("POST", path, body)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to a JSON body."""
        return self._json("PUT", path, body)

    def _json(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Accept": "application/json", "Referer": f"{self.address}/"}
        if body is not None:
            headers |= {
                "Content-Type": "application/json",
                "X-CSRFToken": self._csrf_token(),
                "Idempotency-Key": str(uuid4()),
            }
        data = None if body is None else json.dumps(body).encode("utf-8")
        raw = self._send(urllib.request.Request(self.address + path, data=data, headers=headers, method=method))
        return json.loads(raw) if raw else None

    def _send(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                raw: bytes = answer.read()
                return raw
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", errors="replace")
            raise DemoError(f"{request.get_method()} {request.selector} was answered {error.code}: {said}") from error
        except OSError as error:
            raise DemoError(f"the control plane at {self.address} does not answer: {error}") from error

    def _csrf_token(self) -> str:
        return next((cookie.value or "" for cookie in self._cookies if cookie.name == "csrftoken"), "")
