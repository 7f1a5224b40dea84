"""A device's identity for other tools of the hospital: requests signed by the agent's keys, in a few lines.

    client = DeviceClient.from_home(Path("/var/lib/latticeward"))
    print(client.get("/api/v1/me")["renew_from"])

It reads the agent's home and writes nothing there. One client is for one thread; it keeps its connection.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from latticeward.agent.config import AgentConfig
from latticeward.agent.identity import Identity
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports.http_client import ANSWER_LIMIT_BYTES, HttpClient
from latticeward.errors import CustodyError


class DeviceClient:
    """Signed requests of one enrolled device to its server.

    Every method raises ``TransientTransportError`` (try again later, not before its ``retry_after_seconds``),
    ``PermanentTransportError`` (the server said no) or ``MalformedMessageError`` (the answer is not what was asked
    for); ``server_code`` of the first two is the server's stable code. A clock that is off by more than five minutes is
    transient with the code ``clock_skew``, and its message says by how much and to which side. Redirects are refusals:
    what is signed for one server goes to no other.
    """

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    @classmethod
    def from_home(cls, home: Path) -> Self:
        """A client with the identity of an agent's home directory.

        Raises:
            CustodyError: the home holds no identity, or one that is damaged or open to others.
        """
        identity = Identity.load(home)
        if identity is None:
            raise CustodyError(f"{home} holds no identity yet: enrol the agent first")
        config = AgentConfig.load(home, given={})
        keys = identity.secrets.keys
        return cls(HttpClient(identity.server, config=config, keys=keys, interruption=Interruption()))

    def get(self, path: str, query: Mapping[str, str | int] | None = None) -> Any:
        """The JSON at ``path``."""
        return self._client.request("GET", path, query=query).json()

    def get_bytes(self, path: str, *, limit_bytes: int = ANSWER_LIMIT_BYTES) -> bytes:
        """The bytes at ``path``, at most ``limit_bytes``."""
        return self._client.request("GET", path, limit_bytes=limit_bytes).body

    def post(self, path: str, value: Any) -> Any:
        """The JSON answer to a JSON body."""
        body = json.dumps(value).encode("utf-8")
        return self._client.request("POST", path, body=body, headers={"Content-Type": "application/json"}).json()

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()
