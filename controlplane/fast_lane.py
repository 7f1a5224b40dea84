"""Views that need no session and are asked all day: called without Django's handler and middleware.

Under ASGI the framework spends more on such a request (a thread of its own, ten layers of middleware) than the view
does on its answer. A lane calls the same view function that stands in the table of addresses, in a few threads, with
the same request object, and nothing of it may depend on middleware: no session, no CSRF, no messages.
"""

import asyncio
import functools
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpResponse
from django.template.response import SimpleTemplateResponse

from controlplane.errors import problem_response
from latticeward.errors import (
    LatticewardError,
    MalformedMessageError,
    MessageTooLargeError,
    ProtocolError,
    SlowRequestError,
)

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
View = Callable[..., HttpResponse]

# An enrolment's transcript is the longest thing that is said here.
BODY_LIMIT_BYTES: Final = 64 * 1024
BODY_SECONDS: Final = 10.0
UUID_PATTERN: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

logger = logging.getLogger(__name__)
_threads: Final = ThreadPoolExecutor(max_workers=4, thread_name_prefix="lane")


class FastLane:
    """An ASGI application that serves its views and passes everything else on."""

    def __init__(self, views: Mapping[str, View], *, otherwise: App) -> None:
        """Take the views, plain ones or DRF's, by the pattern of their whole path.

        Its groups become arguments, those named ``…_id`` as the UUIDs that they stand for.
        """
        self._views = [(re.compile(pattern), view) for pattern, view in views.items()]
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        for pattern, view in self._views:
            if found := pattern.fullmatch(scope["path"]):
                await self._serve(view, _arguments(found), scope, receive, send)
                return
        await self._otherwise(scope, receive, send)

    async def _serve(self, view: View, arguments: dict[str, Any], scope: Scope, receive: Any, send: Any) -> None:
        try:
            body = await _whole(receive)
        except ProtocolError as error:
            refusal = problem_response(error)
            refusal["Connection"] = "close"  # what is left of the body must not be taken for a request
            await _send(send, refusal)
            return
        if body is None:  # gone in the middle: nobody is there to be answered
            return
        try:
            request = ASGIRequest(scope, BytesIO(body))
        except ValueError:  # Django reads query and content type at once, and either may be nonsense
            await _send(send, problem_response(MalformedMessageError("the address or a header cannot be read")))
            return
        call = functools.partial(_call, view, request, arguments)
        try:
            response = await asyncio.get_running_loop().run_in_executor(_threads, call)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            response = problem_response(LatticewardError("a view of the fast lane failed"))
        await _send(send, response)


def _arguments(found: re.Match[str]) -> dict[str, Any]:
    return {name: UUID(text) if name.endswith("_id") else text for name, text in found.groupdict().items()}


def _call(view: View, request: ASGIRequest, arguments: dict[str, Any]) -> HttpResponse:
    try:
        response = view(request, **arguments)
        return response.render() if isinstance(response, SimpleTemplateResponse) else response
    finally:
        close_old_connections()


async def _whole(receive: Any) -> bytes | None:
    """The body; None if the connection ended before it did.

    Raises:
        MessageTooLargeError, SlowRequestError
    """
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if message["type"] == "http.disconnect":
                    return None
                if len(body) > BODY_LIMIT_BYTES:
                    raise MessageTooLargeError(f"more than {BODY_LIMIT_BYTES} bytes")
                if not message.get("more_body"):
                    return body
    except TimeoutError as error:
        raise SlowRequestError(f"{len(body)} bytes of the body had come when its time was over") from error


async def _send(send: Any, response: HttpResponse) -> None:
    response.headers.setdefault("Content-Length", str(len(response.content)))
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})
