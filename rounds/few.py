"""What one device may hold open at a time: questions that wait for news, and bodies on their way.

Counted in the web loop of one process, so neither locks nor a shared store are needed. Limits by the minute
(``controlplane.throttles``) do not help here: what is held open costs memory and disk for as long as it lasts.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from latticeward.errors import TooManyRequestsError


class Few:
    """Counts what each device holds of one kind; use it from the event loop only."""

    def __init__(self, limit: int, kind: str) -> None:
        self.limit = limit
        self._kind = kind
        self._held: Counter[UUID] = Counter()

    def held(self, device_id: UUID) -> int:
        """How many a device holds now."""
        return self._held[device_id]

    @contextmanager
    def one_more(self, device_id: UUID) -> Iterator[None]:
        """Hold one more while the block runs.

        Raises:
            TooManyRequestsError: the device holds as many as it may.
        """
        if self._held[device_id] >= self.limit:
            raise TooManyRequestsError(f"device {device_id} holds {self.limit} {self._kind} open")
        self._held[device_id] += 1
        try:
            yield
        finally:
            self._held[device_id] -= 1
            if not self._held[device_id]:
                del self._held[device_id]


QUESTIONS: Final = Few(8, "questions")
# An agent sends one at a time; the others are for those of a broken line that have not been noticed yet. A chunk is
# held in memory and an envelope on the disk, so without this one device could fill either.
BODIES: Final = Few(4, "large bodies")
