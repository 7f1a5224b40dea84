"""Pages of a list by keyset: a page costs the same wherever it lies, and rows that are added move none of them.

A cursor names the last row of the page before: its value in the chosen order, and its id, which decides between equal
values. It is signed, so what the database is asked for is what this server wrote; and it holds the list and the
order it was made for, so it cannot be used in another.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlencode

from django.core import signing
from django.db.models import Model, Q, QuerySet

from latticeward.errors import MalformedMessageError

LARGEST_PAGE: Final = 200
DEFAULT_PAGE: Final = 50
_SALT: Final = "latticeward.page"

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows of one page, and the address of the next one: path and query, None on the last page."""

    rows: list[Row]
    next: str | None


def paginate(
    rows: QuerySet[Row], *, order: str, field: str, size: int, cursor: str | None, address: str, query: dict[str, str]
) -> Page[Row]:
    """One page of ``rows``.

    Args:
        rows: already narrowed; their order is set here.
        order: the public name of the order, with ``-`` in front for descending.
        field: the model's field (or path) behind it; never null.
        size: rows a page, 1 to ``LARGEST_PAGE``.
        cursor: from an earlier page's address.
        address: path of the list.
        query: the parameters of this request, which the next page's address repeats.

    Raises:
        MalformedMessageError: the cursor is not one of ours, or of another order.
    """
    descending = order.startswith("-")
    sign = "-" if descending else ""
    rows = rows.order_by(f"{sign}{field}", f"{sign}pk")
    if cursor is not None:
        value, pk = _read(cursor, address, order)
        step = "lt" if descending else "gt"
        rows = rows.filter(Q((f"{field}__{step}", value)) | Q((field, value), (f"pk__{step}", pk)))
    found = list(rows[: size + 1])
    page = found[:size]
    if len(found) <= size:
        return Page(page, None)
    last: Any = page[-1]
    mark = signing.dumps([address, order, _text(reduce(getattr, field.split("__"), last)), _text(last.pk)], salt=_SALT)
    return Page(page, f"{address}?{urlencode({**query, 'cursor': mark})}")


def _read(cursor: str, address: str, order: str) -> tuple[Any, Any]:
    try:
        made_at, made_for, value, pk = signing.loads(cursor, salt=_SALT)
    except (signing.BadSignature, ValueError) as error:
        raise MalformedMessageError("the cursor is not from this list's next page") from error
    if (made_at, made_for) != (address, order):
        raise MalformedMessageError("the cursor belongs to another list or ordering")
    return value, pk


def _text(value: Any) -> Any:
    return value if isinstance(value, int | str) else value.isoformat() if hasattr(value, "isoformat") else str(value)
