"""PostgreSQL with values beside the statements: these are then planned once a connection, and have a limit.

And with a look at an idle connection that asks nothing.

Django writes values into the statement unless it is told otherwise, and so knows no limit. Bound by the server there
may be 65,535 in one statement, which the insertion of a large order would pass.
"""

from collections.abc import Sequence
from select import POLLIN, poll
from typing import Any, Final

from django.db.backends.postgresql import base
from django.db.backends.postgresql.operations import DatabaseOperations

MOST_VALUES: Final = 65_535


class _Operations(DatabaseOperations):
    def bulk_batch_size(self, fields: Sequence[Any], objs: Sequence[Any]) -> int:
        """How many rows go into one statement."""
        return MOST_VALUES // max(len(fields), 1)


class DatabaseWrapper(base.DatabaseWrapper):
    """The ordinary PostgreSQL wrapper, whose insertions keep to the protocol's limit."""

    ops_class = _Operations

    def is_usable(self) -> bool:
        """Whether an idle connection is still open: the server has nothing to say on it but that it has ended it."""
        if self.connection is None or self.connection.closed:
            return False
        said = poll()
        said.register(self.connection.fileno(), POLLIN)
        return not said.poll(0)
