"""Waiting longer after every failure, at random, so that a thousand agents do not return in the same second."""

import random
from typing import Final

FIRST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 30.0
# A server that asks for more is asked again after this: a typing error there must not silence a hospital for a day.
LONGEST_ASKED_SECONDS: Final = 600.0


class Backoff:
    """Full jitter: the n-th pause is uniform below min(longest, first · 2^n), and at least a tenth of that.

    Where the server said when to come again, that much comes first, and the jitter spreads over a tenth of it at least.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._failures = 0

    def next_seconds(self, *, asked_seconds: float | None = None) -> float:
        """The pause after one more failure, seconds.

        Args:
            asked_seconds: of ``Retry-After``; None if the server did not say.
        """
        asked = min(asked_seconds or 0.0, LONGEST_ASKED_SECONDS)
        ceiling = max(min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self._failures, 16)), asked / 10)
        self._failures += 1
        return asked + self._rng.uniform(ceiling / 10, ceiling)

    def reset(self) -> None:
        """Something worked: start small again."""
        self._failures = 0
