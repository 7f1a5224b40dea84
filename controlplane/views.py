"""What every REST endpoint shares, so that a new one has it without asking: idempotency, limits, pages, strict input.

A view of people derives from ``Endpoint``, a list from ``ListEndpoint``; CONTRIBUTING.md shows one. What is decided
here, once:

- A write runs in one transaction, together with the answer that is kept under its idempotency key.
- A write without idempotency must say in ``repeats_safely`` why it needs none; a test walks all addresses.
- Query parameters that a list does not know are refused: a misspelt filter must not show everything.
- Everything is counted against a limit.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from django.http.request import RawPostDataException
from rest_framework.exceptions import UnsupportedMediaType, ValidationError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, Serializer
from rest_framework.views import APIView

from controlplane import idempotency
from controlplane.addresses import client_address
from controlplane.pagination import paginate
from controlplane.serializers import ListQuery
from controlplane.throttles import Limit, spend, spend_by_address
from latticeward.errors import ShownOnceError


class Endpoint(APIView):
    """One address of the REST API.

    Attributes:
        repeats_safely: why the writes here need no idempotency key; empty if they take one.
        shown_once: fields of the answer, in its rows too, that are shown in the first answer only. They are not
            stored, so a repetition is told what was made and that the rest is gone.
        limit: what an unauthenticated request is counted as; a person is always counted by ``Limit.PERSON``.
    """

    repeats_safely: ClassVar[str] = ""
    shown_once: ClassVar[tuple[str, ...]] = ()
    limit: ClassVar[Limit] = Limit.PUBLIC

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        name = (request.method or "").lower()
        if request.method not in SAFE_METHODS and not self.repeats_safely and hasattr(self, name):
            # ``dispatch`` looks the handler up next, on this object, which serves this one request.
            setattr(self, name, partial(self._write_once, getattr(self, name)))

    def check_throttles(self, request: Request) -> None:
        if actor := self.actor(request):
            spend(Limit.PERSON, actor)
        else:
            spend_by_address(self.limit, self.source(request))

    def actor(self, request: Request) -> str:
        """Who acts, as the ledger names them; empty for a stranger."""
        return f"user:{request.user.pk}" if request.user and request.user.is_authenticated else ""

    def source(self, request: Request) -> str:
        """The network address that the request came from."""
        return client_address(request.META.get("REMOTE_ADDR", ""), request.headers.get("X-Forwarded-For", ""))

    def read(self, serializer: type[BaseSerializer[Any]], request: Request) -> Any:
        """The body, validated.

        Raises:
            ValidationError: with what is wrong, by field.
        """
        parsed = serializer(data=request.data)
        parsed.is_valid(raise_exception=True)
        return parsed.validated_data

    def asked(self, query: type[BaseSerializer[Any]], request: Request) -> dict[str, Any]:
        """The query parameters, validated; unknown and repeated ones are refused.

        Raises:
            ValidationError: with what is wrong, by parameter.
        """
        parsed: Any = query(data=request.query_params.dict())
        wrong = {
            name: ["This list has no such parameter." if name not in parsed.fields else "This may stand here once."]
            for name, values in request.query_params.lists()
            if name not in parsed.fields or len(values) > 1
        }
        if wrong:
            raise ValidationError(wrong)
        parsed.is_valid(raise_exception=True)
        found: dict[str, Any] = parsed.validated_data
        return found

    def _write_once(self, handler: Callable[..., Response], request: Request, *args: Any, **kwargs: Any) -> Any:
        key = idempotency.parse_key(request.headers.get("Idempotency-Key"))
        if key is None:
            with transaction.atomic():
                return handler(request, *args, **kwargs)
        try:
            body = request.body
        except RawPostDataException as error:  # a form, which the check of the CSRF token has read
            raise UnsupportedMediaType(request.content_type) from error
        content = idempotency.fingerprint(request.method or "", request.get_full_path(), body)
        attempt = idempotency.begin(actor=self.actor(request), key=key, content=content)
        if isinstance(attempt, idempotency.Kept):
            return self._repeated(attempt)
        try:
            with transaction.atomic():
                answer = handler(request, *args, **kwargs)
                kept = _without(answer.data, self.shown_once)
                text = JSONRenderer().render(kept).decode() if kept is not None else ""
                idempotency.keep(attempt, status=answer.status_code, body=text)
                return answer
        except BaseException:
            idempotency.release(attempt)
            raise

    def _repeated(self, kept: idempotency.Kept) -> HttpResponse:
        if self.shown_once:
            raise ShownOnceError("the first answer showed a secret", answer=json.loads(kept.body))
        answer = HttpResponse(kept.body, status=kept.status, headers={"Idempotency-Replayed": "true"})
        answer["Content-Type"] = "application/json"
        if not kept.body:
            del answer["Content-Type"]
        return answer


class ListEndpoint(Endpoint):
    """An address whose GET is a list in pages.

    Attributes:
        row: how a row is shown.
        query: filters and orders.
    """

    row: ClassVar[type[Serializer[Any]]]
    query: ClassVar[type[ListQuery]] = ListQuery

    def rows(self, asked: dict[str, Any]) -> QuerySet[Any]:
        """What the list holds, narrowed by the filters that were asked for."""
        raise NotImplementedError

    def show(self, rows: list[Any]) -> Sequence[Any]:
        """The rows of one page as JSON."""
        return list(self.row(rows, many=True).data)

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        asked = self.asked(self.query, request)
        ordering = asked["ordering"]
        page = paginate(
            self.rows(asked),
            order=ordering,
            field=self.query.field_of(ordering),
            size=asked["page_size"],
            cursor=asked.get("cursor"),
            address=request.path,
            query=request.query_params.dict(),
        )
        headers = {"Link": f'<{page.next}>; rel="next"'} if page.next else {}
        return Response({"results": self.show(page.rows), "next": page.next}, headers=headers)


def _without(data: Any, names: tuple[str, ...]) -> Any:
    if isinstance(data, list):
        return [_without(row, names) for row in data]
    if isinstance(data, dict) and names:
        return {name: value for name, value in data.items() if name not in names}
    return data
