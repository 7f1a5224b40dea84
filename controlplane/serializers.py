"""What every endpoint shares of its JSON: the query of a list, the envelope of a page, a problem document."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rest_framework import serializers

from controlplane.pagination import DEFAULT_PAGE, LARGEST_PAGE

_CURSOR_LIMIT_CHARS: Final = 1000


class ListQuery(serializers.Serializer[Any]):
    """The query parameters of a list; a subclass adds its filters as fields and its orders as ``orderings``.

    Attributes:
        orderings: public name → path of the model's field behind it, which is never null. Each can be asked for in
            both directions.
        default_ordering: one of them, with ``-`` in front for descending.
    """

    orderings: ClassVar[Mapping[str, str]] = {"created_at": "created_at"}
    default_ordering: ClassVar[str] = "-created_at"

    page_size = serializers.IntegerField(
        min_value=1, max_value=LARGEST_PAGE, default=DEFAULT_PAGE, help_text="rows on a page"
    )
    cursor = serializers.CharField(
        max_length=_CURSOR_LIMIT_CHARS, required=False, help_text="where the page begins; taken from `next`"
    )

    def get_fields(self) -> dict[str, Any]:
        names = sorted(self.orderings)
        ordering = serializers.ChoiceField(
            choices=[*names, *(f"-{name}" for name in names)],
            default=self.default_ordering,
            help_text="the order of the rows; with `-`, descending",
        )
        return {**super().get_fields(), "ordering": ordering}

    @classmethod
    def field_of(cls, ordering: str) -> str:
        """The model's field behind a public ordering."""
        return cls.orderings[ordering.removeprefix("-")]


class ProblemSerializer(serializers.Serializer[Any]):
    """A refusal (RFC 9457)."""

    type = serializers.CharField(help_text="the stable code")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="for people; may change")
    instance = serializers.CharField(help_text="finds the line in the server's log")
    retryable = serializers.BooleanField(
        required=False, help_text="whether the same request may succeed later without a change"
    )
    answer = serializers.JSONField(required=False, help_text="of `shown_once`: the first answer without its secret")

    def get_fields(self) -> dict[str, Any]:
        # The name is taken on a serializer, which keeps its own errors there.
        errors = serializers.JSONField(required=False, help_text="of `invalid_input`: what is wrong, by field")
        return {**super().get_fields(), "errors": errors}
