"""A page's end of the websocket, over asgiref: the communicator of Channels would need the daphne server installed."""

import json
from typing import Any
from urllib.parse import urlsplit

from asgiref.testing import ApplicationCommunicator


class PageSocket(ApplicationCommunicator):
    """One socket to an ASGI application."""

    def __init__(
        self,
        application: Any,
        address: str,
        user: Any,
        headers: list[tuple[bytes, bytes]] | None = None,
        session: Any = None,
    ) -> None:
        parts = urlsplit(address)
        scope = {
            "type": "websocket",
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": headers or [],
            "subprotocols": [],
            "user": user,
            "session": session,
        }
        super().__init__(application, scope)

    async def connect(self) -> bool:
        """Open the socket; whether it was accepted."""
        await self.send_input({"type": "websocket.connect"})
        return bool((await self.receive_output(timeout=3))["type"] == "websocket.accept")

    async def hear(self) -> dict[str, Any]:
        """The next message; fails when the socket is closed instead."""
        output = await self.receive_output(timeout=3)
        assert output["type"] == "websocket.send", output
        message: dict[str, Any] = json.loads(output["text"])
        return message

    async def close_code(self) -> int:
        """The code with which the server closes, which must be the next thing that it does."""
        output = await self.receive_output(timeout=3)
        assert output["type"] == "websocket.close", output
        return int(output["code"])

    async def leave(self) -> None:
        """Close from this side."""
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(timeout=3)
