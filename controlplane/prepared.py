"""Statements that are compiled once and then called with other values.

Django builds and compiles the SQL of a query anew for every call. For the narrow statements of a door that is asked all
day this costs several times what driver and database take. A statement here is written as a query of the ORM, like any
other, is compiled when it is first called, and from then on only its values change.

A value stands for one parameter, a list for as many as it has, on PostgreSQL for one: the SQL is kept by database and
lengths of lists. A statement whose text depends on more (a filter that may be missing, a comparison with None) does not
belong here.
"""

import copy
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import cycle
from types import SimpleNamespace
from typing import Any, Final, Generic, TypeVar, get_args
from uuid import UUID, uuid4

from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models.query import ModelIterable, ValuesListIterable, get_related_populators
from django.db.models.sql import UpdateQuery

Row = TypeVar("Row")

# A value of its kind that no statement holds by itself, to find the places where the values of a call go.
_SAMPLES: Final[dict[type, Callable[[], Any]]] = {
    str: lambda: secrets.token_hex(16),
    int: partial(next, cycle(range(2**14, 2**15))),  # what the smallest column takes
    UUID: uuid4,
    datetime: lambda: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=secrets.randbelow(10**15)),
}


class _Prepared:
    """A statement and what was compiled of it.

    Args:
        written: writes the statement as the ORM has it, for one value of each kind.
        kinds: of the values: ``str``, ``int``, ``UUID`` or ``datetime``, or ``list[…]`` of one of these for what
            stands in an ``…__in``: any collection of different values, not empty.
    """

    def __init__(self, written: Callable[..., Any], *kinds: type) -> None:
        self._written = written
        self._kinds = kinds
        self._lists = [place for place, kind in enumerate(kinds) if get_args(kind)]
        self._compiled: dict[tuple[str, tuple[int, ...]], Any] = {}

    def _for(self, values: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
        """What is compiled for values like these, and its parameters for these."""
        vendor = connections[DEFAULT_DB_ALIAS].vendor
        # PostgreSQL takes a list as one value, and keeps one plan for all lengths of it.
        whole = vendor == "postgresql"
        key = (vendor, () if whole else tuple([len(values[place]) for place in self._lists]))
        compiled = self._compiled.get(key)
        if compiled is None:
            lengths = {place: 1 if whole else len(values[place]) for place in self._lists}
            samples = [_sample(kind, lengths.get(place)) for place, kind in enumerate(self._kinds)]
            compiled = self._compile(self._written(*samples), self._flat(samples))
            if whole:
                compiled.take_whole(self._lists)
            self._compiled[key] = compiled
        return compiled, compiled.parameters(self._whole(values) if whole else self._flat(values))

    def _flat(self, values: Sequence[Any]) -> Sequence[Any]:
        if not self._lists:
            return values
        return [one for place, value in enumerate(values) for one in (value if place in self._lists else (value,))]

    def _whole(self, values: Sequence[Any]) -> Sequence[Any]:
        if not self._lists:
            return values
        return [list(value) if place in self._lists else value for place, value in enumerate(values)]

    def _compile(self, written: Any, samples: Sequence[Any]) -> "_Compiled":
        raise NotImplementedError


class PreparedSelect(_Prepared, Generic[Row]):
    """A query for rows: model instances, or tuples of a ``values_list``."""

    def __init__(self, queries: "Callable[..., models.QuerySet[Any, Row]]", *kinds: type) -> None:
        super().__init__(queries, *kinds)

    def __call__(self, *values: Any) -> list[Row]:
        """The rows for these values; none, unasked, where a list is empty."""
        if not all(values[place] for place in self._lists):
            return []
        compiled, parameters = self._for(values)
        rows: list[Row] = compiled.rows(parameters)
        return rows

    def first(self, *values: Any) -> Row | None:
        """The first row, or None; the query itself says if it wants one of many."""
        rows = self(*values)
        return rows[0] if rows else None

    def _compile(self, written: Any, samples: Sequence[Any]) -> "_CompiledSelect":
        return _CompiledSelect(written, samples)


class PreparedUpdate(_Prepared):
    """A conditional update: its query for the rows, and the new values of columns."""

    def __init__(
        self, updates: "Callable[..., tuple[models.QuerySet[Any, Any], dict[str, Any]]]", *kinds: type
    ) -> None:
        super().__init__(updates, *kinds)

    def __call__(self, *values: Any) -> int:
        """How many rows were changed."""
        compiled, parameters = self._for(values)
        with connection.cursor() as cursor:
            cursor.execute(compiled.sql, parameters)
            return int(cursor.rowcount)

    def _compile(self, written: Any, samples: Sequence[Any]) -> "_Compiled":
        rows, columns = written
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

    def take_whole(self, lists: Sequence[int]) -> None:
        """From now on each of these values, compiled as the only one of its list, is the list itself."""
        parts = self.sql.split("%s")
        for number, (place, _) in enumerate(self._given):
            if place in lists:
                before, after = parts[number], parts[number + 1]
                if not before.endswith(" IN (") or not after.startswith(")"):
                    raise RuntimeError("a list of a prepared statement stands in an …__in by itself")
                parts[number] = before.removesuffix("IN (") + "= ANY("
        self.sql = "%s".join(parts)

    def parameters(self, values: Sequence[Any]) -> tuple[Any, ...]:
        adapted = _adapted(values)
        return tuple([one if place is None else adapted[place] for place, one in self._given])


class _CompiledSelect(_Compiled):
    """With what makes rows of the database's answer: of a model, of the driver as they are, or by Django's iterable."""

    def __init__(self, asked: Any, samples: Sequence[Any]) -> None:
        super().__init__(asked.query, samples)
        compiler = self.compiler
        self._converters = compiler.get_converters([column for column, *_ in compiler.select[: compiler.col_count]])
        compiler.get_converters = lambda columns: self._converters
        self._iterable = asked._iterable_class
        plain = not self._converters and not compiler.has_extra_select
        self._as_driver = plain and self._iterable is ValuesListIterable
        self._model = None
        if plain and self._iterable is ModelIterable and not compiler.annotation_col_map:
            self._model = _ModelRow(compiler)

    def rows(self, parameters: tuple[Any, ...]) -> list[Any]:
        if self._as_driver or self._model:
            with connection.cursor() as cursor:
                cursor.execute(self.sql, parameters)
                rows = cursor.fetchall()
            return [self._model(row) for row in rows] if self._model else list(rows)
        compiler = copy.copy(self.compiler)  # it has compiled already
        compiler.connection = connections[DEFAULT_DB_ALIAS]  # of this thread, not of the one that came first
        compiler.as_sql = lambda: (self.sql, parameters)
        query = SimpleNamespace(get_compiler=lambda using: compiler)
        asked = SimpleNamespace(query=query, db=DEFAULT_DB_ALIAS, _known_related_objects={}, _fields=())
        return list(self._iterable(asked))


class _ModelRow:
    """Makes an instance of a row, and those joined to it: what ``ModelIterable`` finds out anew for each call."""

    def __init__(self, compiler: Any) -> None:
        places = compiler.klass_info["select_fields"]
        self._model = compiler.klass_info["model"]
        self._own = slice(places[0], places[-1] + 1)
        self._names = [column.target.attname for column, *_ in compiler.select[self._own]]
        # The stubs are of a later Django, which asks for one thing more.
        self._joined = get_related_populators(compiler.klass_info, compiler.select, DEFAULT_DB_ALIAS)  # type: ignore[call-arg]

    def __call__(self, row: Sequence[Any]) -> Any:
        found = self._model.from_db(DEFAULT_DB_ALIAS, self._names, row[self._own])
        for populator in self._joined:
            populator.populate(row, found)
        return found


def _sample(kind: type, length: int | None) -> Any:
    of = get_args(kind)
    return [_SAMPLES[of[0]]() for _ in range(length or 0)] if of else _SAMPLES[kind]()


def update_rows(model: type[models.Model], pks: Collection[Any], columns: Mapping[str, Any], **expected: Any) -> int:
    """Set columns of those of the rows named by their primary keys that still have the expected values.

    Args:
        pks: at least one.
        columns: values or rows, not expressions, set on all of them alike.

    Returns:
        How many rows were changed.
    """
    quoted = connection.ops.quote_name

    def named(name: str, value: Any) -> tuple[str, Any]:
        field: Any = model._meta.get_field(name)
        value = value.pk if isinstance(value, models.Model) else value
        return f"{quoted(field.column)} = %s", field.get_db_prep_save(value, connection)

    new = [named(name, value) for name, value in columns.items()]
    old = [named(name, value) for name, value in expected.items()]
    pk: Any = model._meta.pk
    where = [f"{quoted(pk.column)} IN ({', '.join(['%s'] * len(pks))})", *(text for text, _ in old)]
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {quoted(model._meta.db_table)} SET {', '.join(text for text, _ in new)} "  # noqa: S608 - our names
            f"WHERE {' AND '.join(where)}",
            [value for _, value in new]
            + [pk.get_db_prep_value(one, connection) for one in pks]
            + [value for _, value in old],
        )
        return int(cursor.rowcount)


def insert_rows(rows: Sequence[models.Model]) -> None:
    """Insert rows of one model, as ``bulk_create`` does; columns that are None in all of them are left out.

    In the caller's transaction, since a database that takes few parameters gets them in several statements.

    Raises:
        IntegrityError: a row contradicts what is there; the caller's transaction ends with it.
    """
    most = connection.ops.bulk_batch_size(type(rows[0])._meta.concrete_fields, rows)
    for first in range(0, len(rows), most):
        _insert(rows[first : first + most])


def _insert(rows: Sequence[models.Model]) -> None:
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
