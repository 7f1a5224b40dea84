"""The OpenAPI 3.1 schema: what drf-spectacular finds in the views, and what every operation has by our rules.

A view says what it takes and gives (``row``, ``query``, ``@extend_schema``); refusals, headers, pages and who may call
are added here, so that they cannot be forgotten. What Django does not serve is described in ``rounds/schema.py``.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiTypes
from rest_framework import serializers

from controlplane.errors import PROBLEM_TYPE, PROBLEMS
from controlplane.permissions import is_for_devices
from controlplane.serializers import ProblemSerializer
from controlplane.views import Endpoint, ListEndpoint
from latticeward.errors import LatticewardError

SESSION: Final = "session"
CSRF: Final = "csrf_token"
SIGNATURES: Final = "request_signatures"
SECURITY_SCHEMES: Final[Mapping[str, Any]] = {
    SESSION: {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "a person's session"},
    CSRF: {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRFToken",
        "description": "the value of the cookie `csrftoken`; with https, a `Referer` of the same host as well",
    },
    SIGNATURES: {
        "type": "http",
        "scheme": "signature",
        "description": "two HTTP message signatures (RFC 9421), ML-DSA-65 and Ed25519; see docs/protocol.md",
    },
}
# What the framework refuses by itself; everything else is in ``PROBLEMS``.
_FRAMEWORK: Final[Mapping[int, tuple[str, ...]]] = {
    400: ("invalid_input", "parse_error"),
    403: ("not_authenticated", "permission_denied"),
    404: ("not_found",),
    405: ("method_not_allowed",),
    406: ("not_acceptable",),
    415: ("unsupported_media_type",),
}
_WORDS: Final[Mapping[int, str]] = {
    400: "Malformed: nothing was looked up.",
    401: "No usable signatures.",
    403: "Known, and not allowed; or not to be believed.",
    404: "No such thing, or none that you may see.",
    406: "Answers are JSON.",
    408: "The body came too slowly.",
    409: "Not possible in the present state.",
    413: "Larger than the limit.",
    415: "The body must be JSON.",
    422: "Well formed, and it does not fit.",
    429: "Past a limit; see Retry-After.",
    503: "No room now; come again.",
}
_TEXT: Final = r"^[^\u0000]*$"
# Python takes four separators and U+0085 for blanks, ECMAScript's \s does not.
_SOME_TEXT: Final = r"^[^\u0000]*[^\u0000\s\u001c-\u001f\u0085][^\u0000]*$"
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class ApiSchema(AutoSchema):
    """How our endpoints are described."""

    def get_operation_id(self) -> str:
        return operation_id(self.method, self.path)

    def get_tags(self) -> list[str]:
        return [tag_of(self.path)]

    def get_summary(self) -> str | None:
        return self.get_description().partition("\n")[0].rstrip(".")

    def get_auth(self) -> list[dict[str, list[str]]]:
        if not self.view.authentication_classes:
            return []
        if is_for_devices(self.view):
            return [{SIGNATURES: []}]
        return [{SESSION: [], CSRF: []} if self.method in _WRITES else {SESSION: []}]

    def get_extensions(self) -> dict[str, Any]:
        safely = self.view.repeats_safely if self.method in _WRITES and isinstance(self.view, Endpoint) else ""
        return {"x-repeats-safely": safely} if safely else {}

    def get_override_parameters(self) -> list[Any]:
        found: list[Any] = list(super().get_override_parameters())
        page = self._page
        if page is not None:
            found.append(page.query)
        if self._takes_key:
            found.append(
                OpenApiParameter(
                    "Idempotency-Key",
                    {"type": "string", "pattern": r"^[A-Za-z0-9_.:/+=-]{8,128}$"},
                    OpenApiParameter.HEADER,
                    description="a fresh one for each intention; a repetition with it gets the first answer",
                )
            )
            found.append(
                OpenApiParameter(
                    "Idempotency-Replayed",
                    OpenApiTypes.STR,
                    OpenApiParameter.HEADER,
                    response=[200, 201, 202, 204],
                    description="`true` if this was answered before",
                )
            )
        if page is not None:
            found.append(
                OpenApiParameter(
                    "Link", OpenApiTypes.STR, OpenApiParameter.HEADER, response=[200], description='rel="next"'
                )
            )
        return found

    def get_response_serializers(self) -> Any:
        page = self._page
        if page is None:
            return super().get_response_serializers()
        row = self.resolve_serializer(page.row, "response").ref
        return {
            200: {
                "type": "object",
                "required": ["results", "next"],
                "properties": {
                    "results": {"type": "array", "items": row},
                    "next": {"type": ["string", "null"], "description": "path of the next page"},
                },
            }
        }

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        answers: dict[str, Any] = super()._get_response_bodies(direction)
        if isinstance(self.view, Endpoint):
            self.resolve_serializer(ProblemSerializer, "response")
            for answer in answers.values():
                answer["description"] = answer.get("description") or "Done."
            answers |= problems(self._refusals())
        return answers

    def _get_request_body(self, direction: Any = "request") -> Any:
        body = super()._get_request_body(direction)
        if body and len(body["content"]) > 1:  # spectacular asks one of the types only
            body["required"] = True
        return body

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        schema = super()._map_serializer_field(field, direction, bypass_extensions)
        if direction == "request" and type(field) is serializers.CharField and "pattern" not in schema:
            # What REST framework refuses of any text: a NUL, and nothing but blanks.
            schema = {**schema, "pattern": _TEXT if field.allow_blank else _SOME_TEXT}
        if direction == "request" and isinstance(field, serializers.DateTimeField):
            schema = {**schema, "minLength": len("2026-11-21T09:12:03Z")}
        return schema

    def _refusals(self) -> Iterable[int]:
        yield from (404, 406, 429)
        if hasattr(self.view, "query") or self.method in _WRITES or "{" in self.path:
            yield 400
        if self.view.authentication_classes:
            yield 401 if is_for_devices(self.view) else 403
        if is_for_devices(self.view):
            yield from (403, 409)
        if self.method in _WRITES:
            yield from (403, 409, 413, 415, 422)
            if not self.view.authentication_classes:
                yield 408  # from the fast lane

    @property
    def _page(self) -> ListEndpoint | None:
        return self.view if self.method == "GET" and isinstance(self.view, ListEndpoint) else None

    @property
    def _takes_key(self) -> bool:
        return self.method in _WRITES and isinstance(self.view, Endpoint) and not self.view.repeats_safely


def operation_id(method: str, path: str) -> str:
    """A name of its own for each operation, from its address; ``{…}`` counts as ``one``."""
    parts = [part for part in path.removeprefix("/api/v1/").split("/") if part]
    words = ["one" if part.startswith("{") else part.replace("-", "_").replace(".", "_") for part in parts]
    return "_".join([method.lower(), *words])


def tag_of(path: str) -> str:
    """The noun that an address is about."""
    return path.removeprefix("/api/v1/").split("/")[0].split(".")[0]


def problems(statuses: Iterable[int]) -> dict[str, Any]:
    """Responses with problem documents, each with the codes that it may carry and an example."""
    found = {}
    for status in sorted(set(statuses)):
        rows = [(error, sentence) for error, (code, sentence) in PROBLEMS.items() if code == status]
        codes = sorted({error.code for error, _ in rows} | set(_FRAMEWORK.get(status, ())))
        found[str(status)] = {
            "description": f"{_WORDS[status]} Codes: {', '.join(f'`{code}`' for code in codes)}.",
            "content": {
                PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": _example(status, rows)}
            },
            **({"headers": {"Retry-After": {"schema": {"type": "string"}}}} if status in (409, 429) else {}),
        }
    return found


def add_security_schemes(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Spectacular's hook: name the ways to prove who is asking."""
    result.setdefault("components", {})["securitySchemes"] = dict(SECURITY_SCHEMES)
    return result


def _example(status: int, rows: list[tuple[type[LatticewardError], str]]) -> dict[str, Any]:
    if rows:
        error, sentence = rows[0]
        code, retryable = error.code, error.retryable
    else:
        code, sentence, retryable = _FRAMEWORK[status][0], _WORDS[status], False
    return {
        "type": code,
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": sentence,
        "instance": "urn:uuid:8d0c0f3e-5a31-4b43-9b0a-0c2f5f9a7d11",
        "retryable": retryable,
    }
