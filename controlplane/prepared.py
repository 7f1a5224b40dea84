"""Statements that are compiled once and then called with other values.

Django builds and compiles the SQL of a query anew for every call. For the narrow statements of a door that is asked all
day this costs several times what driver and database take. A statement here is written as a query of the ORM, like any
other, is compiled when it is first called, and from then on only its values change.

A value stands for one parameter, so a statement whose text depends on values (a filter that may be missing, a
comparison with None) does not belong here; one that differs by a list of any length is a ``CompiledQuery``.
"""

import copy
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from types import SimpleNamespace
from typing import Any, Final, Generic, TypeVar
from uuid import UUID, uuid4

from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models.sql import UpdateQuery

Row = TypeVar("Row")

# A value of its kind that no statement holds by itself, to find the places where the values of a call go.
_SAMPLES: Final[dict[type, Callable[[], Any]]] = {
    str: lambda: secrets.token_hex(16),
    int: lambda: secrets.randbelow(2**31),
    UUID: uuid4,
    datetime: lambda: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=secrets.randbelow(10**15)),
}


class PreparedSelect(Generic[Row]):
    """A query for rows: model instances, or tuples of a ``values_list``.

    Args:
        queries: makes the query for one value of each kind.
        kinds: of the values: ``str``, ``int``, ``UUID`` or ``datetime``.
    """

    def __init__(self, queries: "Callable[..., models.QuerySet[Any, Row]]", *kinds: type) -> None:
        self._queries = queries
        self._kinds = kinds

    def __call__(self, *values: Any) -> list[Row]:
        """The rows for these values."""
        rows, compiled = self._compiled
        # Django's own iterable, over a compiler that has compiled already.
        compiler = copy.copy(compiled.compiler)
        compiler.connection = connections[DEFAULT_DB_ALIAS]  # of this thread, not of the one that came first
        compiler.as_sql = lambda: (compiled.sql, compiled.parameters(values))
        query = SimpleNamespace(get_compiler=lambda using: compiler)
        return list(rows(SimpleNamespace(query=query, db=DEFAULT_DB_ALIAS, _known_related_objects={}, _fields=())))

    def first(self, *values: Any) -> Row | None:
        """The first row, or None; the query itself says if it wants one of many."""
        rows = self(*values)
        return rows[0] if rows else None

    @cached_property
    def _compiled(self) -> tuple[Callable[[Any], Iterable[Row]], "_Compiled"]:
        samples = [_SAMPLES[kind]() for kind in self._kinds]
        asked: Any = self._queries(*samples)
        compiled = _Compiled(asked.query, samples)
        converters = compiled.compiler.get_converters(
            [column for column, *_ in compiled.compiler.select[: compiled.compiler.col_count]]
        )
        compiled.compiler.get_converters = lambda columns: converters
        return asked._iterable_class, compiled


class PreparedUpdate:
    """A conditional update.

    Args:
        queries: makes the query for the rows, and the new values of columns, for one value of each kind.
        kinds: of the values: ``str``, ``int``, ``UUID`` or ``datetime``.
    """

    def __init__(
        self, queries: "Callable[..., tuple[models.QuerySet[Any, Any], dict[str, Any]]]", *kinds: type
    ) -> None:
        self._queries = queries
        self._kinds = kinds

    def __call__(self, *values: Any) -> int:
        """How many rows were changed."""
        with connection.cursor() as cursor:
            cursor.execute(self._compiled.sql, self._compiled.parameters(values))
            return int(cursor.rowcount)

    @cached_property
    def _compiled(self) -> "_Compiled":
        samples = [_SAMPLES[kind]() for kind in self._kinds]
        rows, columns = self._queries(*samples)
        query: Any = rows.query.chain(UpdateQuery)
        query.add_update_values(columns)
        return _Compiled(query, samples)


class _Compiled:
    """SQL, and where in its parameters the values of a call go."""

    def __init__(self, query: Any, samples: Sequence[Any]) -> None:
        self.compiler = query.get_compiler(DEFAULT_DB_ALIAS)
        self.sql, given = self.compiler.as_sql()
        adapted = _adapted(samples)
        self._given = [(adapted.index(one) if one in adapted else None, one) for one in given]
        if {place for place, _ in self._given} - {None} != set(range(len(samples))):
            raise RuntimeError("a prepared statement uses each of its values, as it is")

    def parameters(self, values: Sequence[Any]) -> tuple[Any, ...]:
        adapted = _adapted(values)
        return tuple(one if place is None else adapted[place] for place, one in self._given)


def insert_rows(rows: Sequence[models.Model]) -> None:
    """Insert rows of one model, as ``bulk_create`` does; columns that are None in all of them are left out.

    Raises:
        IntegrityError: a row contradicts what is there; in a transaction nothing was written.
    """
    fields = _columns(type(rows[0]))
    values = [[getattr(row, name) for _, name, _ in fields] for row in rows]
    used = [place for place in range(len(fields)) if any(row[place] is not None for row in values)]
    names = ", ".join(fields[place][0] for place in used)
    one = f"({', '.join(['%s'] * len(used))})"
    table = connection.ops.quote_name(type(rows[0])._meta.db_table)
    wrap = [fields[place][2] for place in used]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({names}) VALUES {', '.join([one] * len(rows))}",  # noqa: S608 - names of our models
            [
                prepare(value) if prepare else value
                for row in values
                for prepare, value in zip(wrap, _adapted([row[place] for place in used]), strict=True)
            ],
        )


@cache
def _columns(model: type[models.Model]) -> list[tuple[str, str, Callable[[Any], Any] | None]]:
    """Quoted column, attribute, and for JSON what the driver wants it wrapped in."""
    return [
        (
            connection.ops.quote_name(str(field.column)),
            str(field.attname),
            partial(field.get_db_prep_save, connection=connection) if isinstance(field, models.JSONField) else None,
        )
        for field in model._meta.concrete_fields
    ]


def _adapted(values: Sequence[Any]) -> list[Any]:
    """Values as the driver takes them: PostgreSQL's takes them as they are."""
    if connection.features.has_native_uuid_field:
        return list(values)
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    return connection.ops.adapt_datetimefield_value(value) if isinstance(value, datetime) else value
