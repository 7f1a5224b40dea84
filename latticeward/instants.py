"""Instants on the wire: signed messages carry unix milliseconds, everything else aware UTC datetimes."""

from datetime import UTC, datetime
from typing import Final

# Signed messages accept instants below this; 2**53 is the last integer that every JSON reader keeps exact.
INSTANT_LIMIT: Final = 2**53


def to_unix_milliseconds(moment: datetime) -> int:
    """Whole milliseconds since 1970, rounded down.

    Raises:
        ValueError: the datetime is naive; its zone would be a guess.
    """
    if moment.tzinfo is None:
        raise ValueError("a naive datetime has no place on the wire")
    return int(moment.timestamp() * 1000)


def from_unix_milliseconds(milliseconds: int) -> datetime:
    """The aware UTC datetime of an instant on the wire."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
