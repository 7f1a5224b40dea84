"""HTTP as docs/protocol.md has it: signed requests (section 10) and refusals (section 18)."""

import base64
import json
import os
import time
from http.client import HTTPConnection
from typing import Any

from tests.interop import wire
from tests.interop.wire import Refused, require

CBOR, JSON, BYTES = "application/cbor", "application/json", "application/octet-stream"


class Problem(Refused):
    """The server refused: ``code`` is the problem document's type."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        super().__init__(f"{status} {document}")
        self.status, self.code, self.retryable = status, document["type"], document["retryable"]


class SignedHttp:
    """A device's line to its server."""

    def __init__(self, authority: str, keys: wire.Keys) -> None:
        self.authority, self.keys = authority, keys

    def exchange(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, str, bytes]:
        """Status, content type and body of an answer that is no refusal."""
        connection = HTTPConnection(self.authority, timeout=40)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            status, kind, raw = answer.status, answer.headers["Content-Type"], answer.read()
        finally:
            connection.close()
        if kind == "application/problem+json":
            document = json.loads(raw)
            require(document["status"] == status, "a problem document of another status")
            raise Problem(status, document)
        require(200 <= status < 300, f"{method} {target} was answered {status}: {raw[:200]!r}")
        return status, kind, raw

    def signed(self, method: str, path: str, query: str, body: bytes | None, headers: dict[str, str]) -> dict[str, str]:
        """All headers of a request: those given, and the signatures over what must be covered."""
        sent = {name.lower(): value for name, value in headers.items()}
        if body is not None:
            sent["content-digest"] = f"sha-256=:{base64.b64encode(wire.sha256(body)).decode()}:"
        covered = [("@method", method), ("@authority", self.authority), ("@path", path), ("@query", f"?{query}")]
        steering = ("content-digest", "content-encoding", "content-type", "idempotency-key")
        covered += [(name, sent[name]) for name in steering if name in sent]
        created = int(time.time())
        shared = f'created={created};expires={created + 60};nonce="{wire.text64(os.urandom(16))}"'
        key = self.keys.id("authentication").hex()
        names = " ".join(f'"{name}"' for name, _ in covered)
        inputs, signatures = [], []
        for label, algorithm, signer in (
            ("pq", "ml-dsa-65", self.keys.authentication),
            ("cl", "ed25519", self.keys.classical),
        ):
            parameters = f'({names});{shared};keyid="{key}";alg="{algorithm}";tag="latticeward-request-v1"'
            lines = [*(f'"{name}": {value}' for name, value in covered), f'"@signature-params": {parameters}']
            inputs.append(f"{label}={parameters}")
            signature = signer.sign("\n".join(lines).encode())
            signatures.append(f"{label}=:{base64.b64encode(signature).decode()}:")
        return {**sent, "signature-input": ", ".join(inputs), "signature": ", ".join(signatures)}

    def ask(
        self, method: str, path: str, query: str = "", body: bytes | None = None, **headers: str
    ) -> tuple[int, str, bytes]:
        """Send a signed request, and again with a new signature while the server says that this may help (18)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        target = f"{path}?{query}" if query else path
        for pause in (0.5, 1.0, 2.0):
            try:
                return self.exchange(method, target, body, self.signed(method, path, query, body, named))
            except Problem as refused:
                if not refused.retryable:
                    raise
            time.sleep(pause)
        return self.exchange(method, target, body, self.signed(method, path, query, body, named))

    def ask_json(self, path: str, query: str = "") -> tuple[int, Any]:
        status, kind, raw = self.ask("GET", path, query)
        require(kind == JSON, f"{path} is {kind}")
        return status, json.loads(raw)

    def ask_cbor(self, path: str, fields: set[str]) -> dict[str, bytes]:
        _, kind, raw = self.ask("GET", path)
        require(kind == CBOR, f"{path} is {kind}")
        value = wire.decode(raw, 2**21)
        require(value.keys() == fields, f"{path} has other fields")
        return value
