"""One signed, keep-alive HTTP(S) connection to one server, with nothing but the standard library.

Plain HTTP is spoken to this machine's own loopback only: the signatures would hold anywhere, but what a hospital
asks, and when, is nobody's business. A request that meets a connection which the server has closed meanwhile is sent
once more on a new one, signed anew: every request of the device API may be repeated, but a nonce may not.
"""

import hashlib
import http.client
import ipaddress
import json
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from latticeward.agent.config import AgentConfig
from latticeward.agent.interruption import Interruption
from latticeward.agent.transports.timed_answer import TimedAnswer
from latticeward.crypto.httpsig import NONCE_BYTES, sign_request
from latticeward.device_keys import DeviceKeys
from latticeward.errors import MalformedMessageError, PermanentTransportError, TransientTransportError

ANSWER_LIMIT_BYTES: Final = 2 * 1024 * 1024
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_STALE_CONNECTION: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,60}")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """A successful answer: status 2xx and the whole body."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            MalformedMessageError
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as exc:
            raise MalformedMessageError("the server's answer is not JSON") from exc


class HttpClient:
    """A connection that signs what it sends.

    Args:
        server: base URL, ``scheme://host[:port]``.
        config: time limits and the TLS authorities.
        keys: sign requests; only their authentication pair is used.
        interruption: lets a signal end a wait for the server.
        clock: aware UTC now; tests give their own.

    Raises:
        PermanentTransportError: the URL is not one, or plain HTTP would leave this machine.
    """

    def __init__(
        self,
        server: str,
        *,
        config: AgentConfig,
        keys: DeviceKeys,
        interruption: Interruption,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._scheme, self._host, self._port = _parse_server(server)
        self._config = config
        self._keys = keys
        self._key_id = keys.authentication.verify_key.key_id.hex()
        self._interruption = interruption
        self._clock = clock
        self._connection: http.client.HTTPConnection | None = None

    @property
    def authority(self) -> str:
        """Host and port as they stand in the Host header: the scheme's own port is left out."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return host if self._port == _DEFAULT_PORTS[self._scheme] else f"{host}:{self._port}"

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        signed: bool = True,
        patience_seconds: float = 0.0,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
    ) -> HttpAnswer:
        """Send one request and read the whole answer.

        Args:
            method: HTTP method.
            path: path without query.
            query: its parameters.
            body: the whole body, or None.
            headers: of this request, beside those that are added.
            signed: whether the device signs; only the first two calls of an enrolment and the trust bundle go unsigned.
            patience_seconds: how long the server was asked to hold the question, on top of the read time limit.
            limit_bytes: largest body that is read; the answer may take longer with each byte up to here.

        Raises:
            TransientTransportError: no connection, a time limit, or an answer that asks to come back.
            PermanentTransportError: any other refusal, with the server's code.
            StopRequested: a signal came while waiting.
        """
        text = urlencode(query or {})
        reused = self._connection is not None
        while True:
            try:
                return self._exchange(
                    method, path, text, body, dict(headers or {}), signed, patience_seconds, limit_bytes
                )
            except _STALE_CONNECTION as exc:
                self.close()
                if not reused:
                    raise TransientTransportError(f"{self.authority} closed the connection") from exc
                reused = False
            except ssl.SSLCertVerificationError as exc:
                self.close()
                raise PermanentTransportError(f"the TLS certificate of {self.authority} is not trusted") from exc
            except (OSError, http.client.HTTPException) as exc:
                self.close()
                raise TransientTransportError(f"{self.authority} cannot be reached: {_one_line(str(exc))}") from exc
            except BaseException:
                # A half-read answer would be taken for the next one's beginning.
                self.close()
                raise

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(
        self,
        method: str,
        path: str,
        query: str,
        body: bytes | None,
        headers: dict[str, str],
        signed: bool,
        patience_seconds: float,
        limit_bytes: int,
    ) -> HttpAnswer:
        with self._interruption.waiting():
            connection = self._connect()
            if signed:
                headers |= sign_request(
                    method,
                    self.authority,
                    path,
                    query,
                    tuple(headers.items()),
                    None if body is None else hashlib.sha256(body).digest(),
                    key_id=self._key_id,
                    mldsa=self._keys.authentication,
                    ed25519=self._keys.classical,
                    created_at=self._clock(),
                    nonce=os.urandom(NONCE_BYTES),
                )
            seconds = self._config.read_seconds + patience_seconds
            if connection.sock is not None:
                connection.sock.settimeout(seconds)
            answer_class = partial(TimedAnswer, seconds=seconds, limit_bytes=limit_bytes)
            connection.response_class = answer_class  # type: ignore[assignment]  # it is only called
            target = f"{path}?{query}" if query else path
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read(limit_bytes + 1)
            if len(content) > limit_bytes:
                self.close()
                raise MalformedMessageError(f"the server's answer is larger than {limit_bytes} bytes")
            if response.length:
                # Read with a limit, a body that breaks off is no error of http.client's; a model cut short is none of
                # the server's either, and must not end a round.
                raise http.client.IncompleteRead(content, response.length)
            if response.will_close:
                self.close()
        if 200 <= response.status < 300:
            return HttpAnswer(status=response.status, body=content)
        asked_seconds = retry_after_seconds(response.getheader("Retry-After") or "", now=self._clock())
        raise _refusal(response.status, content, asked_seconds)

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            seconds = self._config.connect_seconds
            if self._scheme == "https":
                context = ssl.create_default_context(cafile=self._config.ca_file or None)
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                self._connection = http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=context)
            else:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=seconds)
            self._connection.connect()
        return self._connection


def _parse_server(server: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(server)
        port = parts.port
    except ValueError as exc:
        raise PermanentTransportError(f"{server!r} is not the address of a server") from exc
    host = parts.hostname or ""
    if parts.scheme not in _DEFAULT_PORTS or not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise PermanentTransportError(f"{server!r} is not the address of a server: expected https://host[:port]")
    if parts.scheme == "http" and not _is_loopback(host):
        raise PermanentTransportError(
            f"plain HTTP is allowed to this machine itself only, and {host} is not: use https://"
        )
    return parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def retry_after_seconds(value: str, *, now: datetime) -> float | None:
    """What ``Retry-After`` asks for (RFC 9110, 10.2.3): seconds, or a date.

    Args:
        value: of the header; empty if there is none.
        now: by which a date counts, aware UTC.

    Returns:
        Seconds, at least 0; None if it says nothing that can be read.
    """
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except (OverflowError, ValueError):
        return None
    return max((at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds(), 0.0)


def _refusal(
    status: int, content: bytes, asked_seconds: float | None
) -> TransientTransportError | PermanentTransportError:
    try:
        problem = json.loads(content)
        found = _CODE.fullmatch(re.split(r"[/:#]", str(problem["type"]))[-1])
        code = found.group() if found is not None else ""
        detail = _one_line(str(problem.get("detail", "")))
        retryable = problem.get("retryable") is True
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        code, detail, retryable = "", "", False
    message = f"the server answered {status} {code or 'without a code'}: {detail or 'no explanation'}"
    if retryable or status in _TRANSIENT_STATUS:
        return TransientTransportError(message, server_code=code, retry_after_seconds=asked_seconds)
    return PermanentTransportError(message, server_code=code)


def _one_line(text: str) -> str:
    """What a stranger wrote, fit for one line of a log."""
    return "".join(character if character.isprintable() else " " for character in text)[:300]
