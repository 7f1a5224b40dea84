"""Questions to the database that are asked for every request: Django makes their SQL once and not each time.

Of a small question most of the time goes into making the statement, not into asking it. A compiled query is written
as a query set, so it stays portable and follows the models; its SQL is kept by database and number of values.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, QuerySet

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """What Django made of the query for one database and number of values; ``converters`` by column."""

    sql: str
    constants: tuple[Any, ...]
    converters: tuple[tuple[int, list[Callable[..., Any]], Any], ...]


class CompiledQuery:
    """The rows of ``values_list`` query sets that differ only in the values that one field may have."""

    def __init__(self, rows: Callable[[], QuerySet[Any, Any]], *, lookup: str, field: "Field[Any, Any]") -> None:
        """Make nothing yet.

        Args:
            rows: the query set without the filter by values: ``values_list``, ordered perhaps, no slice.
            lookup: name in a filter of what the values are compared with.
            field: the model field behind that name.
        """
        self._rows = rows
        self._lookup = lookup
        self._field = field
        self._made: dict[tuple[str, int], _Made] = {}

    def __call__(self, values: Collection[Any]) -> list[Row]:
        """The rows whose field has one of these values, which are all different."""
        if not values:
            return []
        connection = connections[DEFAULT_DB_ALIAS]
        made = self._made.get((connection.vendor, len(values)))
        if made is None:
            made = self._made[(connection.vendor, len(values))] = self._make(values)
        asked = [self._field.get_db_prep_value(value, connection) for value in values]
        with connection.cursor() as cursor:
            cursor.execute(made.sql, (*made.constants, *asked))
            rows: list[Row] = cursor.fetchall()
        return [_converted(row, made, connection) for row in rows] if made.converters else rows

    def _make(self, values: Collection[Any]) -> _Made:
        compiler = self._rows().filter(**{f"{self._lookup}__in": list(values)}).query.get_compiler(DEFAULT_DB_ALIAS)
        sql, parameters = compiler.as_sql()
        converters = compiler.get_converters([column for column, *_ in compiler.select])
        return _Made(
            sql=sql,
            # The last filter's values are the last parameters: an order has none.
            constants=tuple(parameters[: -len(values)]),
            converters=tuple((place, convert, column) for place, (convert, column) in converters.items()),
        )


def _converted(row: Row, made: _Made, connection: BaseDatabaseWrapper) -> Row:
    values = list(row)
    for place, functions, column in made.converters:
        for function in functions:
            values[place] = function(values[place], column, connection)
    return tuple(values)
